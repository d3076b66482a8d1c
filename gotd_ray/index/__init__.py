"""The index: the embedded corpus on disk, shared between runs. Plain Parquet and JSON, no text."""

from gotd_ray.index.claims import Claims
from gotd_ray.index.collection import Collection, Embedded, Vectors
from gotd_ray.index.columns import (
    ROWS,
    SCHEMA,
    GoneError,
    LostError,
    id_range,
    ids_of,
    scan,
    table_of,
    vectors_of,
    weights_of,
)
from gotd_ray.index.entries import Entry, entry_name
from gotd_ray.index.parts import Part, Parts
from gotd_ray.index.snapshot import Documents, Index, Snapshot

VERSION = 4
"""Raised when equal settings give other rows."""

__all__ = [
    "ROWS", "SCHEMA", "VERSION", "Claims", "Collection", "Documents", "Embedded", "Entry", "GoneError", "Index",
    "LostError", "Part", "Parts", "Snapshot", "Vectors", "entry_name", "id_range", "ids_of", "scan", "table_of",
    "vectors_of", "weights_of",
]  # fmt: skip
