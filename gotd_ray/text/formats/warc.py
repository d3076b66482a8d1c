"""WARC and WET: whole records are read, and one of unknown length does not take the next ones with it.

By ISO 28500: a version line, header lines, an empty line, a block of ``Content-Length`` bytes, two line ends. Writers
miscount, so line ends after a block are skipped as they come, and where no record follows, the length was wrong: the
record is counted as bad, and reading goes on at the next line that begins a record.
"""

from __future__ import annotations

import codecs
import io
import re
import zlib
from collections.abc import Container, Iterator
from typing import NamedTuple

import pyarrow as pa

from gotd_ray.filesystems import InputFile, read_up_to, unpacked
from gotd_ray.text.formats.base import Format
from gotd_ray.text.rows import BadFile, Columns, Problem, Row, decoded, too_long, without_columns

MACHINERY = frozenset({"warcinfo", "request", "metadata"})
"""Types of records about the crawl: they hold no document."""

_BEGINNING = re.compile(rb"^WARC/\d\.\d+[ \t]*\r?\n(?=[\w-]+:)", re.MULTILINE)
_HEADER_BYTES = 1 << 20
_PART_BYTES = 1 << 20
_UNKNOWN_TYPES = ("", "application/octet-stream", "application/warc-record")
"""Of a block whose writer did not know, or did not say, what it holds."""

_DECODERS = {"gzip": "gzip", "x-gzip": "gzip", "br": "brotli", "zstd": "zstd", "deflate": "deflate"}
_CHUNK = re.compile(rb"(?:\r?\n)?([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHARSETS = re.compile(
    r"utf-(8|16|32)(-[bl]e)?|ascii|iso8859-\d+|cp\d+|koi8-\w|mac-\w+|gb(2312|k|18030)|hz|big5\w*|shift_jis\w*|euc_\w+"
    r"|iso2022_\w+|johab|tis-620|ptcp154"
)
"""Python's names of character sets; it has other codecs, which web text must not reach."""


class Record(NamedTuple):
    """A record's header, by names in lower case, and its block."""

    headers: dict[str, str]
    block: bytes
    size: int
    """Of the block, which is kept to a limit."""

    fault: str = ""
    """Why the block is none."""

    @property
    def kind(self) -> str:
        return self.headers.get("warc-type", "").lower()


