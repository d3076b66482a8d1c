"""How far each source lies from the target: exact optimal transport between samples, and which sources are kept.

The paper compares the target with 10,000 documents of each source and keeps the two nearest (Kang et al. 2024,
appendix C). Between finite samples the cost is too high, the more so the smaller they are; so all sources are compared
by the same number of documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPLITS = 5
"""Disjoint parts of a sample, whose distances give its spread."""

LEAST_SHARE = 4
"""See :func:`sample_size`."""

_MAX_PIVOTS = 100_000_000
"""Of the network simplex: POT's own limit stops samples of some thousands before their end."""


@dataclass(frozen=True)
class Distance:
    """A source's distance from the target."""

    value: float
    """Mean squared distance under the best matching, in units of C."""

    spread: float | None
    """Standard error by the source's own sample, from SPLITS disjoint parts; None below two documents in each."""

    documents: int


def sample_size(available: dict[str, int], documents: int) -> int:
    """Documents of each source: as many as the smallest has, ``documents`` at the most.

    A source that has less than a quarter of ``documents`` does not count, unless all are so small: it takes part with
    all it has, and its distance is then too high beside the others.
    """
    large = [count for count in available.values() if count * LEAST_SHARE >= documents]
    return min([documents, *(large or available.values())])


def exact_cost(x: np.ndarray, y: np.ndarray) -> float:
    """min over plans of <P, C> for uniform weights on x (k, d) and y (m, d); C is the squared distance.

    Raises:
        FloatingPointError: a vector is not finite, or the simplex ended before its optimum.
    """
    import ot  # POT, with scikit-learn and SciPy: seconds that no other command waits for

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FloatingPointError("a vector is not finite")
    cost = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    value, log = ot.emd2([], [], np.maximum(cost, 0), numItermax=_MAX_PIVOTS, log=True)
    if log["warning"]:
        raise FloatingPointError(f"the exact transport ended before its optimum: {log['warning']}")
    return float(value)


def distance(x: np.ndarray, y: np.ndarray) -> Distance:
    """The distance of a source's sample x (k, d), in random order, from the target's y (m, d)."""
    parts = [x[i::SPLITS] for i in range(SPLITS)]
    spread = None
    if len(x) >= 2 * SPLITS:
        spread = float(np.std([exact_cost(part, y) for part in parts], ddof=1) / np.sqrt(SPLITS))
    return Distance(exact_cost(x, y), spread, len(x))


def ranked(distances: dict[str, Distance]) -> list[str]:
    """Sources, the nearest first."""
    return sorted(distances, key=lambda source: (distances[source].value, source))


def kept_sources(distances: dict[str, Distance], keep: int | None, always: list[str]) -> set[str]:
    """The ``keep`` nearest sources, or all, and those of ``always``."""
    return set(ranked(distances)[:keep]) | (set(always) & set(distances))


def near_the_cut(distances: dict[str, Distance], kept: set[str], keep: int | None) -> list[str]:
    """Dropped sources that another sample could have kept: within two standard errors of the last one kept."""
    if keep is None or keep >= len(distances):
        return []
    last = distances[ranked(distances)[keep - 1]]

    def close(source: str) -> bool:
        found = distances[source]
        error = np.hypot(last.spread or 0.0, found.spread or 0.0)
        return found.spread is None or last.spread is None or found.value - last.value <= 2 * error

    return [source for source in ranked(distances) if source not in kept and close(source)]
