"""How much of a corpus a cheap score must let through to the exact one, shown by a random sample that has both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gotd_ray.config import Run

RECALL, CONFIDENCE = 0.97, 0.95
"""What ``encoder.cascade: auto`` asks for: so much of the best by the exact score, with this probability."""

FITTED = 4096
"""Documents of the random sample over which a cascade fits, at the least."""

AMONG_THE_BEST = 165
"""Of the random sample of ``auto``, how many are to be among as many of the corpus as the budget takes: of so many one
may be missed."""


def sample_share(candidates: int, run: Run) -> float:
    """Share of the candidates in the random sample that a cascade encodes, above 0."""
    landmarks = run.solve.landmarks
    wanted = max(FITTED, landmarks if isinstance(landmarks, int) else 0)
    if run.cascade == "auto":
        wanted = max(wanted, math.ceil(AMONG_THE_BEST * candidates / run.select.budget))
    return min(1.0, wanted / max(candidates, 1))


def may_miss(count: int, recall: float = RECALL, confidence: float = CONFIDENCE) -> int:
    """How many of ``count`` random ones may be missed for this recall to be shown with this confidence; -1: too few.

    The largest j for which j misses or fewer of ``count`` have at most the probability 1 - confidence where the recall
    is just too low (Clopper and Pearson 1934).
    """
    total, term = 0.0, count * math.log(recall)
    for j in range(count + 1):
        total += math.exp(term)
        term += math.log((count - j) / (j + 1) * (1 - recall) / recall) if j < count else 0.0
        if total > 1 - confidence:
            return j - 1
    return count


@dataclass(frozen=True)
class Shown:
    """What a sample shows.

    Attributes:
        cut: the cheap score up to which a document is let through; infinite where the sample is too small to show any.
        best: documents of the sample that stand for the best of the corpus.
        missed: how many of these lie above the cut.
    """

    cut: float
    best: int
    missed: int


def cut_for(cheap: np.ndarray, exact: np.ndarray, depth: float) -> Shown:
    """The lowest cut that lets through at least ``RECALL`` of the best by the exact score, with ``CONFIDENCE``.

    The best of the sample are as good as random ones of the best of the corpus. A lower cut lets through no more, so
    that of all cuts the lowest that passes is right with the confidence of one.

    Args:
        cheap, exact: (s,) scores of a random sample, lower is better.
        depth: the share of the corpus that the best are.
    """
    best = math.floor(depth * len(exact))
    allowed = may_miss(best)
    if allowed < 0:
        return Shown(math.inf, best, 0)
    found = np.sort(cheap[np.argsort(exact, kind="stable")[:best]])
    cut = float(found[best - 1 - allowed])
    return Shown(cut, best, int((found > cut).sum()))
