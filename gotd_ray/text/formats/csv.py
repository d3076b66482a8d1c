"""CSV and TSV by RFC 4180: a header, and quotes around fields that hold delimiters, quotes or line ends."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Container, Iterator

from gotd_ray.filesystems import InputFile, split_name, unpacked
from gotd_ray.text.formats.base import Format, refuse_pointer
from gotd_ray.text.rows import BOM, BadFile, Columns, Problem, Row, decoded, joined, row_of, too_long

_TABS = (".tsv", ".tab")
_BYTES = "latin-1"  # a character for each byte: UTF-8 is decoded field by field, so that a bad one spoils its row only
_LINE_END = 2  # bytes at most
_RETURN = "\ue000"  # for a carriage return within a line, which the parser would take for the line's end
_PIECE = 1 << 20
_ORDINARY = re.compile(r'[^",\t\r\n]+')
_INSIDE = re.compile(r'(?:[^"]++|"")*+')  # of a quoted field

csv.field_size_limit(2**31 - 1)  # rows are held to our own limit, which may be above the parser's 131,072


class _Lines:
    """Lines for Python's parser, which takes as many as a row has; it knows those of the row, and takes them back."""

    def __init__(self, stream: io.BufferedReader, limit: int) -> None:
        end = re.search(rb"\r*\n|\r", stream.peek(1))
        self._end = "\r" if end and end[0] == b"\r" else "\n"  # a lone \r ends lines where it ends the header
        self._doubled = bool(end and end[0] == b"\r\r\n")  # as Python writes on Windows to a file in text mode
        self._stream = io.TextIOWrapper(stream, _BYTES, newline=self._end)
        self._limit = limit + _LINE_END
        self._back = [self._stream.readline(_PIECE).removeprefix(BOM.decode(_BYTES))]
        self.begin()

    def begin(self) -> None:
        """A row begins here."""
        self._row: list[str] = []
        self._size = self._kept = 0

    @property
    def too_long(self) -> bool:
        """Whether the row is above the limit. What is beyond is kept only as far as it tells where the row ends."""
        return self._size > self._limit

    def go_back(self) -> None:
        """Go on at the second line of the row."""
        self._back += reversed(self._row[1:])

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._read()
        while self.too_long and self._row and line and _INSIDE.fullmatch(line):
            line = self._read()  # the parser asks for a second line within quotes only
        self._row.append(line)
        self._kept += len(line)
        if self._kept > 2 * (self._limit + _PIECE):
            raise _endless()
        if not line:
            raise StopIteration
        return line

    def _read(self) -> str:
        line = self._back.pop() if self._back else ""
        self._size += len(line)
        while not line.endswith(self._end) and (piece := self._stream.readline(_PIECE)):
            self._size += len(piece)
            line += _ORDINARY.sub("-", piece) if line and self.too_long else piece
        if self._doubled:
            line = line.replace("\r\r\n", "\r\n")
        if self._end == "\n" and "\r" in line[:-_LINE_END]:
            line = line[:-_LINE_END].replace("\r", _RETURN) + line[-_LINE_END:]
        return line


def _endless() -> BadFile:
    return BadFile("unreadable", "a row does not end: a quote is opened and not closed", transient=False)


def _rows(file: InputFile, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    """The row is the number of the record; the header and empty lines are not counted."""
    lines = _Lines(unpacked(file), limit)
    parser = csv.reader(lines, delimiter="\t" if split_name(file.uri)[1] in _TABS else ",", strict=True)
    names = _header(parser)
    places = {name: names.index(name) for name in columns.held(names)}
    for number, fields in enumerate(_records(parser, lines, limit)):
        if number not in wanted:
            continue
        if not isinstance(fields, Problem) and len(fields) != len(names):
            fields = Problem("ragged_row", f"{len(fields)} fields, and the header has {len(names)}")
        if isinstance(fields, Problem):
            yield Row(number, fields, weight=0.0, keys=names)
            continue
        values = {name: _raw(fields[place]) for name, place in places.items()}
        content = joined([decoded(values[name], limit) for name in columns.texts if name in values], columns)
        record: dict[str, object] = {name: value.decode("utf-8", "replace") or None for name, value in values.items()}
        record |= {name: decoded(values[name], limit) for name in columns.turns if name in values}
        if columns.weight in record:
            record[columns.weight] = _number(record[columns.weight])
        yield row_of(number, content, names, columns, record)


def _header(parser: Iterator[list[str]]) -> list[str]:
    """The names of the columns; none of an empty file.

    Raises:
        BadFile: it is no text, or not in UTF-8.
    """
    try:
        raw = [_raw(name) for name in next(filter(None, parser), [])]
        refuse_pointer(b"".join(raw))
        names = [name.decode("utf-8") for name in raw]
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadFile("unreadable", f"its header is none: {error}", transient=False) from None
    if any("\0" in name for name in names):
        raise BadFile("unreadable", "its header holds zero bytes: save the file as UTF-8", transient=False)
    return names


def _records(parser: Iterator[list[str]], lines: _Lines, limit: int) -> Iterator[list[str] | Problem]:
    """The fields of each record, or why it has none.

    Where quotes are wrong, the record may have taken in the next ones: reading goes on at its second line.
    """
    while True:
        lines.begin()
        try:
            fields = next(parser)
        except StopIteration:
            return
        except csv.Error as error:
            if lines.too_long:
                raise _endless() from None
            lines.go_back()
            yield Problem("broken_csv", str(error))
            continue
        if lines.too_long:
            yield too_long(limit)
        elif fields:
            yield fields


def _raw(field: str) -> bytes:
    return field.replace(_RETURN, "\r").encode(_BYTES)


def _number(value: object) -> object:
    """A weight, where the field is one."""
    try:
        return float(str(value))
    except ValueError:
        return value


FORMAT = Format("csv", (".csv", *_TABS), _rows, faults=frozenset({"broken_csv", "ragged_row"}))
