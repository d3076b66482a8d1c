"""The iteration on g, which is handed its expensive operation: one pass over all candidates, wherever they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gotd_ray.ot.anderson import Iterate

Columns = Callable[[np.ndarray], np.ndarray]
"""A pass: g (m,) -> column sums (m,) of the plan of (f(g), g), summing to 1 over all candidates."""

_FLOOR = 1e-30
"""Mass given to a target that no candidate reaches yet: log stays finite, and the step lifts its g."""


@dataclass(frozen=True)
class Solution:
    """What a solve found, and how far it is from exact."""

    g: np.ndarray
    """(m,) float64 potential of the targets, in units of cost; sum_j b_j g_j = 0."""

    epsilon: float
    residual: float
    """L1 distance of the plan's column sums from b (0 to 2), as the last pass saw it. Its row sums are exact by
    construction."""

    reason: Literal["converged", "max_passes", "kept"]
    """kept: g is that of an earlier run, which was near enough."""

    last_move: float
    """Largest change of g, its constant apart, that one more plain step would make. A score moves by at most as much,
    up or down: two scores that lie within twice of it can change places."""

    history: list[float]
    """Residual of each pass over all candidates."""

    residual_error: float = 0.0
    """What the rounding of a kept plan may have done to the residual of a solve that converged: both together are
    within the tolerance. 0 where the last pass was exact."""

    passes: float = 0.0
    """Exact passes over the candidates that a fit made; one over a sample counts as the sample's share."""

    kept_passes: float = 0.0
    """The same of passes with a kept plan, each a tenth of the work of an exact one or less."""

    drift: float | None = None
    """Residual over all candidates of the g that the fit began with; None where it began with none."""

    @property
    def converged(self) -> bool:
        return self.reason != "max_passes"


def solve(
    columns_at: Columns,
    b: np.ndarray,
    *,
    epsilon: float,
    tolerance: float,
    max_passes: int,
    iterate: Iterate | None = None,
    known: np.ndarray | None = None,
    leap: bool = False,
    on_pass: Callable[[], None] = lambda: None,
) -> Solution:
    """Sinkhorn in the log domain, accelerated and safeguarded (:mod:`gotd_ray.ot.anderson`).

    The plain step is g_j <- g_j + epsilon log(b_j / col_j) (Peyre & Cuturi 2019, eq. 4.44, with f eliminated).

    Args:
        columns_at: the pass.
        b: (m,) positive weights that sum to 1.
        epsilon: temperature, in units of cost.
        tolerance: residual at which to stop.
        max_passes: passes at the most, those in ``iterate`` included.
        iterate: where to start; g = 0 if None. It is changed in place.
        known: (m,) the columns there, where that pass has been made.
        leap: stop one step early, where the last improvement, made once more, would reach the tolerance; the caller
            verifies.
        on_pass: called after each pass but the last; checkpoints and progress hang here.

    Raises:
        FloatingPointError: the arithmetic broke down: epsilon is too small for the precision of the pass.
    """
    iterate = iterate or Iterate.at(np.zeros_like(b))
    residuals = iterate.residuals
    while True:
        g = iterate.x
        columns, known = columns_at(g) if known is None else known, None
        if not np.isfinite(columns).all():
            raise FloatingPointError(
                f"the transport lost its precision in pass {len(residuals) + 1} at epsilon {epsilon:g}"
            )
        residual = float(np.abs(columns - b).sum())
        residuals.append(residual)
        plain = g + epsilon * np.log(b / np.maximum(columns, _FLOOR))
        enough = residual <= tolerance
        if not enough and len(residuals) < max_passes:
            iterate.advance(plain)
            if leap and len(residuals) > 1 and residual * residual <= tolerance * residuals[-2]:
                g, enough = iterate.x, True
            else:
                on_pass()
        if enough or len(residuals) >= max_passes:
            move = plain - g
            return Solution(
                g=g - b @ g,
                epsilon=epsilon,
                residual=residual,
                reason="converged" if enough else "max_passes",
                last_move=float(np.abs(move - b @ move).max()),
                history=residuals,
            )
