"""What a Parquet file of vectors takes, by how they are encoded."""

from __future__ import annotations

import io
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from index_formats import Runs, with_bytes
from measure import heading, row

STREAMS = {"vector.list.element": "BYTE_STREAM_SPLIT"}
"""The smallest, but DuckDB 2.0 does not read it for half floats."""

WAYS: dict[str, dict[str, Any]] = {
    "lists, dictionaries, zstd (the default)": {"compression": "zstd"},
    "lists, zstd": {"compression": "zstd", "use_dictionary": False},
    "lists, byte streams, zstd": {"compression": "zstd", "use_dictionary": False, "column_encoding": STREAMS},
    "lists, not compressed": {"compression": "none", "use_dictionary": False},
    "bytes, zstd": {"compression": "zstd", "use_dictionary": False},
    "bytes, not compressed": {"compression": "none", "use_dictionary": False},
}


def encodings(table: pa.Table, repeats: int) -> None:
    """One part in memory, in row groups as those of a run; the least CPU seconds of so many."""
    print()
    heading(f"a part of {len(table):,} rows", "MB", "written, CPU s", "read, CPU s")
    for words, given in WAYS.items():
        rows = with_bytes(table) if words.startswith("bytes") else table
        spent: list[tuple[float, float]] = []
        for _ in range(max(1, repeats)):
            sink = io.BytesIO()
            started = time.process_time()
            pq.write_table(rows, sink, row_group_size=Runs.group, **given)
            written = time.process_time()
            assert pq.ParquetFile(io.BytesIO(sink.getvalue())).read().num_rows == len(table)
            spent.append((written - started, time.process_time() - written))
        least = [f"{min(times):.3f}" for times in zip(*spent, strict=True)]
        row(words, f"{len(sink.getvalue()) / 1e6:.1f}", *least)
