"""Small sets of texts, read whole by one process: evaluation, development, fine-tuning and labelled sets."""

from __future__ import annotations

from dataclasses import dataclass

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.filesystems import shown
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import BadFile, Document, Tally, check_bad_rows, check_names, read_documents


@dataclass(frozen=True)
class TextSet:
    """What a set holds.

    Attributes:
        documents: in the order of the files and their rows; equal texts stand as often as they were read.
        tally: what was read and left out.
        told: sentences to show, see ``check_names``.
    """

    documents: list[Document]
    tally: Tally
    told: tuple[str, ...] = ()


def read_set(
    where: str,
    section: str,
    files: list[StoredFile],
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
) -> TextSet:
    """All documents of some files.

    Args:
        where: what the set is called in messages, such as ``pretune.dev``.
        section: where the keys stand that it is read by, such as ``target``; ``where`` itself if they are its own.

    Raises:
        UserError: a file cannot be read, more rows are bad than ``max_bad_rows`` allows, a name in the settings
            matches nothing, there is no document at all.
    """
    tally = Tally()
    documents: list[Document] = []
    for file in files:
        try:
            documents += read_documents(file, text, chunks, storage, tally)
        except BadFile as problem:
            said = shown(f"{file.uri} cannot be read: {problem}")
            raise UserError(f"{where}: {said}. Repair it, or take it out.") from None
    told = check_names(where, tally, text, section, exact=True, sources={one.source for one in documents})
    check_bad_rows(where, tally, text, section)
    if not documents:
        raise UserError(
            f"{where} has no text: {tally.why()}. Check its paths, {section}.text_column and what {section} leaves out."
        )
    return TextSet(documents, tally, tuple(told))
