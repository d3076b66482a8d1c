"""The texts of the ranking, read again where they stand: the index holds none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import ray

from gotd_ray import config
from gotd_ray.index import vectors_of
from gotd_ray.remote import answer
from gotd_ray.select.choose import Candidate
from gotd_ray.shards.pool import Pool
from gotd_ray.text.addresses import texts_of_files

_texts_of_files = ray.remote(num_cpus=0)(texts_of_files)
"""It waits for storage; the shards may hold all CPUs."""

PLACES = 8
"""Places at which a text is looked for, where it stands in several files and has gone from the first."""

_DIED = (
    "a task that reads the chosen texts again died, most likely for want of memory. Give the nodes more, or lower the "
    "max_document_bytes of the corpus."
)

Address = dict[str, Any]
"""A row of the index without its vector, and the score."""


class ReadBack:
    """Reads the texts of batches of the ranking.

    Attributes:
        changed: files that are no longer what they were when they were embedded, and why.
    """

    def __init__(self, text: config.Text, chunks: config.Chunks, storage: config.Storage, pool: Pool, tasks: int):
        self.changed: dict[str, str] = {}
        self._reading, self._pool, self._tasks = (text, chunks, storage), pool, tasks

    def __call__(self, batch: pa.Table) -> list[tuple[Candidate, Address]]:
        """The candidates of a batch and where they stand. One whose text is nowhere what it was has none.

        Raises:
            UserError: the storage did not give a file.
        """
        rows: dict[str, Address] = {row["doc_id"]: row for row in batch.drop_columns(["vector"]).to_pylist()}
        texts = self._texts(rows)
        for number in range(1, PLACES):
            gone = [doc_id for doc_id in rows if doc_id not in texts]
            others = self._places(gone, number) if gone else {}
            if not others:
                break
            found = self._texts(others)
            texts |= found
            rows |= {doc_id: rows[doc_id] | others[doc_id] for doc_id in found}
        return [
            (Candidate(doc_id, row["score"], row["source"], row["tokens"], texts.get(doc_id), vector), row)
            for (doc_id, row), vector in zip(rows.items(), vectors_of(batch), strict=True)
        ]

    def _places(self, ids: list[str], number: int) -> dict[str, Address]:
        """The number-th address of those documents that have so many."""
        found = pa.concat_tables(self._pool.ask("lookup", np.array(ids, "S32"), number))
        return {row["doc_id"]: row for row in found.drop_columns(["vector"]).to_pylist()}

    def _texts(self, rows: dict[str, Address]) -> dict[str, str]:
        """doc_id to text, the files dealt out to some tasks."""
        by_path: dict[str, dict[tuple[int, int], str]] = {}
        for row in rows.values():
            by_path.setdefault(row["path"], {})[row["row"], row["chunk"]] = row["doc_id"]
        paths = sorted(by_path)
        hands = [{path: by_path[path] for path in paths[i :: self._tasks]} for i in range(min(self._tasks, len(paths)))]
        texts: dict[str, str] = {}
        for found, changed in answer([_texts_of_files.remote(hand, *self._reading) for hand in hands], _DIED):
            texts |= found
            self.changed |= changed
        return texts
