"""Near-duplicates among the documents that are kept: the lower in rank gives way.

Screening is one float32 product per batch; every pair near the threshold is then decided by its own float64 cosine.
So the answer does not depend on how the candidates were cut into batches, although BLAS rounds by shape.
Work: 2 d k flops per candidate with k kept; memory: 4 d bytes per kept document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gotd_ray.select.scorers import unit

_SLACK = 1e-3  # far above the rounding of a float32 product of unit vectors, about 1e-6
_COLUMNS = 16_384  # kept documents per product: bounds the memory of a screening


@dataclass(frozen=True)
class Twin:
    """The kept document that a candidate is too close to."""

    doc_id: str
    cosine: float


class NearDuplicates:
    """The documents kept so far, asked and added to in rank order.

    For each batch: ``screen`` it, then for its rows in order ask ``twin`` and, where that is None, ``keep``.
    """

    def __init__(self, threshold: float) -> None:
        """``threshold``: cosine in (0, 1] from which on two documents are near-duplicates."""
        self._threshold = threshold
        self._ids: list[str] = []
        self._rows = np.empty((0, 0), np.float32)  # capacity doubles; the first len(_ids) rows count
        self._batch = np.empty((0, 0), np.float32)
        self._before: list[list[int]] = []  # per row of the batch: suspects among the kept
        self._within: list[list[int]] = []  # and in the batch itself
        self._place: dict[int, int] = {}  # row of the batch -> place among the kept

    def screen(self, vectors: np.ndarray) -> None:
        """Start a batch: ``vectors`` (n, d), float16 or float32, in rank order. Memory is O(n * (n + 16,384))."""
        self._batch = unit(vectors)
        self._place = {}
        self._before = [[] for _ in self._batch]
        self._within = [[] for _ in self._batch]
        for start in range(0, len(self._ids), _COLUMNS):
            part = self._rows[start : min(start + _COLUMNS, len(self._ids))]
            for i, j in self._suspects(part):
                self._before[i].append(start + j)
        for i, j in self._suspects(self._batch):
            self._within[i].append(j)

    def twin(self, i: int) -> Twin | None:
        """The kept document nearest to row ``i`` of the batch, if it is a near-duplicate; the best-ranked of equals."""
        suspects = self._before[i] + [self._place[j] for j in self._within[i] if j in self._place]
        if not suspects:
            return None
        cosines = _cosines(self._rows[suspects], self._batch[i])
        best = int(cosines.argmax())
        if cosines[best] < self._threshold:
            return None
        return Twin(self._ids[suspects[best]], float(cosines[best]))

    def keep(self, i: int, doc_id: str) -> None:
        """Add row ``i`` of the batch to the kept."""
        size = len(self._ids)
        if size == len(self._rows):
            grown = np.empty((max(1024, 2 * size), self._batch.shape[1]), np.float32)
            grown[:size] = self._rows.reshape(size, grown.shape[1])
            self._rows = grown
        self._rows[size] = self._batch[i]
        self._place[i] = size
        self._ids.append(doc_id)

    def _suspects(self, rows: np.ndarray) -> list[list[int]]:
        """Pairs (row of the batch, row of ``rows``) that may reach the threshold, in ascending order."""
        close: list[list[int]] = np.argwhere(self._batch @ rows.T >= self._threshold - _SLACK).tolist()
        return close


def _cosines(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Cosines of ``rows`` (n, d) with ``vector`` (d,) in float64; exactly 1 for equal vectors."""
    rows, vector = rows.astype(np.float64), vector.astype(np.float64)[None]
    lengths = np.sqrt((rows * rows).sum(axis=1) * (vector * vector).sum(axis=1))
    return np.minimum((rows * vector).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny), 1.0)
