"""Texts by address: the index holds vectors and addresses only, and the selected texts are read again."""

from __future__ import annotations

from collections.abc import Mapping

from gotd_ray import config
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
