"""One generator per file format: rows of raw text in, nothing judged but what cannot be read at all.

**The rule for files that break.** A file that breaks while it is read keeps the rows read before the break and then
raises ``BadFile``. A fault of the storage (vanished, no permission, network) is ``transient``: reading again may help.
Broken content (a cut gzip stream, a damaged Parquet page) is not.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_left
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.statusandheaders import StatusAndHeadersParserException

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.storage import COMPRESSIONS, InputFile, format_of, is_denied, split_name

_BROKEN = (
    OSError,
    EOFError,
    UnicodeDecodeError,  # of damaged column names; texts are decoded with care
    pa.ArrowException,
    ArchiveLoadFailed,
    StatusAndHeadersParserException,
)
_REQUEST_BYTES = 4 << 20  # one request to an object store
_LINE_BYTES = 1 << 16  # decoded ahead of the line that is read, and lost with it when a stream breaks
_BATCH_ROWS = 256  # few, as a document may have megabytes
_LARGEST_WEIGHT = 3.4e38  # what the index's float32 holds
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row gives no text: a reason to count by, and a detail that never holds the text."""

    reason: str
    detail: str = ""


Row = tuple[int, "str | Problem", "str | None", float]
"""Row number in the file from 0, its text or what is wrong with it, its source where the row names one, its weight."""


class BadFile(Exception):  # noqa: N818 - named for what it counts
    """A file that broke while it was read; the rows before the break were already given.

    Attributes:
        reason: ``vanished``, ``no_permission``, ``io_error`` (transient), ``truncated``, ``unreadable`` (not).
        detail: what the storage or the decoder said.
        transient: whether reading again may help.
    """

    def __init__(self, reason: str, detail: str, transient: bool) -> None:
        super().__init__(reason, detail, transient)
        self.reason, self.detail, self.transient = reason, detail, transient

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def read_rows(
    uri: str, text: config.Text, storage: config.Storage, wanted: Collection[int] | None = None
) -> Iterator[Row]:
    """The rows of a file in order, streamed; with ``wanted``, only those rows and nothing behind the last of them.

    Raises:
        BadFile: the file broke, see the module's rule.
        UserError: a Parquet file lacks a column, or the column holds no text (no numbers, for weights); the format has
            no columns to take weights from.
    """
    readers = {"parquet": _parquet, "jsonl": _jsonl, "text": _plain, "warc": _warc}
    name = format_of(uri) if text.format == "auto" else text.format
    assert name is not None, f"{uri}: the listing let a file of unknown ending through"
    if text.weight_column and name in ("text", "warc"):
        raise UserError(
            f"{uri}: files of format {name} have no column '{text.weight_column}'. Leave weight_column out, or give "
            "Parquet or JSON lines"
        )
    if wanted is not None and not wanted:
        return
    last = max(wanted) if wanted else None
    with _opened(uri, storage) as file:
        for row in readers[name](file, uri, text, wanted):
            yield row
            if row[0] == last:
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


def _stream(file: InputFile, uri: str) -> io.BufferedIOBase:
    """The decoded bytes; gzip and zstd files of several members are one stream."""
    raw = io.BufferedReader(file, _REQUEST_BYTES)
    packed = split_name(uri)[2]
    if not packed:
        return raw
    decoded = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), COMPRESSIONS[packed])
    return io.BufferedReader(decoded, _LINE_BYTES)


def _decode(value: bytes | None, limit: int) -> str | Problem:
    if value is None:
        return Problem("empty_text", "null")
    if len(value) > limit:
        return Problem("too_long", f"more than {limit:,} bytes")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem("invalid_utf8", f"{error.reason} at byte {error.start}")


def _names(text: config.Text) -> list[str]:
    return [name.strip() for name in text.text_column.split(",")]


def _join(parts: list[str | Problem]) -> str | Problem:
    """Columns joined by a blank line; null and empty ones are passed over, any other problem spoils the row."""
    for part in parts:
        if isinstance(part, Problem) and part.reason != "empty_text":
            return part
    texts = [part for part in parts if isinstance(part, str) and part]
    return "\n\n".join(texts) if texts else Problem("empty_text")


def _parquet(file: InputFile, uri: str, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    table = pq.ParquetFile(file, buffer_size=_REQUEST_BYTES)
    schema = table.schema_arrow
    columns = [name for name in _names(text) if name in schema.names]
    missing = [] if columns else [text.text_column]
    others = [name for name in (text.source_column, text.weight_column) if name]
    missing += [name for name in others if name not in schema.names]
    if missing:
        raise UserError(
            f"{uri} has no column '{missing[0]}'; it has {', '.join(map(repr, schema.names))}. Set text_column, "
            "source_column and weight_column to names it has"
        )
    for name in columns:
        if not _is_text(schema.field(name).type):
            raise UserError(f"{uri}: column '{name}' holds {schema.field(name).type}, not text. Correct text_column")
    if text.weight_column and not _is_number(schema.field(text.weight_column).type):
        kind = schema.field(text.weight_column).type
        raise UserError(f"{uri}: column '{text.weight_column}' holds {kind}, not numbers. Correct weight_column")
    needed = list(dict.fromkeys([*columns, *others]))
    ordered = sorted(wanted or ())
    start = 0
    for group in range(table.num_row_groups):
        stop = start + table.metadata.row_group(group).num_rows
        if wanted is None or bisect_left(ordered, start) < bisect_left(ordered, stop):
            row = start
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=needed):
                yield from _batch_rows(batch, columns, text, row, wanted)
                row += batch.num_rows
        start = stop


