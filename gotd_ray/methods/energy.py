"""The witness of the energy distance: as mmd's, with the kernel -|x - y|, which has no bandwidth to choose.

Up to terms without x it is the gradient of the energy distance between candidates and target in a candidate's mass
(Szekely and Rizzo 2013, Energy statistics, J. Stat. Plan. Inference 143; Sejdinovic et al. 2013, Annals of Statistics
41, theorem 22, for its equality to an MMD).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.potentials import Scorer
from gotd_ray.points import Points

BLOCK = 1024
"""Candidates at a time: memory is O(BLOCK * (targets + landmarks))."""


def _fit(given: Fitting) -> tuple[Points, Points]:
    return given.target(), given.sample(given.settings.landmarks)


def _scorer(state: tuple[Points, Points], _: Part) -> Scorer:
    target, around = state

    def score(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        found = np.empty(len(ids))
        for start in range(0, len(ids), BLOCK):
            some = slice(start, start + BLOCK)
            x = vectors[some].astype(np.float64)
            place = np.minimum(np.searchsorted(around.ids, ids[some]), len(around.ids) - 1)
            own = np.where(around.ids[place] == ids[some], around.b[place], 0.0)
            # A landmark's own distance, 0, is left out of the mean: it would weigh far more than one of all candidates.
            found[some] = _distances(x, target) - _distances(x, around) / np.maximum(1 - own, 1e-9)
        return found

    return score


def _distances(x: np.ndarray, to: Points) -> np.ndarray:
    """The mean distance (r,) of rows x (r, d) from a side."""
    y = to.vectors.astype(np.float64)
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    distances: np.ndarray = np.sqrt(np.maximum(squares, 0)) @ to.b
    return distances


def _facts(state: tuple[Points, Points]) -> dict[str, Any]:
    return {"landmarks": len(state[1].ids)}


METHOD = Method(
    "energy",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="by the witness of the energy distance",
    means="A score is the mean distance to the target less that to the corpus: the lower, the nearer a document "
    "lies to the target than to the corpus.",
    facts=_facts,
)
