"""The documents that are taken, as columns in the order of taking, and the file that they are written to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd_ray.choosing.choose import Offer
from gotd_ray.index import SCHEMA
from gotd_ray.shards.read_back import Texts
from gotd_ray.text.addresses import TURNS

ADDRESS = [field for field in SCHEMA if field.name in ("source", "path", "row", "chunk", "chars", "tokens")]
SUBSET_SCHEMA = pa.schema(
    [
        SCHEMA.field("doc_id"),
        pa.field("text", pa.string()),
        *ADDRESS,
        *[pa.field("score", pa.float64()), pa.field("rank", pa.int64()), pa.field("round", pa.int32())],
    ]
)

MESSAGES = pa.field("messages", TURNS)
"""A column more, where the rows are conversations: those of the text as they were read."""

GROUP_BYTES = 32 << 20
"""Of a row group, at about: all that is made of the file at a time."""


class Subset:
    """What is taken.

    A document costs some 90 bytes besides its text: 32 of its id, 28 of its address, 8 of its score and 16 of where its
    text is; and as much what was offered and not taken. The search for near-duplicates has its vector (2 bytes a
    number) and 44 bytes, later rounds the vector once more, and while a stretch of the ranking is judged its vectors
    are there too.
    """

    def __init__(self, keep_vectors: bool, conversations: bool = False) -> None:
        """``keep_vectors``: for later rounds; ``conversations``: the rows are such."""
        self._keep_vectors = keep_vectors
        self._schema = SUBSET_SCHEMA.append(MESSAGES) if conversations else SUBSET_SCHEMA
        self._parts: list[_Part] = []

    def add(self, number: int, offer: Offer, texts: Texts, rows: np.ndarray) -> None:
        """Take rows (k,) of what was offered, in round ``number``."""
        if len(rows):
            vectors = offer.vectors[rows] if self._keep_vectors else None
            self._parts.append(_Part(number, offer.ids, offer.scores, texts, rows.astype(np.int64), vectors))

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (k,) S32 and vectors (k, d)."""
        vectors = [part.vectors for part in self._parts if part.vectors is not None]
        assert len(vectors) == len(self._parts), "vectors were not kept"
        return np.concatenate([part.ids[part.rows] for part in self._parts]), np.concatenate(vectors)

    def write(self, file: IO[bytes]) -> None:
        """Write it as Parquet, a row group after the other."""
        rank = 0
        with pq.ParquetWriter(file, self._schema, compression="zstd") as writer:
            for table in _grouped(table for part in self._parts for table in part.tables()):
                ranks = pa.array(np.arange(rank + 1, rank + 1 + len(table)))
                writer.write_table(table.append_column("rank", ranks).select(self._schema.names), len(table))
                rank += len(table)


class _Part(NamedTuple):
    """Rows of a stretch, taken one after the other."""

    number: int
    ids: np.ndarray
    scores: np.ndarray
    texts: Texts
    rows: np.ndarray
    vectors: np.ndarray | None

    def tables(self) -> Iterator[pa.Table]:
        """All columns but the rank, a small number of bytes at a time."""
        chars = self.texts.address["chars"].to_numpy()[self.rows].astype(np.int64)
        group = (np.cumsum(chars) - chars) // GROUP_BYTES
        for rows in np.split(self.rows, np.flatnonzero(np.diff(group)) + 1):
            address, found = self.texts.address.take(pa.array(rows)), self.texts.of(rows)
            columns = {field.name: address[field.name].cast(field.type) for field in ADDRESS} | {
                "doc_id": pa.array(self.ids[rows].astype(str)),
                "text": found["text"],
                "messages": found["messages"],
                "score": pa.array(self.scores[rows]),
                "round": pa.array(np.full(len(rows), self.number, np.int32)),
            }
            yield pa.table(columns)


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Small tables put together, to a row group's bytes."""
    held: list[pa.Table] = []
    for table in tables:
        if held and sum(one.nbytes for one in [*held, table]) > GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
        held.append(table)
    if held:
        yield pa.concat_tables(held)
