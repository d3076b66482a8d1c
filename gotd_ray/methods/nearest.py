"""Nearness to the target, whatever the corpus is made of."""

from __future__ import annotations

import numpy as np

from gotd_ray.choosing.scorers import nearest_scores
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.potentials import Scorer


def _fit(given: Fitting) -> np.ndarray:
    return given.target().vectors


def _scorer(target: np.ndarray, _: Part) -> Scorer:
    return lambda _ids, vectors: nearest_scores(vectors, target)


METHOD = Method(
    "nearest",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="by nearness to the target",
    means="A score is minus the cosine to the nearest target document.",
)
