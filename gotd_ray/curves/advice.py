"""What a curve of measured losses advises: which law it follows, where it saturates, what more documents would buy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from gotd_ray.curves.forms import FORMS, Fit, Form, fit
from gotd_ray.curves.noise import Noise

LEVEL = 0.95
DRAWS = 600
NEXT = 1000
"""Documents of which the gain is told."""

_FINE = 240
"""Sizes at which a knee is looked for; for a budget five times as many."""

FARTHEST = 2.0**10
"""Budgets beyond so many times the largest size are not told."""


@dataclass(frozen=True)
class Tried:
    """A law held against the largest size, which it was not fitted to.

    Attributes:
        predicted: the loss there; ``error`` is the measured one minus it.
        misfit: of the law fitted to all sizes, the mean square in units of the noise; 1 is expected.
        refuted: whether the noise explains so much in fewer than 5% of cases (F test).
    """

    form: Form
    predicted: float
    error: float
    misfit: float
    refuted: bool


def rises(noise: Noise) -> tuple[int, int] | None:
    """The places of a size and of a larger one that has a higher loss beyond the noise; None where there are none.

    All pairs are looked at, at a level of 5% for all of them together (Bonferroni, t).
    """
    means, k = noise.means, len(noise.sizes)
    error = np.sqrt(noise.errors[:, None] ** 2 + noise.errors[None, :] ** 2)
    rise = np.triu(means[None, :] - means[:, None], 1)
    limit = stats.t.ppf(1 - 0.05 / (k * (k - 1) / 2), noise.free)
    beyond = np.where(rise > limit * error, rise, 0.0)
    if not beyond.any():
        return None
    lower, higher = np.unravel_index(int(beyond.argmax()), beyond.shape)
    return int(lower), int(higher)


def tried(noise: Noise) -> list[Tried]:
    """The laws that can be fitted without the largest size, and what they predict of it."""
    found = []
    for form in FORMS:
        if form.free < len(noise.sizes):
            without = fit(form, noise.sizes[:-1], noise.means[:-1], noise.variances[:-1])
            predicted = float(without.at(noise.sizes[-1])[0, 0])
            whole = fit(form, noise.sizes, noise.means, noise.variances)
            off = noise.means - whole.at(noise.sizes)[0]
            free = len(noise.sizes) - form.free
            scaled = np.divide(off, noise.errors, out=np.zeros_like(off), where=noise.errors > 0)
            misfit = float((scaled**2).sum()) / free
            refuted = bool(stats.f.sf(misfit, free, noise.free) < 0.05)
            found.append(Tried(form, predicted, float(noise.means[-1]) - predicted, misfit, refuted))
    return found


def standing(noise: Noise, found: list[Tried]) -> list[Tried]:
    """The laws whose error on the largest size is the least, or within its standard error of the least; the simplest
    first, which is the one that is chosen.

    A law can meet that one size by luck: those that the sizes together refute are not asked where another is not.
    """
    left = [one for one in found if not one.refuted] or found
    within = min(abs(one.error) for one in left) + noise.errors[-1]
    return [one for one in left if abs(one.error) <= within]


def advise(sizes: np.ndarray, losses: np.ndarray, seed: int, wanted: float | None = None) -> dict[str, Any]:
    """All that is told of one curve.

    Args:
        sizes: (k,) documents, rising, k at least 4.
        losses: (k, s) of s seeds, at least 2; lower is better, and 0 the best there is.
        seed: of the draws.
        wanted: a loss to be reached.

    Returns:
        ``mean``, ``low``, ``high`` (k,) of each size; ``noise``, the standard deviation of one training at the largest
        size; ``tried``, of each law its prediction of the largest size without it; ``form`` and ``parameters`` of the
        law chosen, with ``line``, the fitted curve and its interval at sizes up to twice the largest. Of these
        None, and ``refused`` the reason, where the curve rises beyond the noise. ``saturation`` is the smallest size
        from which on doubling gains less than the noise, ``next`` the gain of the next ``NEXT`` documents, ``doubling``
        that of twice the largest size, ``budget`` the documents for the wanted loss, each with ``low`` and ``high``
        (None: without end) or ``refused``.
    """
    sizes, losses = np.asarray(sizes, np.float64), np.asarray(losses, np.float64)
    noise = Noise(sizes, losses)
    spread = stats.t.ppf((1 + LEVEL) / 2, noise.free) * noise.errors
    told: dict[str, Any] = {
        "mean": noise.means.tolist(),
        "low": (noise.means - spread).tolist(),
        "high": (noise.means + spread).tolist(),
        "noise": float(np.sqrt(noise.variances[-1])),
        "refused": None,
    }
    if places := rises(noise):
        low, high = places
        told["refused"] = (
            f"the curve is not monotone: the loss rises from {noise.means[low]:.4g} at {sizes[low]:,.0f} documents to "
            f"{noise.means[high]:.4g} at {sizes[high]:,.0f}, which the noise of the seeds "
            f"({np.sqrt(noise.variances[high]):.2g}) does not explain. Look at the training: a lower learning rate, "
            "more steps at the larger sizes, or documents of another kind among the later ones"
        )
        return told | dict.fromkeys(("tried", "form", "parameters", "line", "saturation", "next", "doubling", "budget"))
    found = tried(noise)
    left = standing(noise, found)
    form = left[0].form
    point = fit(form, sizes, noise.means, noise.variances)
    scales = [float(np.sqrt(max(1.0, one.misfit))) for one in left]
    many = [
        fit(one.form, sizes, np.maximum(noise.draws(DRAWS, seed, scale), 0.0), noise.variances)
        for one, scale in zip(left, scales, strict=True)
    ]
    drawn = np.geomspace(sizes[0], 2 * sizes[-1], 60)
    told["tried"] = [{"form": one.form.name} | {k: v for k, v in vars(one).items() if k != "form"} for one in found]
    told |= {"form": form.name, "parameters": point.parameters(), "standing": [one.form.name for one in left]}
    columns = (drawn, point.at(drawn)[0], *_bounds(many, lambda law: law.at(drawn)))
    told["line"] = [
        dict(zip(("size", "value", "low", "high"), map(float, row), strict=True)) for row in zip(*columns, strict=True)
    ]
    last = float(sizes[-1])
    told["next"] = _gain(point, many, last, last + NEXT) | {"documents": NEXT}
    told["doubling"] = _gain(point, many, last, 2 * last) | {"documents": int(last)}
    told["saturation"] = _saturation(point, many, sizes, told["noise"])
    told["budget"] = None if wanted is None else _budget(point, many, sizes, wanted)
    return told


def _bounds(many: Sequence[Fit], what: Callable[[Fit], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The interval of what is made of a law, (r, ...) of its draws; of laws that the sizes do not tell apart from the
    lowest to the highest."""
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    found = np.array([np.quantile(what(law), ends, axis=0, method="nearest") for law in many])
    return found[:, 0].min(axis=0), found[:, 1].max(axis=0)


