"""Near-duplicates among the documents that are kept: the lower in rank gives way.

A batch is screened against the kept in float32 products of bounded size; every pair near the threshold is then decided
by its own float64 cosine. So the answer does not depend on how the candidates were cut into batches, although BLAS
rounds by shape. Up to ``EXACT`` kept documents each candidate is held against all of them: 2 d k flops with k kept,
of which a bound on the cosine saves most. Beyond that it is held against those of its own cluster, as SemDeDup does
(Abbas et al. 2023, arXiv 2303.09540), and a pair that the clusters part is not found.

Memory: the vectors of the kept as they came (2 d bytes each in float16) and 44 bytes more for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gotd_ray.choosing import clusters
from gotd_ray.choosing.scorers import unit

EXACT = 1_000_000
"""Kept documents up to which all pairs count: about an hour of 2 cores at a width of 384."""

SCREENED = 4096
"""Candidates of a batch at the most: the kept are made ready for a product once for so many."""

SCREENED_IN_CLUSTERS = 16_384
"""Within clusters: enough that some of a batch share one."""

_SLACK = 1e-3  # far above the rounding of a float32 product of unit vectors, about 1e-6
_COLUMNS = 8192  # kept documents that are looked at together
_ROWS = 1024  # rows of a batch in a product: bounds its memory, 34 MB
_PAIRS = 16_384  # pairs whose float32 cosines are taken at a time
_SUSPECT = 1e-3  # share of a product's pairs above which the bound is not worth its cost


@dataclass(frozen=True)
class Twin:
    """The kept document that a candidate is too close to."""

    doc_id: str
    cosine: float


class NearDuplicates:
    """The documents kept so far, asked and added to in rank order.

    For each batch of at most ``block`` rows: ``screen`` it, then for its rows in order ask ``twin`` and, where that is
    None, ``keep``.
    """

    def __init__(self, threshold: float) -> None:
        """``threshold``: cosine in (0, 1] from which on two documents are near-duplicates."""
        self._threshold = threshold
        self._size = 0
        self._kept: list[_Block] = []  # all full but the last
        self._batch = np.empty((0, 0), np.float32)
        self._given = self._batch  # the batch as it came
        self._before: dict[int, list[int]] = {}  # row of the batch -> suspects among the kept, ascending
        self._within: dict[int, list[int]] = {}  # and in the batch itself
        self._place: dict[int, int] = {}  # row of the batch -> place among the kept
        self._bound = 4  # a bound on the cosine is taken from one of so many parts of a vector; 1 is the cosine itself
        self._centres: np.ndarray | None = None
        self._labels = np.empty(0, np.int32)  # of the batch

    @property
    def clusters(self) -> int | None:
        """Clusters within which near-duplicates are searched by now; None while all pairs count."""
        return None if self._centres is None else len(self._centres)

    @property
    def block(self) -> int:
        """Rows of the next batch at the most: none holds documents of both kinds of search."""
        return min(SCREENED, EXACT - self._size) if self._size < EXACT else SCREENED_IN_CLUSTERS

    def screen(self, vectors: np.ndarray) -> None:
        """Start a batch: ``vectors`` (n, d), float16 or float32, in rank order."""
        assert len(vectors) <= self.block, f"{len(vectors)} rows, {self.block} are taken"
        if self._size >= EXACT and self._centres is None:
            self._part()
        self._given, self._batch, self._place = vectors, unit(vectors), {}
        if self._centres is not None:
            self._labels = clusters.nearest(self._batch, self._centres)
        pairs = [self._suspects(block) + np.array([0, n * _COLUMNS]) for n, block in enumerate(self._kept)]
        self._before = _by_row(np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64))
        itself = _Block(self._batch, self._labels)
        itself.size = len(vectors)
        self._within = _by_row(self._suspects(itself))

    def twin(self, i: int) -> Twin | None:
        """The kept document nearest to row ``i`` of the batch, if it is a near-duplicate; the best-ranked of equals."""
        places = self._before.get(i, []) + [self._place[j] for j in self._within.get(i, ()) if j in self._place]
        if not places:
            return None
        rows = np.stack([self._kept[place // _COLUMNS].rows[place % _COLUMNS] for place in places])
        cosines = _cosines(unit(rows), self._batch[i])
        best = int(cosines.argmax())
        if cosines[best] < self._threshold:
            return None
        block, row = divmod(places[best], _COLUMNS)
        return Twin(self._kept[block].ids[row].decode(), float(cosines[best]))

    def keep(self, i: int, doc_id: bytes) -> None:
        """Add row ``i`` of the batch to the kept."""
        if self._size % _COLUMNS == 0:
            self._kept.append(_Block.empty(self._given))
        label = None if self._centres is None else int(self._labels[i])
        self._kept[-1].add(doc_id, self._given[i], label)
        self._place[i] = self._size
        self._size += 1

    def _part(self) -> None:
        """Find the clusters, and to which each kept document belongs."""
        ids = np.concatenate([block.ids[: block.size] for block in self._kept])
        sample = np.argsort(ids)[: clusters.SAMPLE]
        rows = np.stack([self._kept[place // _COLUMNS].rows[place % _COLUMNS] for place in sample.tolist()])
        self._centres = clusters.centres(unit(rows), clusters.CLUSTERS)
        for block in self._kept:
            block.labels[: block.size] = clusters.nearest(unit(block.rows[: block.size]), self._centres)

    def _suspects(self, block: _Block) -> np.ndarray:
        """Pairs (row of the batch, row of the block), (k, 2), that may reach the threshold."""
        if self._centres is None:
            return self._close(self._batch, unit(block.rows[: block.size]))
        found = [
            np.stack([ours[pairs[:, 0]], theirs[pairs[:, 1]]], axis=1)
            for ours, theirs in _in_common(self._labels, block.labels[: block.size])
            if len(pairs := _above(self._batch[ours], unit(block.rows[theirs]), self._threshold - _SLACK))
        ]
        return np.concatenate(found) if found else np.empty((0, 2), np.int64)

    def _close(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Pairs (k, 2) of rows of x and y, unit vectors, whose cosine may reach the threshold.

        By Cauchy and Schwarz a cosine is at most the product of the first coordinates plus that of the lengths of the
        rest: a product of a quarter or half the width, which leaves few pairs to look at. Where it leaves many, as it
        does where most vectors point the same way, the next batches take more coordinates.
        """
        least = self._threshold - _SLACK
        width = -(-x.shape[1] // self._bound)
        if width == x.shape[1]:
            return _above(x, y, least)
        pairs = _above(_with_rest(x, width), _with_rest(y, width), least)
        if len(pairs) > _SUSPECT * len(x) * len(y) + len(x):  # each row of a batch may be its own twin
            self._bound //= 2
            return self._close(x, y)
        cosines = [
            np.einsum("ij,ij->i", x[part[:, 0]], y[part[:, 1]])
            for part in np.split(pairs, range(_PAIRS, len(pairs), _PAIRS))
        ]
        return pairs[np.concatenate(cosines) >= least]


class _Block:
    """Kept documents, or those of a batch: vectors as they came, and their clusters where there are any."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray) -> None:
        self.rows, self.labels = rows, labels
        self.ids = np.empty(0, "S32")
        self.size = 0

    @classmethod
    def empty(cls, like: np.ndarray) -> _Block:
        block = cls(np.empty((_COLUMNS, like.shape[1]), like.dtype), np.empty(_COLUMNS, np.int32))
        block.ids = np.empty(_COLUMNS, "S32")
        return block

    def add(self, doc_id: bytes, row: np.ndarray, label: int | None) -> None:
        self.ids[self.size], self.rows[self.size] = doc_id, row
        if label is not None:
            self.labels[self.size] = label
        self.size += 1


def _above(x: np.ndarray, y: np.ndarray, least: float) -> np.ndarray:
    """Pairs (k, 2) of rows of x and y whose product is at least so much."""
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(x), _ROWS):
        row, column = np.divmod(np.flatnonzero(x[start : start + _ROWS] @ y.T >= least), len(y))
        found.append(np.stack([start + row, column], axis=1))
    return np.concatenate(found)


def _with_rest(rows: np.ndarray, width: int) -> np.ndarray:
    """The first coordinates of each row, and the length of the others as one more."""
    rest = rows[:, width:]
    return np.column_stack([rows[:, :width], np.sqrt(np.einsum("ij,ij->i", rest, rest))])


def _in_common(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each label that both have, the places where it stands in the one and in the other."""
    orders = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
    labels = np.intersect1d(ours, theirs)
    cuts = [
        (np.searchsorted(side[order], labels), np.searchsorted(side[order], labels, side="right"))
        for side, order in zip((ours, theirs), orders, strict=True)
    ]
    for a, b, c, d in zip(*cuts[0], *cuts[1], strict=True):
        yield orders[0][a:b], orders[1][c:d]


def _by_row(pairs: np.ndarray) -> dict[int, list[int]]:
    """First numbers to their second ones, ascending."""
    found: dict[int, list[int]] = {}
    for i, j in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        found.setdefault(i, []).append(j)
    return found


def _cosines(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Cosines of ``rows`` (n, d) with ``vector`` (d,) in float64; exactly 1 for equal vectors."""
    rows, vector = rows.astype(np.float64), vector.astype(np.float64)[None]
    lengths = np.sqrt((rows * rows).sum(axis=1) * (vector * vector).sum(axis=1))
    return np.minimum((rows * vector).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny), 1.0)
