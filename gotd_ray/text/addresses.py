"""Texts by address: the index holds vectors and addresses only, and the selected texts are read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from gotd_ray import config
from gotd_ray.choosing.decontaminate import NgramIndex
from gotd_ray.errors import UserError
from gotd_ray.filesystems import shown
from gotd_ray.text.clean import clean
from gotd_ray.text.documents import document_id, split_rows
from gotd_ray.text.rows import BadFile, Problem
from gotd_ray.text.turns import Conversation, as_messages, text_of

BYTES = 32 << 20
"""Of the texts that a task holds before it hands them on, at about."""

TURNS = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
"""Conversations as tables hold them: as others' tools read a column ``messages``."""

FOUND = pa.schema(
    {"place": pa.int64(), "text": pa.string(), "eval_id": pa.string(), "span": pa.string(), "messages": TURNS}
)
"""A text that was read again: the caller's number of it; the text, null where it shares a span with an evaluation text,
and which; its turns, where it is a conversation."""


@dataclass(frozen=True)
class Reading:
    """How texts are read again, and what is searched for in them.

    Attributes:
        text, chunks, storage: the settings the documents were read with.
        unwanted: the evaluation texts; None where there are none.
    """

    text: config.Text
    chunks: config.Chunks
    storage: config.Storage
    unwanted: NgramIndex | None = None


def texts_at(
    path: str,
    wanted: Mapping[tuple[int, int], str],
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
) -> Iterator[tuple[str, str]]:
    """doc_id and text of what ``rows_at`` finds."""
    return ((doc_id, piece) for doc_id, piece, _ in rows_at(path, wanted, text, chunks, storage))


def rows_at(
    path: str,
    wanted: Mapping[tuple[int, int], str],
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
) -> Iterator[tuple[str, str, Conversation | None]]:
    """The texts at some addresses of one file, if they still are what they were.

    Args:
        path: uri of the file.
        wanted: (row, chunk) to doc_id.
        text, chunks, storage: the settings the documents were read with.

    Yields:
        doc_id, text and turns. A piece whose content has another id by now is absent, as is what lies behind a break in
        a file that is damaged by now.

    Raises:
        BadFile: only a transient one: the file vanished, or the storage failed.
    """
    rows = frozenset(row for row, _ in wanted)
    try:
        for row, _, content in split_rows(path, text, chunks, storage, rows):
            for chunk, piece in enumerate([] if isinstance(content, Problem) else content):
                doc_id = wanted.get((row.number, chunk))
                if doc_id is not None and document_id(piece) == doc_id:
                    yield doc_id, piece, row.turns
    except BadFile as error:
        if error.transient:
            raise


def texts_of_files(
    files: dict[str, int], wanted: pa.Table, reading: Reading
) -> Iterator[tuple[pa.Table, dict[str, str]]]:
    """The texts at some addresses of several files, each opened once; what they share with evaluation texts is found.

    A task of its own on Ray: in a module that imports little, for each new process imports it.

    Args:
        files: uris, and how many texts are wanted of each.
        wanted: row, chunk, doc_id, and place, the caller's number, file after file; each document once.

    Yields:
        Tables of ``FOUND``, of some ``BYTES``; and the files that are not as they were, with what has become of them.

    Raises:
        UserError: the storage did not give a file.
    """
    rows: list[_Found] = []
    size = 0
    for path, places, numbers in _by_file(files, wanted):
        found, gone = 0, None
        try:
            for doc_id, text, turns in rows_at(path, places, reading.text, reading.chunks, reading.storage):
                found += 1
                whole = clean(text_of(turns, "all")) if turns else text  # whatever of it is embedded
                if reading.unwanted and (shared := reading.unwanted.match(whole)):
                    rows.append((numbers[doc_id], None, shared.eval_id, shared.span, None))
                else:
                    rows.append((numbers[doc_id], text, None, None, as_messages(turns) if turns else None))
                    size += len(text) + (len(whole) if turns else 0)
                if size > BYTES:
                    yield _table(rows), {}
                    rows, size = [], 0
        except BadFile as problem:
            if problem.reason != "vanished":
                said = shown(f"{path} cannot be read back: {problem}")
                raise UserError(f"{said}. Run again when the storage answers.") from None
            gone = str(problem)
        if gone or found < len(numbers):
            yield _table([]), {path: gone or "some of its texts are no longer what they were"}
    yield _table(rows), {}


def _by_file(
    files: dict[str, int], wanted: pa.Table
) -> Iterator[tuple[str, dict[tuple[int, int], str], dict[str, int]]]:
    """Each uri with (row, chunk) to doc_id, and doc_id to the caller's number."""
    start = 0
    for path, count in files.items():
        columns = wanted.slice(start, count).to_pydict()
        addresses = zip(columns["row"], columns["chunk"], strict=True)
        yield (
            path,
            dict(zip(addresses, columns["doc_id"], strict=True)),
            dict(zip(columns["doc_id"], columns["place"], strict=True)),
        )
        start += count


_Found = tuple[int, str | None, str | None, str | None, list[dict[str, str]] | None]


def _table(rows: list[_Found]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([],) * len(FOUND)
    return pa.table([list(column) for column in columns], schema=FOUND)
