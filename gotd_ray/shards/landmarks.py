"""Landmarks whose number is found: as many as it takes until another draw of them would choose the same documents.

Two disjoint halves of the landmarks score all candidates, each alone, and agree on some of the documents that either
would take. All landmarks together are twice as many as a half, so two draws of them would agree on more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.kernel import Precision, one_thread_each
from gotd_ray.ot.potentials import Potentials
from gotd_ray.shards.pool import Pool, landmarks_of
from gotd_ray.shards.ranking import best
from gotd_ray.shards.work import Scoring

FIRST = 2048
"""Landmarks to begin with."""

MOST_BYTES = 64 << 20
"""Of the landmarks' vectors, float32, which every shard holds."""

Landmarks = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""See :func:`gotd_ray.shards.pool.landmarks_of`."""


@dataclass(frozen=True)
class Wanted:
    """What the landmarks have to agree on."""

    documents: int
    """The first of the ranking, before filters."""

    share: float


@dataclass(frozen=True)
class Found:
    landmarks: Landmarks
    agreement: float | None
    """Of the documents wanted, those on which two halves agree; None where all candidates are landmarks, and nothing is
    left to chance."""

    tried: list[tuple[int, float]]
    """How many there were, and on how much of the subset their halves agreed."""


def most(width: int) -> int:
    """Landmarks of vectors of so many numbers at the most: a power of two times ``FIRST``."""
    count = FIRST
    while 2 * count * width * 4 <= MOST_BYTES:
        count *= 2
    return count


def grown(pool: Pool, plain: Potentials, wanted: Wanted, name: str, say: Callable[[str], None]) -> Found:
    """Landmarks, doubled until their halves agree.

    Args:
        plain: without landmarks; the precision of its facts is that of the arithmetic.
        name: of the fit, which tells its scores from others.
    """
    rows, limit = sum(pool.ask("rows", 1)), most(pool.width)
    tried: list[tuple[int, float]] = []
    count = FIRST
    while True:
        drawn = landmarks_of(pool, min(count, rows))
        if count >= rows:
            return Found(drawn, None, tried)
        agreement = _agreement(pool, plain, drawn, wanted.documents, f"{name}-{count}")
        tried.append((count, agreement))
        if agreement >= wanted.share:
            return Found(drawn, agreement, tried)
        if count == limit:
            say(
                f"solve: two halves of {count:,} landmarks agree on {agreement:.1%} of the subset, below "
                f"select.stability ({wanted.share:g}), and more would take over {MOST_BYTES / 2**20:g} MB a shard. "
                "Raise solve.epsilon for a subset that hangs less on their draw"
            )
            return Found(drawn, agreement, tried)
        count *= 2


def _agreement(pool: Pool, plain: Potentials, drawn: Landmarks, documents: int, name: str) -> float:
    """The share of the first documents that two halves of the landmarks, those at even and at odd places, have in
    common. They come by id, and ids are hashes: either half is a random sample."""
    ids, points, weights = drawn
    precision: Precision = "float64" if plain.facts.get("precision") == "float64" else "float32"
    taken = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        masses = None if weights is None else weights[half] / weights[half].sum()
        with one_thread_each():
            own = self_potential(points[half], plain.epsilon, weights=masses, precision=precision)
        alone = replace(
            plain, landmarks=points[half], landmark_ids=ids[half], landmark_potential=own, landmark_weights=masses
        )
        scoring = pool.share(Scoring(f"{name}-{half.start}", "gotd", alone))
        taken.append(best(pool, scoring, documents).ids)
    return len(np.intersect1d(taken[0], taken[1])) / len(taken[0])
