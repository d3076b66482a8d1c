"""Parquet: values as they are stored, columns taken by their place."""

from __future__ import annotations

from collections.abc import Container, Iterator

import pyarrow.parquet as pq

from gotd_ray.filesystems import REQUEST_BYTES, InputFile
from gotd_ray.text.batches import BATCH_ROWS, batch_rows, known_and_held
from gotd_ray.text.formats.base import Format
from gotd_ray.text.rows import Columns, Row


def _rows(file: InputFile, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    """Of the row groups that hold a wanted row."""
    table = pq.ParquetFile(file, buffer_size=REQUEST_BYTES)
    keys, held = known_and_held(table.schema_arrow, columns)
    start = 0
    for group in range(table.num_row_groups):
        stop = start + table.metadata.row_group(group).num_rows
        if any(row in wanted for row in range(start, stop)):
            row = start
            for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=held):
                yield from batch_rows(batch, row, columns, keys, limit, wanted)
                row += batch.num_rows
        start = stop


FORMAT = Format("parquet", (".parquet",), _rows, packed=False, bytes_per_character=0.55)
