"""The k lowest scores of a corpus that is seen in parts.

The order is total: score ascending, then id ascending. So the answer is the same for every cut of the corpus into
shards, every order of the shards and every tree of merges.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TopK:
    """A set of distinct documents in rank order, best first.

    Attributes:
        ids: (k,) S32, the content ids as 32 hex characters.
        scores: (k,) float64, ascending.
        row: (k,) int64, the caller's handle of each document: where it stands in its corpus.
    """

    ids: np.ndarray
    scores: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def top_k(ids: np.ndarray, scores: np.ndarray, k: int, row: np.ndarray | None = None) -> TopK:
    """The ``k`` documents that come first by (score, id).

    An id that occurs several times is one document: its lowest (score, row) counts.

    Args:
        ids: (n,) S32.
        scores: (n,) float, lower is better.
        k: documents to keep; fewer come back when there are fewer distinct ids.
        row: (n,) int payload; None numbers the input from 0.

    Raises:
        FloatingPointError: a score is NaN.
    """
    scores = np.asarray(scores, np.float64)
    row = np.arange(len(ids)) if row is None else np.asarray(row, np.int64)
    assert ids.dtype == np.dtype("S32") and len(ids) == len(scores) == len(row) and k >= 1
    if missing := int(np.isnan(scores).sum()):
        raise FloatingPointError(f"{missing:,} of {len(scores):,} scores are NaN, so the documents have no order")
    depth = k
    while True:
        first = _lowest(scores, depth)
        first = first[np.lexsort((row[first], ids[first], scores[first]))]
        distinct = first[np.sort(np.unique(ids[first], return_index=True)[1])]
        if len(distinct) >= k or depth >= len(scores):
            best = distinct[:k]
            return TopK(ids[best], scores[best], row[best])
        depth *= 2  # repeated ids took places: look further down


def merge(parts: Iterable[TopK], k: int) -> TopK:
    """The ``k`` best of several sets; each part must hold at least its own ``k`` best."""
    parts = list(parts)
    assert parts
    ids, scores, row = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "scores", "row"))
    return top_k(ids, scores, k, row)


def may_cross(scores: np.ndarray, cut: float, move: float) -> int:
    """Documents that could lie on the other side of the cut.

    Args:
        scores: (n,) float64.
        cut: the score of the last document taken, whose error is that of any other.
        move: by how much the error of a score may be off, up or down. Two that err in opposite directions change places
            when they lie within twice of it.
    """
    return int((np.abs(scores - cut) <= 2 * move).sum())


def _lowest(scores: np.ndarray, depth: int) -> np.ndarray:
    """Indices of the ``depth`` lowest scores and of all that tie with the last of them."""
    if depth >= len(scores):
        return np.arange(len(scores))
    last = scores[np.argpartition(scores, depth - 1)[depth - 1]]
    return np.flatnonzero(scores <= last)
