"""The rows of Parquet files: values as they are stored, columns taken by their place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from gotd_ray import config
from gotd_ray.storage import InputFile
from gotd_ray.text.names import Foreign
from gotd_ray.text.rows import BadFile, Problem, Row, Wanted, decoded, joined, row_of

REQUEST_BYTES = 4 << 20  # one request to an object store
_BATCH_ROWS = 256  # few, as a document may have megabytes


def parquet_rows(file: InputFile, text: config.Text, wanted: Collection[int] | None) -> Iterator[Row]:
    """The rows of a file, those of its row groups that hold a wanted one.

    Raises:
        BadFile: a column that is needed stands twice.
        OSError, pyarrow.ArrowException: the file is broken.
    """
    table = pq.ParquetFile(file, buffer_size=REQUEST_BYTES)
    keys = table.schema_arrow.names
    names = Wanted.of(text)
    needed = [name for name in names.all if name in keys]
    for name in needed:
        if keys.count(name) > 1:
            raise BadFile("ambiguous_column", f"{keys.count(name)} columns are called {name!r}", transient=False)
    ordered = sorted(wanted or ())
    start = 0
    for group in range(table.num_row_groups):
        stop = start + table.metadata.row_group(group).num_rows
        if wanted is None or bisect_left(ordered, start) < bisect_left(ordered, stop):
            row = start
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=needed):
                yield from _batch_rows(batch, row, wanted, names, keys, text.max_document_bytes)
                row += batch.num_rows
        start = stop


def _batch_rows(
    batch: pa.RecordBatch, first: int, wanted: Collection[int] | None, names: Wanted, keys: list[str], limit: int
) -> Iterator[Row]:
    held = set(batch.schema.names)
    texts = [_texts(batch.column(name)) for name in names.texts if name in held]
    others = {name: _values(batch.column(name)) for name in names.others if name in held}
    for index in range(batch.num_rows):
        if wanted is None or first + index in wanted:
            parts = [
                value if isinstance(value, Problem) else decoded(value, limit)
                for value in (column[index] for column in texts)
            ]
            record = {name: column[index] for name, column in others.items()}
            yield row_of(first + index, joined(parts, names), keys, names, record)


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


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in (*tests, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))
