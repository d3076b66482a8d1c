"""The witness of the maximum mean discrepancy: no transport. The mathematics is in ``select/mmd``."""

from __future__ import annotations

from typing import Any

from gotd_ray.choosing.mmd import Witness, median_bandwidth
from gotd_ray.errors import UserError
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.kernel import one_thread_each
from gotd_ray.ot.potentials import Scorer


def _fit(given: Fitting) -> Witness:
    target, landmarks = given.target(), given.sample(given.settings.landmarks)
    try:
        with one_thread_each():
            width = given.settings.bandwidth or median_bandwidth(landmarks.vectors, target.vectors)
    except ValueError as error:
        raise UserError(f"{error}. Set select.bandwidth, or check the paths and the encoder.") from None
    return Witness(target.vectors, landmarks.vectors, landmarks.ids, width, target.b, landmarks.b)


def _scorer(witness: Witness, part: Part) -> Scorer:
    return witness.scorer(part.device)


def _facts(witness: Witness) -> dict[str, Any]:
    return {"bandwidth": witness.bandwidth, "landmarks": len(witness.landmarks)}


METHOD = Method(
    "mmd",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="by the witness of the maximum mean discrepancy",
    means="A score is the witness of the maximum mean discrepancy: the lower, the more the target resembles the "
    "document than the corpus does.",
    facts=_facts,
)
