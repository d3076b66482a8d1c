"""Optimal transport: the dual potential that the stage solve has fitted, or an earlier run."""

from __future__ import annotations

from gotd_ray.earlier import own_potentials
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.potentials import Potentials, Scorer
from gotd_ray.results import POTENTIALS


def _fit(given: Fitting) -> Potentials:
    assert given.before
    return own_potentials(given.before.path(POTENTIALS), given.storage)


def _scorer(fitted: Potentials, part: Part) -> Scorer:
    double = fitted.facts.get("precision") == "float64"
    return fitted.scorer("float64" if double else "float32", part.device)


METHOD = Method(
    "gotd",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="by optimal transport (GOT-D)",
    means="A score is the gradient of the transport's cost in a document's mass: the lower, the more one more such "
    "document brings the corpus towards the target.",
    after="solve",
)