def _batch_rows(
    batch: pa.RecordBatch, columns: list[str], text: config.Text, first: int, wanted: Collection[int] | None
) -> Iterator[Row]:
    values = [_binary(batch.column(name)) for name in columns]
    sources = _sources(batch.column(text.source_column)) if text.source_column else [None] * batch.num_rows
    weights = batch.column(text.weight_column).to_pylist() if text.weight_column else [1.0] * batch.num_rows
    for index in range(batch.num_rows):
        if wanted is not None and first + index not in wanted:
            continue
        parts = [_decode(column[index], text.max_document_bytes) for column in values]
        content, weight = _weighed(parts[0] if len(parts) == 1 else _join(parts), weights[index])
        yield first + index, content, sources[index], weight


def _weighed(content: str | Problem, value: object) -> tuple[str | Problem, float]:
    """The text with its weight, a finite number of at least 0, or what is wrong with either."""
    if isinstance(content, Problem):
        return content, 0.0
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return Problem("bad_weight", "missing" if value is None else type(value).__name__), 0.0
    if not 0 <= value <= _LARGEST_WEIGHT:
        return Problem(
            "bad_weight", "not a number" if value != value else "negative" if value < 0 else "too large"
        ), 0.0
    return content, float(value)


def _sources(column: pa.Array) -> list[str | None]:
    if _is_text(column.type):
        return [None if value is None else value.decode("utf-8", "replace") for value in _binary(column)]
    return [None if value is None else str(value) for value in column.to_pylist()]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in (*tests, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _binary(column: pa.Array) -> list[bytes | None]:
    """As bytes: files of other writers hold invalid UTF-8 in string columns, which must not spoil the whole batch."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    return column.cast(pa.large_binary()).to_pylist()


def _jsonl(file: InputFile, uri: str, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    limit = text.max_document_bytes
    stream = _stream(file, uri)
    names = _names(text)
    number = -1
    while line := stream.readline(limit + 1):
        number += 1
        too_long = len(line) > limit and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = stream.readline(_REQUEST_BYTES)
        if (wanted is not None and number not in wanted) or not line.strip():
            continue
        if too_long:
            yield number, Problem("too_long", f"more than {limit:,} bytes"), None, 0.0
        else:
            yield number, *_json_row(line.removeprefix(_BOM) if number == 0 else line, names, text)


def _json_row(line: bytes, names: list[str], text: config.Text) -> tuple[str | Problem, str | None, float]:
    decoded = _decode(line.rstrip(), text.max_document_bytes)
    if isinstance(decoded, Problem):
        return decoded, None, 0.0
    try:
        record = json.loads(decoded)
    except (ValueError, RecursionError) as error:
        return Problem("broken_json", getattr(error, "msg", type(error).__name__)), None, 0.0
    if not isinstance(record, dict):
        return Problem("broken_json", f"{type(record).__name__}, not an object"), None, 0.0
    source = record.get(text.source_column) if text.source_column else None
    values = [record[name] for name in names if name in record]
    if not values:
        return Problem("missing_column", f"no key {text.text_column}"), None, 0.0
    parts: list[str | Problem] = [
        value
        if isinstance(value, str)
        else Problem("empty_text", "null")
        if value is None
        else Problem("not_a_string", type(value).__name__)
        for value in values
    ]
    content, weight = _weighed(_join(parts), record.get(text.weight_column) if text.weight_column else 1.0)
    return content, None if source is None else str(source), weight


def _plain(file: InputFile, uri: str, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    if wanted is None or 0 in wanted:
        limit = text.max_document_bytes
        yield 0, _decode(_read(_stream(file, uri), limit + 1), limit), None, 1.0


def _warc(file: InputFile, uri: str, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    """The row is the record's number, requests and the like counted, though only texts and responses are given."""
    archive = ArchiveIterator(_stream(file, uri))
    number = -1
    while True:
        with _any_error_is_a_break():
            record = next(archive, None)
            if record is None:
                return
            number += 1
            taken = record.rec_type in ("conversion", "response") and (wanted is None or number in wanted)
            content = _record_text(record, text.max_document_bytes) if taken else None
            archive.read_to_end()
            if archive.err_count or getattr(record.raw_stream, "limit", 0):
                raise EOFError(f"record {number} is cut short, or its header names a wrong length")
        if content is not None:
            yield number, content, None, 1.0


@contextmanager
def _any_error_is_a_break() -> Iterator[None]:
    """warcio trips over damaged headers with errors of any kind, such as AttributeError."""
    try:
        yield
    except _BROKEN:
        raise
    except Exception as error:
        raise ArchiveLoadFailed(f"{type(error).__name__}: {error}") from error


def _record_text(record: Any, limit: int) -> str | Problem:
    if record.rec_type == "response":
        kind = (record.http_headers.get_header("Content-Type") if record.http_headers else None) or "no content type"
        if kind.partition(";")[0].strip().lower() != "text/plain":
            return Problem("not_text", kind)
    return _decode(_read(record.content_stream(), limit + 1), limit)


def _read(stream: Any, limit: int) -> bytes:
    """At most ``limit`` bytes; streams may give less than asked for before their end."""
    parts = []
    while limit > 0 and (part := stream.read(min(limit, _REQUEST_BYTES))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)
