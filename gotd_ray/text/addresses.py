"""Texts by address: the index holds vectors and addresses only, and the selected texts are read again."""

from __future__ import annotations

from collections.abc import Mapping

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.filesystems import shown
from gotd_ray.text.documents import document_id, split_rows
from gotd_ray.text.rows import BadFile, Problem


def texts_at(
    path: str,
    wanted: Mapping[tuple[int, int], str],
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
) -> dict[str, str]:
    """The texts at some addresses of one file, if they still are what they were.

    Args:
        path: uri of the file.
        wanted: (row, chunk) to doc_id.
        text, chunks, storage: the settings the documents were read with.

    Returns:
        doc_id to text. A piece whose content has another id by now is absent, as is what lies behind a break in a
        file that is damaged by now.

    Raises:
        BadFile: only a transient one: the file vanished, or the storage failed.
    """
    found: dict[str, str] = {}
    rows = frozenset(row for row, _ in wanted)
    try:
        for row, _, content in split_rows(path, text, chunks, storage, rows):
            for chunk, piece in enumerate([] if isinstance(content, Problem) else content):
                doc_id = wanted.get((row.number, chunk))
                if doc_id is not None and document_id(piece) == doc_id:
                    found[doc_id] = piece
    except BadFile as error:
        if error.transient:
            raise
    return found


def texts_of_files(
    wanted: dict[str, dict[tuple[int, int], str]], text: config.Text, chunks: config.Chunks, storage: config.Storage
) -> tuple[dict[str, str], dict[str, str]]:
    """The texts at some addresses of several files.

    A task of its own on Ray: in a module that imports little, for each new process imports it.

    Args:
        wanted: by uri of a file, (row, chunk) to doc_id.

    Returns:
        doc_id to text; and the files that are not as they were, with what has become of them.

    Raises:
        UserError: the storage did not give a file.
    """
    texts: dict[str, str] = {}
    changed: dict[str, str] = {}
    for path, places in wanted.items():
        try:
            found = texts_at(path, places, text, chunks, storage)
        except BadFile as problem:
            if problem.reason != "vanished":
                said = shown(f"{path} cannot be read back: {problem}")
                raise UserError(f"{said}. Run again when the storage answers.") from None
            found, changed[path] = {}, str(problem)
        if len(found) < len(set(places.values())):
            changed.setdefault(path, "some of its texts are no longer what they were")
        texts |= found
    return texts, changed
