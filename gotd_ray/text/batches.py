"""The rows of Arrow's record batches: values as they are stored."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gotd_ray.text.names import Foreign
from gotd_ray.text.rows import Columns, Problem, Row, decoded, joined, row_of

BATCH_ROWS = 256
"""Of a batch: few, as a document may have megabytes."""


def batch_rows(
    batch: pa.RecordBatch, first: int, columns: Columns, keys: Collection[str], limit: int, wanted: Container[int]
) -> Iterator[Row]:
    """The wanted rows of a batch.

    Args:
        batch: of the columns that are named and there, or hold what is named.
        first: the number of its first row.
        keys: all columns of the file, see ``known_and_held``.
        limit: bytes of a text.
    """
    held = set(keys)
    texts = [_texts(column_of(batch, name)) for name in columns.texts if name in held]
    others = {name: _values(column_of(batch, name)) for name in columns.others if name in held}
    others |= {name: _turns(column_of(batch, name), limit) for name in columns.turns if name in held}
    for index in range(batch.num_rows):
        if first + index in wanted:
            parts = [
                value if isinstance(value, Problem) else decoded(value, limit)
                for value in (column[index] for column in texts)
            ]
            record: dict[str, object] = {name: column[index] for name, column in others.items()}
            yield row_of(first + index, joined(parts, columns), keys, columns, record)


def known_and_held(schema: pa.Schema, columns: Columns) -> tuple[list[str], list[str]]:
    """The names of all columns, and of the fields inside them that are asked for; of these, those to be read.

    A field is named with dots, ``meta.text``. A column whose own name has them comes first.

    Raises:
        BadFile: a column that is asked for stands there twice.
    """
    names = schema.names
    inside = {name for field in schema for name in _below(field)}
    keys = [*names, *(name for name in columns.dotted if name in inside and name not in names)]
    return keys, columns.held(keys)


def _below(field: pa.Field) -> Iterator[str]:
    yield field.name
    if pa.types.is_struct(field.type):
        yield from (f"{field.name}.{name}" for inner in field.type for name in _below(inner))


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column, or a field inside one, by a name of ``known_and_held``; null where what holds it is."""
    if name in batch.schema.names:
        return batch.column(name)
    path = next(path for field in batch.schema if (path := _path(field, name)))
    column = batch.column(path[0])
    return pc.struct_field(column, path[1:])


def _path(field: pa.Field, name: str) -> list[str]:
    """The names that lead to a field; empty where none do."""
    if name == field.name:
        return [name]
    rest = name.removeprefix(f"{field.name}.")
    if rest == name or not pa.types.is_struct(field.type):
        return []
    return next(([field.name, *path] for inner in field.type if (path := _path(inner, rest))), [])


def _plain(column: pa.Array) -> pa.Array:
    """Without a dictionary, or a type of another library's own around the values."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _texts(column: pa.Array) -> Sequence[bytes | Problem | None]:
    column = _plain(column)
    if _is_text(column.type):
        return _bytes(column)
    found = Problem("not_a_string", str(column.type))
    return [found if valid else None for valid in column.is_valid().to_pylist()]


def _bytes(column: pa.Array) -> list[bytes | None]:
    """Not as strings: files of other writers hold invalid UTF-8, which must not spoil the whole batch."""
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    return column.cast(pa.large_binary()).to_pylist()


def _values(column: pa.Array) -> Sequence[object]:
    """Texts, numbers and truth values as those of Python; dates as text; of anything else its kind."""
    column = _plain(column)
    kind = column.type
    if _is_text(kind):
        return [None if value is None else value.decode("utf-8", "replace") for value in _bytes(column)]
    if any(
        test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    ):
        return column.to_pylist()
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return column.cast(pa.string()).to_pylist()
    return [Foreign(str(kind)) if valid else None for valid in column.is_valid().to_pylist()]


def _turns(column: pa.Array, limit: int) -> Sequence[object]:
    """Texts as ``decoded`` gives them, lists as those of Python, of anything else its kind."""
    column = _plain(column)
    if _is_text(column.type):
        return [None if value is None else decoded(value, limit) for value in _bytes(column)]
    if not any(test(column.type) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        return _values(column)
    return [_list(value) for value in column]


def _list(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return Problem("invalid_utf8", error.reason)


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in (*tests, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))
