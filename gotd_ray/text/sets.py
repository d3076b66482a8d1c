"""Small sets of texts, read whole by one process: evaluation, development, fine-tuning and labelled sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.filesystems import shown
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import Document, read_documents
from gotd_ray.text.rows import BadFile
from gotd_ray.text.tally import Tally, check_bad_rows, check_names

WHOLE = config.Chunks(max_chars=None, min_chars=1)
"""Texts that are classified or judged are not cut."""


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


def without_weights(text: config.Text) -> config.Text:
    """Texts of one weight each, such as those that are trained on or judged."""
    return text.model_copy(update={"weight_column": None, "proportions": None})


def idea(text: config.Text, chunks: config.Chunks) -> dict[str, Any]:
    """What decides the texts of given files, for a key: not how many bad ones are allowed, nor names of no use."""
    nothing = {"paths", "max_bad_files", "max_bad_rows"}
    if not text.exclude_sources:
        nothing |= {"source_column", "source_from"}
    return text.model_dump(exclude=nothing) | {"chunks": chunks.model_dump()}


def state(files: list[StoredFile] | None) -> list[tuple[str, int, int]]:
    """What tells files, as they are now, from others, for a key."""
    return [(file.uri, file.size, file.modified) for file in files or []]


def left_out_of(where: str, left_out: Mapping[str, int]) -> list[str]:
    """A sentence on what was left out of a set, by reason, or none."""
    shown = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
    return [f"{where}: left out: {shown}"] if shown else []
