"""JSON lines: an object on each line."""

from __future__ import annotations

import io
import json
from collections.abc import Container, Iterator
from typing import Any

from gotd_ray.filesystems import REQUEST_BYTES, InputFile, unpacked
from gotd_ray.text.formats.base import Format
from gotd_ray.text.rows import BOM, NOWHERE, Columns, Problem, Row, decoded, joined, reach, row_of, too_long


def _rows(file: InputFile, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    yield from lines_of(unpacked(file), columns, limit, wanted)


def lines_of(stream: io.BufferedReader, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    """The row is the line's number; empty lines are counted and not given."""
    number = -1
    while line := stream.readline(limit + 1):
        number += 1
        line = line.removeprefix(BOM) if number == 0 else line
        long = len(line) > limit and not line.endswith(b"\n")
        rest = line
        while long and rest and not rest.endswith(b"\n"):
            rest = stream.readline(REQUEST_BYTES)
        if number in wanted and line.strip():
            yield Row(number, too_long(limit), weight=0.0) if long else row_from(number, line, columns, limit)


class _Record(dict[str, Any]):
    """A JSON object that knows which keys stand in it more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.twice = {key for key in keys if keys.count(key) > 1} if len(self) < len(keys) else set()


def _twice(record: _Record, columns: Columns) -> str | None:
    """A key that is asked for, or leads there, and stands twice."""
    if twice := record.twice.intersection(columns.all):
        return min(twice)
    for name in columns.dotted:
        inner: Any = record
        for part in name.split(".") if name not in record else ():
            if not isinstance(inner, _Record):
                break
            if part in inner.twice:
                return part
            inner = inner.get(part)
    return None


def row_from(number: int, line: bytes, columns: Columns, limit: int) -> Row:
    """The row of an object as it is written."""
    content = decoded(line.rstrip(), limit)
    if isinstance(content, Problem):
        return Row(number, content, weight=0.0)
    # The last value of a key wins silently in Python's parser; looking at all pairs is slower, and seldom needed.
    doubtful = any(content.count(f'"{word}"') > 1 for word in columns.words)
    try:
        record = json.loads(content, object_pairs_hook=_Record if doubtful else None)
    except (ValueError, RecursionError) as error:
        return Row(number, Problem("broken_json", getattr(error, "msg", type(error).__name__)), weight=0.0)
    if not isinstance(record, dict):
        return Row(number, Problem("broken_json", f"{type(record).__name__}, not an object"), weight=0.0)
    if isinstance(record, _Record) and (twice := _twice(record, columns)):
        return Row(number, Problem("broken_json", f"key '{twice}' stands twice"), weight=0.0)
    found = {name: reach(record, name) for name in columns.dotted}
    record |= {name: value for name, value in found.items() if value is not NOWHERE}
    parts: list[str | Problem] = [
        value
        if isinstance(value, str)
        else Problem("empty_text", "null")
        if value is None
        else Problem("not_a_string", type(value).__name__)
        for value in (record[name] for name in columns.texts if name in record)
    ]
    return row_of(number, joined(parts, columns), record.keys(), columns, record)


FORMAT = Format("jsonl", (".jsonl", ".ndjson"), _rows, faults=frozenset({"broken_json"}))
