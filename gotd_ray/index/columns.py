"""The columns of the index as arrays, and its Parquet files as tables."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.errors import UserError, said_by

ROWS = pa.schema(
    {
        "doc_id": pa.string(),
        "source": pa.string(),
        "path": pa.string(),
        "row": pa.int64(),
        "chunk": pa.int32(),
        "chars": pa.int32(),
        "weight": pa.float32(),
    }
)
"""Where a document stands: a row for each place."""

VECTORS = pa.schema({"doc_id": pa.string(), "tokens": pa.int32(), "vector": pa.list_(pa.float16())})
"""What the encoder makes of it. On disk the vector is a list of fixed size; its size is the encoder's."""

SCHEMA = pa.unify_schemas([ROWS, VECTORS])


def id_range(low: bytes | None, high: bytes | None) -> pc.Expression:
    """Whether low <= doc_id < high; None is no bound."""
    inside = pc.scalar(True)
    if low is not None:
        inside = inside & (pc.field("doc_id") >= low.decode())
    if high is not None:
        inside = inside & (pc.field("doc_id") < high.decode())
    return inside


def scan(paths: list[str], columns: list[str], wanted: pc.Expression, settings: Storage) -> pa.Table:
    """The rows wanted of some Parquet files, in no particular order; row groups without any are not read.

    Raises:
        UserError: one of them is damaged.
        GoneError: one of them is not there.
    """
    filesystem, _ = storage.resolve(paths[0], settings)
    keys = [storage.resolve(path, settings)[1] for path in paths]
    try:
        return pads.dataset(keys, format="parquet", filesystem=filesystem).to_table(columns=columns, filter=wanted)
    except (OSError, pa.ArrowInvalid) as error:
        raise damaged(error) from None


class GoneError(UserError):
    """A file of the index is not there: another run has merged it, or somebody has deleted it."""


class LostError(UserError):
    """The index lacks vectors that it had; the files they are of were forgotten, and can be embedded again."""


def damaged(error: Exception) -> UserError:
    """What to tell of a file of ours that cannot be read."""
    kind = GoneError if isinstance(error, FileNotFoundError) else UserError
    return kind(
        f"a result of an earlier stage cannot be read: {said_by(error)}. If the storage answers, "
        "delete that file and run again: what is missing is made anew."
    )


def table_of(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file in memory, with its metadata.

    Not by ``pq.read_table``: its threads may let go of the Python bytes while the interpreter ends, which aborts it.
    """
    return pq.ParquetFile(io.BytesIO(data)).read(columns)


def ids_of(table: pa.Table) -> np.ndarray:
    """The doc_id column as (n,) S32, without a Python string per row."""
    column = table["doc_id"].cast(pa.binary()).cast(pa.binary(32)).combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(column):
        return np.empty(0, "S32")
    data = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * 32 : (column.offset + len(column)) * 32]
    return data.view("S32")


def weights_of(table: pa.Table) -> np.ndarray | None:
    """The weight column as (n,) float32, or None where all are 1."""
    weights = table["weight"].to_numpy()
    return None if (weights == 1).all() else weights


def vectors_of(table: pa.Table) -> np.ndarray:
    """The vector column as (n, d) float16."""
    if not len(table):
        return np.empty((0, 0), np.float16)
    flat = pc.list_flatten(table["vector"])
    values = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float16).reshape(len(table), -1)
