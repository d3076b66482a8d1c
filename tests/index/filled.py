"""Indexes for tests, filled as embed would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from gotd_ray.config import Storage
from gotd_ray.index import ROWS, Entry, Index, Part, entry_name
from gotd_ray.storage import StoredFile
from gotd_ray.text.tally import Tally

STORAGE = Storage()
FILES = [StoredFile(f"/corpus/{name}.parquet", 3 << 20, 1) for name in "abcdef"]
WIDTH = 4


def index_in(folder: Path) -> Index:
    return Index(str(folder / "rows"), str(folder / "vectors"), STORAGE)


def some_rows(paths: list[str], seed: int, rows: int = 300, ids: list[str] | None = None) -> pa.Table:
    """Rows of documents of these files, in turns."""
    rng = np.random.default_rng(seed)
    if ids is None:
        ids = [rng.bytes(16).hex() for _ in range(rows)]
    n = len(ids)
    return pa.table(
        {
            "doc_id": ids,
            "source": ["s"] * n,
            "path": [paths[i % len(paths)] for i in range(n)],
            "row": range(n),
            "chunk": [0] * n,
            "chars": [1] * n,
            "weight": [1.0] * n,
        },
        ROWS,
    )


def vector_of(doc_id: str) -> np.ndarray:
    """Any, as long as it depends on the document alone."""
    return np.random.default_rng(int(doc_id[:12], 16)).normal(size=WIDTH).astype(np.float16)


def vectors_for(ids: list[str]) -> pa.Table:
    values = np.concatenate([vector_of(one) for one in ids])
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), WIDTH)
    return pa.table(
        {"doc_id": ids, "tokens": pa.array([int(one[:2], 16) for one in ids], pa.int32()), "vector": column}
    )


def fill(index: Index, files: list[StoredFile], table: pa.Table, covered: list[StoredFile] | None = None) -> Entry:
    """An entry of these files; it covers all of them, or those that could be read to their end."""
    name = entry_name(files)
    made = vectors_for(sorted(set(table["doc_id"].to_pylist())))
    index.vectors.write(Part.of(name, made), made)
    index.rows.write(part := Part.of(name, table), table)
    paths = table["path"].to_pylist()
    tallies = {file.uri: Tally(documents=paths.count(file.uri)).to_dict() for file in files}
    entry = Entry(name, tuple(files if covered is None else covered), (part,), tallies)
    index.entries.commit(entry)
    return entry
