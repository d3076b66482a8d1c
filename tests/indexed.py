"""An index on file without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gotd_ray.config import Storage
from gotd_ray.index import ROWS, Entry, Index, Part, Snapshot, ids_of
from gotd_ray.storage import StoredFile


def index_at(folder: Path) -> Index:
    return Index(str(folder / "rows"), str(folder / "vectors"), Storage())


def indexed(
    folder: Path,
    files: Sequence[StoredFile],
    tallies: Mapping[str, Any],
    rows: Mapping[str, Any],
    vectors: np.ndarray,
    tokens: Sequence[int] | None = None,
) -> Snapshot:
    """An index of these documents, the rows of some files.

    Args:
        tallies: by uri.
        rows: by name, columns of the rows; of those that are not given, all are the same.
        vectors: (n, d).
        tokens: (n,); ones.
    """
    n = len(vectors)
    plain = {field.name: pa.array(["1" if field.type == pa.string() else 1] * n, field.type) for field in ROWS}
    table = pa.table(plain | {name: pa.array(rows[name], ROWS.field(name).type) for name in rows}, ROWS)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).reshape(-1)), vectors.shape[1])
    counts = pa.array([1] * n if tokens is None else tokens, pa.int32())
    made = pa.table({"doc_id": table["doc_id"], "tokens": counts, "vector": column})
    made = made.take(pa.array(np.unique(ids_of(made), return_index=True)[1]))  # each document once
    index = index_at(folder)
    index.vectors.write(Part.of("0", made), made)
    index.rows.write(part := Part.of("0", table), table)
    index.entries.commit(Entry("0", tuple(files), (part,), dict(tallies)))
    return index.snapshot(files)[0]
