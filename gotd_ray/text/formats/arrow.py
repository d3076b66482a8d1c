"""Arrow IPC, as streams, which ``datasets`` saves, and as files, which Feather is."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Container, Iterator

import pyarrow as pa

from gotd_ray.filesystems import REQUEST_BYTES, InputFile
from gotd_ray.text.batches import BATCH_ROWS, batch_rows, column_of, known_and_held
from gotd_ray.text.formats.base import Aside, Format
from gotd_ray.text.rows import BadFile, Columns, Row

_FILE = b"ARROW1"  # a file begins so, and tells at its end where its batches lie; a stream does not
_MARK = b"\xff\xff\xff\xff"  # before each message; early writers left it out
_END = _MARK + bytes(4)
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
_CACHE = Aside("cache", "what datasets.map keeps beside its input", re.compile(r"cache-[0-9a-f]+(_\d+_of_\d+)?"))


def _rows(file: InputFile, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    """Of the batches that hold a wanted row."""
    stream: io.BufferedReader = io.BufferedReader(file, REQUEST_BYTES)  # Arrow reads in small pieces
    beginning = stream.read(len(_FILE))
    try:
        schema = _open(stream, beginning, []).schema
        keys, held = known_and_held(schema, columns)
        start = 0
        for batch in _batches(_open(stream, beginning, _places(schema, held))):
            if any(row in wanted for row in range(start, start + batch.num_rows)):
                checked = _checked(batch, held)
                for first in range(0, batch.num_rows, BATCH_ROWS):
                    part = checked.slice(first, BATCH_ROWS)
                    yield from batch_rows(part, start + first, columns, keys, limit, wanted)
            start += batch.num_rows
    except (MemoryError, OverflowError) as error:  # a length that is damaged
        raise BadFile("unreadable", f"{type(error).__name__}: {error}", transient=False) from None
    if beginning.startswith(_MARK):
        _check_end(stream)


def _open(
    stream: io.BufferedReader, beginning: bytes, fields: list[int]
) -> pa.RecordBatchStreamReader | pa.RecordBatchFileReader:
    """Those fields of it, by their places; all of them where none is named."""
    stream.seek(0)
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    return (pa.ipc.open_file if beginning == _FILE else pa.ipc.open_stream)(stream, options=options)


def _places(schema: pa.Schema, held: list[str]) -> list[int]:
    """Of the columns that are held, or hold what is."""
    names = set(schema.names)
    return [
        place
        for place, name in enumerate(schema.names)
        if name in held or any(one.startswith(f"{name}.") for one in held if one not in names)
    ]


def _batches(reader: pa.RecordBatchStreamReader | pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _checked(batch: pa.RecordBatch, held: list[str]) -> pa.RecordBatch:
    """The columns that are read, with texts as bytes: UTF-8 that is invalid spoils its row only.

    Raises:
        ArrowInvalid: it is damaged. Arrow reads what it is given, and would read beyond its memory.
    """
    batch.validate()  # that it has as many rows as it says
    if not held:
        return batch.select([])  # it knows how many rows it has
    found = pa.RecordBatch.from_arrays([_as_bytes(column_of(batch, name)) for name in held], names=held)
    found.validate(full=True)
    return found


def _as_bytes(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        return _as_bytes(column.storage)
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(column.indices, _as_bytes(column.dictionary))
    return column.view(_BYTES[column.type]) if column.type in _BYTES else column


def _check_end(stream: io.BufferedReader) -> None:
    """Hold what was read against the end of the file.

    Raises:
        EOFError: the stream stops between two batches, as when its writer was killed.
        BadFile: more follows, such as another stream, that a reader of one does not see.
    """
    place = stream.tell()
    stream.seek(place - len(_END))
    if stream.read(len(_END)) != _END:
        raise EOFError("the stream has no end mark")
    if stream.seek(0, os.SEEK_END) > place:
        raise BadFile("unreadable", "more follows behind the end of the stream", transient=False)


FORMAT = Format("arrow", (".arrow", ".arrows", ".feather"), _rows, packed=False, aside=_CACHE)
