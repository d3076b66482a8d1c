"""A uniform draw, the baseline of all others."""

from __future__ import annotations

from gotd_ray.choosing.scorers import random_scores
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.potentials import Scorer


def _fit(given: Fitting) -> int:
    return given.seed


def _scorer(seed: int, _: Part) -> Scorer:
    return lambda ids, _vectors: random_scores(ids, seed)


METHOD = Method(
    "random",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="at random",
    means="A score is a hash of the document's id.",
)