def _rows(file: InputFile, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    """The row is the record's number; all are counted, but those of the machinery are not given.

    Raises:
        EOFError: the file ends within a record.
        BadFile: it holds no records, or the end of a large one cannot be found.
    """
    for number, record in enumerate(_records(_Bytes(unpacked(file)), 2 * limit + _HEADER_BYTES)):
        if record.kind not in MACHINERY and number in wanted:
            yield without_columns(number, _content(record, limit), columns)


class _Bytes:
    """A stream that takes bytes back."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._back = io.BytesIO()

    def readline(self, limit: int) -> bytes:
        line = self._back.readline(limit)
        if line.endswith(b"\n") or len(line) == limit:
            return line
        return line + self._stream.readline(limit - len(line))

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end only."""
        data = self._back.read(size)
        return data + read_up_to(self._stream, size - len(data))

    def put_back(self, data: bytes) -> None:
        self._back = io.BytesIO(data + self._back.read())


def _records(source: _Bytes, room: int) -> Iterator[Record]:
    """The records in order; of a block ``room`` bytes are kept."""
    while (line := _next_line(source)) is not None:
        if not _begins(line):  # can only be the first: behind a record the next one was looked for
            raise BadFile("unreadable", "it does not begin as a WARC record does", transient=False)
        headers = _headers(source)
        length = headers.get("content-length", "")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            _skip_to_record(source)
            yield Record(headers, b"", 0, f"Content-Length {length[:20]!r}" if length else "no Content-Length")
            continue
        size = int(length)
        block = source.read(min(size, room))
        complete = len(block) == min(size, room) and _skipped(source, size - len(block))
        if complete and _at_record(source):
            yield Record(headers, block, size)
        elif beginning := _BEGINNING.search(block):
            source.put_back(block[beginning.start() :])
            yield Record(headers, b"", 0, "Content-Length is too large")
        elif not complete:
            raise EOFError("the file ends within a record, or the record's Content-Length is too large")
        elif size > room:
            said = f"no record follows one of {size:,} bytes: its Content-Length is wrong"
            raise BadFile("unreadable", said, transient=False)
        else:
            _skip_to_record(source)
            yield Record(headers, b"", 0, "Content-Length is too small")


def _next_line(source: _Bytes) -> bytes | None:
    """The next line that is not empty; None at the end."""
    while line := source.readline(_HEADER_BYTES):
        if line.strip(b"\r\n"):
            return line
    return None


def _headers(source: _Bytes) -> dict[str, str]:
    """Up to the empty line.

    Raises:
        EOFError: there is none.
    """
    lines: list[str] = []
    room = _HEADER_BYTES
    while (line := source.readline(room)).strip(b"\r\n"):
        room -= len(line)
        if room <= 0:
            return {}
        lines.append(line.decode("utf-8", "replace"))
    if not line:
        raise EOFError("the file ends within a record's header")
    return _parsed(lines)


def _parsed(lines: list[str]) -> dict[str, str]:
    """Header lines by name, the first of a name; lines that begin with a space go on with the one before."""
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line[:1] in (" ", "\t") and name:
            found[name] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        if name in found:
            name = ""
        elif name:
            found[name] = value.strip()
    return found


def _skipped(source: _Bytes, size: int) -> bool:
    """Pass over so many bytes; False if there are fewer."""
    while size and (part := source.read(min(size, _PART_BYTES))):
        size -= len(part)
    return not size


def _at_record(source: _Bytes) -> bool:
    """Whether nothing but line ends stands before the next record, or before the end."""
    line = _next_line(source)
    if line is None:
        return True
    source.put_back(line)
    return _begins(line)


def _begins(line: bytes) -> bool:
    """Whether a record begins here, or the file ends where one would."""
    return b"WARC/".startswith(line[:5])


def _skip_to_record(source: _Bytes) -> None:
    """Pass over all lines before one that begins a record."""
    line = source.readline(_HEADER_BYTES)
    while line:
        following = source.readline(_HEADER_BYTES)
        if _BEGINNING.match(line + following):
            source.put_back(line + following)
            return
        line = following


def _content(record: Record, limit: int) -> str | Problem:
    """The text of a record that is no machinery, or why it has none."""
    if record.fault:
        return Problem("bad_record", record.fault)
    if record.kind == "continuation" or "warc-segment-number" in record.headers:
        return Problem("bad_record", "a segment of a longer record")
    media, charset = _media_type(record.headers.get("content-type", ""))
    if media == "application/http" and record.kind in ("response", "resource"):
        return _http_content(record, limit)
    if record.kind not in ("conversion", "resource", "response"):
        return Problem("not_text", f"a record of type {record.kind or 'unknown'}")
    if media != "text/plain" and not (record.kind == "conversion" and media in _UNKNOWN_TYPES):
        return Problem("not_text", media or "no content type")
    return _decoded(record.block, charset, limit) if record.size == len(record.block) else too_long(limit)


def _http_content(record: Record, limit: int) -> str | Problem:
    if not record.block.startswith(b"HTTP/"):
        return Problem("bad_record", "no HTTP header")
    end = re.search(rb"\r?\n\r?\n", record.block)
    if end is None:
        return Problem("bad_record", "no end of the HTTP header")
    headers = _parsed(record.block[: end.start()].decode("utf-8", "replace").split("\n")[1:])
    media, charset = _media_type(headers.get("content-type", ""))
    if media != "text/plain":
        return Problem("not_text", media or "no content type")
    if record.size > len(record.block):
        return too_long(limit)
    body: bytes | Problem = record.block[end.end() :]
    codings = f"{headers.get('content-encoding', '')},{headers.get('transfer-encoding', '')}"
    for coding in reversed([name.strip().lower() for name in codings.split(",")]):
        body = _unpacked(body, coding, limit) if isinstance(body, bytes) else body
    return body if isinstance(body, Problem) else _decoded(body, charset, limit)


def _media_type(value: str) -> tuple[str, str]:
    """Type and charset of a Content-Type."""
    media, _, parameters = value.partition(";")
    charset = re.search(r"(?:^|;)\s*charset\s*=\s*[\"']?([\w.:-]+)", parameters, re.IGNORECASE)
    return media.strip().lower(), charset[1] if charset else ""


def _unpacked(body: bytes, coding: str, limit: int) -> bytes | Problem:
    """A body without one of its codings; of writers that took it off and left the header, as it is."""
    if coding in ("", "identity"):
        return body
    if coding == "chunked":
        return _joined_chunks(body)
    if coding not in _DECODERS:
        return Problem("not_text", f"content encoding {coding[:40]}")
    try:
        if coding == "deflate":
            return _inflated(body, limit)
        if _DECODERS[coding] == "gzip" and not body.startswith(b"\x1f\x8b"):
            return body
        packed = pa.CompressedInputStream(pa.BufferReader(body), _DECODERS[coding])
        return io.BufferedReader(packed).read(limit + 1)
    except (OSError, EOFError, pa.ArrowException, zlib.error) as error:
        return Problem("bad_record", f"content encoding {coding}: {error}")


def _inflated(body: bytes, limit: int) -> bytes:
    """With zlib's header, as it should be, or without, as some servers send it."""
    zlib_header = len(body) > 1 and body[0] & 15 == 8 and not int.from_bytes(body[:2], "big") % 31
    decoder = zlib.decompressobj(zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
    found = decoder.decompress(body, limit + 1)
    if not decoder.eof and len(found) <= limit:
        raise EOFError("cut short")
    return found


def _joined_chunks(body: bytes) -> bytes | Problem:
    parts: list[bytes] = []
    start = 0
    while size := _CHUNK.match(body, start):
        length = int(size[1], 16)
        if not length:
            return b"".join(parts)
        parts.append(body[size.end() : size.end() + length])
        start = size.end() + length
    return Problem("bad_record", "its chunks are cut short") if parts else body


def _decoded(data: bytes, charset: str, limit: int) -> str | Problem:
    """The text in the character set that is named, in UTF-8 if none is."""
    try:
        known = codecs.lookup(charset).name if charset else "utf-8"
    except LookupError:
        known = "utf-8"
    if known == "utf-8" or not _CHARSETS.fullmatch(known):
        return decoded(data, limit)
    if len(data) > limit:
        return too_long(limit)
    try:  # the web reads these two as Windows-1252, which has quotation marks where they have control characters
        return data.decode("cp1252" if known in ("iso8859-1", "ascii") else known)
    except UnicodeDecodeError as error:
        return Problem("invalid_utf8", f"nor {known}: {error.reason} at byte {error.start}")


FORMAT = Format("warc", (".warc", ".wet"), _rows, faults=frozenset({"bad_record"}))
