"""One generator per file format: rows of raw text in, nothing judged but what cannot be read at all.

**The rule for files that break.** A file that breaks while it is read keeps the rows read before the break and then
raises ``BadFile``. A fault of the storage (vanished, no permission, network) is ``transient``: reading again may help.
Broken content (a cut gzip stream, a damaged Parquet page) is not.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from gotd_ray import config
from gotd_ray.storage import COMPRESSIONS, InputFile, format_of, is_denied, split_name
from gotd_ray.text.parquet import REQUEST_BYTES, parquet_rows
from gotd_ray.text.rows import BadFile, Problem, Row, Wanted, decoded, joined, row_of, without_columns
from gotd_ray.text.warc import BrokenWarc, warc_rows

__all__ = ["BadFile", "Problem", "Row", "read_rows"]

_BROKEN = (
    OSError,
    EOFError,
    UnicodeDecodeError,  # of damaged column names; texts are decoded with care
    pa.ArrowException,
    BrokenWarc,
)
_LINE_BYTES = 1 << 16  # decoded ahead of the line that is read, and lost with it when a stream breaks
_BOM = b"\xef\xbb\xbf"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"


def read_rows(
    uri: str, text: config.Text, storage: config.Storage, wanted: Collection[int] | None = None
) -> Iterator[Row]:
    """The rows of a file in order, streamed; with ``wanted``, only those rows and nothing behind the last of them.

    Raises:
        BadFile: the file broke, see the module's rule.
    """
    readers = {"parquet": parquet_rows, "jsonl": _jsonl, "text": _plain, "warc": _warc}
    name = format_of(uri) if text.format == "auto" else text.format
    assert name is not None, f"{uri}: the listing let a file of unknown ending through"
    if wanted is not None and not wanted:
        return
    last = max(wanted) if wanted else None
    with _opened(uri, storage) as file:
        for row in readers[name](file, text, wanted):
            yield row
            if row.number == last:
                return


@contextmanager
def _opened(uri: str, storage: config.Storage) -> Iterator[InputFile]:
    file = None
    try:
        file = InputFile(uri, storage)
        yield file
    except _BROKEN as error:
        failure = error if file is None else file.failure
        raise _bad_file(error, failure) from None
    finally:
        if file is not None:
            file.close()


def _bad_file(error: Exception, failure: Exception | None) -> BadFile:
    detail = f"{type(failure or error).__name__}: {failure or error}"
    if isinstance(failure, FileNotFoundError):
        return BadFile("vanished", detail, transient=True)
    if failure is not None:
        return BadFile("no_permission" if is_denied(failure) else "io_error", detail, transient=True)
    cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
    return BadFile("truncated" if cut else "unreadable", detail, transient=False)


def _stream(file: InputFile) -> io.BufferedIOBase:
    """The decoded bytes; gzip and zstd files of several members are one stream."""
    raw = io.BufferedReader(file, REQUEST_BYTES)
    packed = split_name(file.uri)[2]
    if not packed:
        return raw
    if not raw.peek(1):
        raise EOFError("the file is empty, and not even the beginning of a compressed one")
    unpacked = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), COMPRESSIONS[packed])
    return io.BufferedReader(unpacked, _LINE_BYTES)


def _jsonl(file: InputFile, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    limit = text.max_document_bytes
    stream = _stream(file)
    names = Wanted.of(text)
    number = -1
    while line := stream.readline(limit + 1):
        number += 1
        line = line.removeprefix(_BOM) if number == 0 else line
        too_long = len(line) > limit and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = stream.readline(REQUEST_BYTES)
        if (wanted is not None and number not in wanted) or not line.strip():
            continue
        if too_long:
            yield Row(number, Problem("too_long", f"more than {limit:,} bytes"), weight=0.0)
        else:
            yield _json_row(number, line, names, limit)


class _Record(dict[str, Any]):
    """A JSON object that knows which keys stand in it more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.twice = {key for key in keys if keys.count(key) > 1} if len(self) < len(keys) else set()


def _json_row(number: int, line: bytes, names: Wanted, limit: int) -> Row:
    content = decoded(line.rstrip(), limit)
    if isinstance(content, Problem):
        return Row(number, content, weight=0.0)
    # The last value of a key wins silently in Python's parser; looking at all pairs is slower, and seldom needed.
    doubtful = any(content.count(f'"{name}"') > 1 for name in names.all)
    try:
        record = json.loads(content, object_pairs_hook=_Record if doubtful else None)
    except (ValueError, RecursionError) as error:
        return Row(number, Problem("broken_json", getattr(error, "msg", type(error).__name__)), weight=0.0)
    if not isinstance(record, dict):
        return Row(number, Problem("broken_json", f"{type(record).__name__}, not an object"), weight=0.0)
    if isinstance(record, _Record) and (twice := record.twice.intersection(names.all)):
        return Row(number, Problem("broken_json", f"key '{min(twice)}' stands twice"), weight=0.0)
    parts: list[str | Problem] = [
        value
        if isinstance(value, str)
        else Problem("empty_text", "null")
        if value is None
        else Problem("not_a_string", type(value).__name__)
        for value in (record[name] for name in names.texts if name in record)
    ]
    return row_of(number, joined(parts, names), record.keys(), names, record)


def _plain(file: InputFile, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    if wanted is None or 0 in wanted:
        limit = text.max_document_bytes
        data = _read(_stream(file), limit + 1)
        if data.startswith(_LFS_POINTER):
            raise BadFile("unreadable", "a pointer of Git LFS, not the text: get it by git lfs pull", transient=False)
        yield without_columns(0, decoded(data, limit), Wanted.of(text))


def _read(stream: Any, limit: int) -> bytes:
    """At most ``limit`` bytes; streams may give less than asked for before their end."""
    parts = []
    while limit > 0 and (part := stream.read(min(limit, REQUEST_BYTES))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _warc(file: InputFile, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    return warc_rows(_stream(file), text, wanted)
