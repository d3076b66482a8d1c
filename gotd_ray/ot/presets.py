"""How warm a transport is and how finely it is solved, where nobody says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gotd_ray.ot.fit import mean_cost, mean_square
from gotd_ray.ot.kernel import Precision, one_thread_each

PRESETS: dict[str, dict[str, Any]] = {
    "debiased": {"epsilon": 0.25, "epsilon_unit": "mean_cost", "tolerance": 1e-3},
    "paper": {"epsilon": 0.1, "epsilon_unit": "absolute", "tolerance": 0.1},
}
"""debiased: the best of our trials on the paper's Figure 3. paper: the values of the authors' code."""

SMALL_EPSILON = 1e-3
"""Below it, times the mean |x|^2, the scores / epsilon are so large that float32 is not fine enough: auto takes
float64."""

NO_COST = 1e-9
"""A mean cost below it is rounding: all vectors are one."""


class NoCostError(ValueError):
    """Epsilon is a share of a mean cost that is nothing."""


@dataclass(frozen=True)
class Temperature:
    """What a fit is solved with."""

    epsilon: float
    """In units of squared distance."""

    mean_cost: float
    tolerance: float
    precision: Precision


def temperature(
    preset: str,
    moments: np.ndarray,
    target: np.ndarray,
    b: np.ndarray,
    *,
    epsilon: float | None = None,
    epsilon_unit: str | None = None,
    tolerance: float | None = None,
    precision: str = "auto",
) -> Temperature:
    """The settings of a fit; None takes the preset's.

    Args:
        moments: (d + 1,) of the candidates, see :meth:`gotd_ray.ot.shard.Shard.moments`.
        target: (m, d) float32; b: (m,), summing to 1.

    Raises:
        NoCostError: all vectors are one, and epsilon is a share of their mean cost.
    """
    with one_thread_each():  # long sums have other bits on more threads
        cost = mean_cost(moments, target, b)
    found = PRESETS[preset]
    unit = epsilon_unit or found["epsilon_unit"]
    if unit == "mean_cost" and cost < NO_COST:
        raise NoCostError(f"corpus and target have the same vectors (mean cost {cost:.2g})")
    absolute = float(epsilon or found["epsilon"]) * (cost if unit == "mean_cost" else 1.0)
    if precision == "auto":  # |x|^2 is 1 but for vectors that are not normalised
        precision = "float64" if absolute < SMALL_EPSILON * max(1.0, mean_square(moments)) else "float32"
    return Temperature(absolute, cost, float(tolerance or found["tolerance"]), precision)  # type: ignore[arg-type]