def _gain(point: Fit, many: Sequence[Fit], size: float, larger: float) -> dict[str, Any]:
    def gained(law: Fit) -> np.ndarray:
        before, after = law.at(np.array([size, larger])).T
        return before - after

    low, high = _bounds(many, gained)
    return {"gain": float(gained(point)[0]), "low": float(low), "high": float(high)}


def knees(law: Fit, sizes: np.ndarray, noise: float) -> np.ndarray:
    """(r,) the smallest size, of those whose double was measured, from which on doubling gains less than the noise.

    Infinite where there is none.
    """
    places = np.geomspace(sizes[0], sizes[-1] / 2, _FINE)
    below = law.at(places) - law.at(2 * places) <= noise
    from_here_on = np.logical_and.accumulate(below[:, ::-1], axis=1)[:, ::-1]
    return np.where(from_here_on.any(axis=1), places[from_here_on.argmax(axis=1)], np.inf)


def _saturation(point: Fit, many: Sequence[Fit], sizes: np.ndarray, noise: float) -> dict[str, Any]:
    knee = float(knees(point, sizes, noise)[0])
    if np.isinf(knee):
        half = sizes[-1] / 2
        gained = _gain(point, many, half, sizes[-1])["gain"]
        return {
            "size": None,
            "refused": f"the knee lies beyond the data: from {half:,.0f} to {sizes[-1]:,.0f} documents the loss still "
            f"falls by {gained:.2g}, more than the noise of a training ({noise:.2g}). Measure larger sizes",
        }
    ends = _ends(*_bounds(many, lambda law: knees(law, sizes, noise)))
    return {"size": round(knee), "below": bool(knee <= sizes[0]), **ends, "refused": None}


def _ends(low: Any, high: Any) -> dict[str, int | None]:
    return {"low": None if np.isinf(low) else round(float(low)), "high": None if np.isinf(high) else round(float(high))}


def reaches(law: Fit, sizes: np.ndarray, wanted: float) -> np.ndarray:
    """(r,) the least documents, from the smallest size on, with which the loss is down to a wanted one; infinite beyond
    ``FARTHEST``."""
    places = np.geomspace(sizes[0], FARTHEST * sizes[-1], 5 * _FINE)
    there = law.at(places) <= wanted
    return np.where(there.any(axis=1), places[there.argmax(axis=1)], np.inf)


def _budget(point: Fit, many: Sequence[Fit], sizes: np.ndarray, wanted: float) -> dict[str, Any]:
    needed = float(reaches(point, sizes, wanted)[0])
    ends = _ends(*_bounds(many, lambda law: reaches(law, sizes, wanted)))
    told: dict[str, Any] = {"wanted": wanted, "size": None, **ends, "refused": None}
    if np.isinf(needed):
        floor = float(point.E[0])
        why = (
            f"the curve comes no lower than {floor:.4g}"
            if floor > wanted
            else f"that is more than {FARTHEST:,.0f} times the largest size away"
        )
        return told | {"refused": f"a loss of {wanted:.4g} is out of reach of more documents like these: {why}"}
    return told | {"size": round(needed), "times": needed / float(sizes[-1])}


def as_loss(values: Any, better: str) -> Any:
    """A metric as a loss whose best is 0: one that is better when higher is a share, of which the rest is taken."""
    return 1.0 - np.asarray(values, np.float64) if better == "higher" else np.asarray(values, np.float64)
