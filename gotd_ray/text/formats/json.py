"""A JSON file: one array of objects, streamed, or objects on lines of their own, which many call ``.json``."""

from __future__ import annotations

import io
import re
from collections.abc import Container, Iterator

from gotd_ray.filesystems import InputFile, unpacked
from gotd_ray.text.formats.base import Aside, Format, refuse_pointer
from gotd_ray.text.formats.jsonl import lines_of, row_from
from gotd_ray.text.rows import BOM, BadFile, Columns, Row, too_long

_PIECE = 1 << 16
_WHOLE = rb'"(?:[^"\\]++|\\.)*+"'  # a text that ends in this piece
_SHALLOW = re.compile(rb'(?:[^"\[\]{},]++|' + _WHOLE + rb")*+", re.DOTALL)  # up to a sign between elements
_DEEP = re.compile(rb'(?:[^"\[\]{}]++|' + _WHOLE + rb")*+", re.DOTALL)  # up to a bracket in one
_IN_TEXT = re.compile(rb'[^"\\]*+')
_SPACES = b" \t\r\n"
_ABOUT = re.compile(
    r"dataset_(infos?|dict)|state|metadata|config|package(-lock)?|tsconfig|composer|_?manifest|settings", re.IGNORECASE
)


def _rows(file: InputFile, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    """The row is the number of the element."""
    stream = unpacked(file)
    beginning = stream.peek(1)[:_PIECE].removeprefix(BOM).lstrip(_SPACES)
    if beginning.startswith(b"["):
        for number, element in enumerate(elements(stream, limit)):
            if number in wanted and element is not None:
                yield row_from(number, element, columns, limit)
            elif number in wanted:
                yield Row(number, too_long(limit), weight=0.0)
        return
    refuse_pointer(beginning)
    if beginning and not beginning.startswith(b"{"):
        raise BadFile("unreadable", "it begins with neither [ nor {", transient=False)
    yield from lines_of(stream, columns, limit, wanted)


def elements(stream: io.BufferedReader, limit: int) -> Iterator[bytes | None]:
    """The elements of an array as they are written, of at most ``limit`` bytes; None for a longer one.

    Only where an element ends is looked for: what stands in it may be broken, and the next is found all the same,
    unless a quote or bracket is missing. Held are a piece of the file, and one element.

    Raises:
        EOFError: the array does not end.
        BadFile: more follows behind it.
    """
    parts: list[bytes] = []
    size = depth = 0  # bytes of the element so far; brackets that are open, the array's own too
    inside, escaped, any_yet = False, False, False  # a text; a backslash; an element

    while piece := stream.read1(_PIECE):
        place = start = 0
        while True:
            if escaped:  # the sign behind a backslash is nothing but itself
                if place == len(piece):
                    break
                place, escaped = place + 1, False
            passed = (_IN_TEXT if inside else _DEEP if depth > 1 else _SHALLOW).match(piece, place)
            assert passed is not None  # it may be empty
            end = passed.end()
            if end == len(piece):
                break
            sign, place = piece[end : end + 1], end + 1
            if sign == b'"':
                inside = not inside
            elif sign == b"\\":
                escaped = True
            elif sign in b"[{":
                depth += 1
                if depth == 1:
                    start = place
            elif sign in b"]}":
                depth -= 1
            if depth == 0 or (depth == 1 and sign == b","):
                size += end - start
                element = b"".join([*parts, piece[start:end]]) if size <= limit else None
                if depth or any_yet or element is None or element.strip(_SPACES):
                    yield element
                parts, size, start, any_yet = [], 0, place, True
            if depth == 0:
                _refuse_more(piece[place:], stream)
                return
        if depth:
            size += len(piece) - start
            if size <= limit:
                parts.append(piece[start:])
            else:
                parts.clear()
    raise EOFError("the array is cut: it has no closing bracket")


def _refuse_more(rest: bytes, stream: io.BufferedReader) -> None:
    while not rest.strip(_SPACES):
        if not (rest := stream.read1(_PIECE)):
            return
    raise BadFile("unreadable", "more follows behind the end of the array", transient=False)


FORMAT = Format(
    "json", (".json",), _rows, faults=frozenset({"broken_json"}), aside=Aside("metadata", "what tells of data", _ABOUT)
)
