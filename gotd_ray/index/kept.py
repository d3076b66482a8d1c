"""The documents that a cascade has kept: a file of their ids."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.errors import UserError
from gotd_ray.index.claims import packed
from gotd_ray.index.columns import ids_of, table_of


class Kept:
    """Ids to look up, 16 bytes each."""

    def __init__(self, ids: np.ndarray):
        """``ids``: (n,) S32."""
        self._ids = np.sort(packed(ids))

    def __contains__(self, doc_id: object) -> bool:
        assert isinstance(doc_id, str)
        one = np.array(bytes.fromhex(doc_id), "S16")
        place = int(np.searchsorted(self._ids, one))
        return place < len(self._ids) and bool(self._ids[place] == one)


def kept_file(ids: np.ndarray) -> bytes:
    """A Parquet file of ids (n,) S32."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"doc_id": pa.array(ids.astype(str), pa.string())}), sink, compression="zstd")
    return sink.getvalue()


def read_kept(path: str, settings: Storage) -> Kept:
    """Raises UserError: the file is gone."""
    data = storage.read_if_there(path, settings)
    if data is None:
        raise UserError(f"{path} is gone, which says what is encoded. Delete its folder and run again.")
    return Kept(ids_of(table_of(data, ["doc_id"])))
