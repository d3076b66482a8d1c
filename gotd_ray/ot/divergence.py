"""The Sinkhorn divergence between two weighted point sets: how far a mixture is from the target, blur taken out.

With the dual values OT(a, b) = <a, f> + <b, g>, which count the entropy (epsilon KL(P | a x b)):

    S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2                    (Feydy et al. 2019, eq. 3)
            = <a, f - p> + <b, g - q>    p, q the self-potentials of a and b

S is at least 0, and 0 only for equal measures; its gradient in a's mass is f - p, the debiased score. POT's
``empirical_sinkhorn_divergence`` has <P, C> in place of each OT: another number, see tests/ot/test_divergence.py.

Everything is exact and tiled: O(n (n + m) d) per step, no n x n array. Beyond some 20,000 points thin them first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gotd_ray.ot.anderson import Iterate
from gotd_ray.ot.kernel import Precision, Workspace, column_marginal, dtype_of, side, soft_minimum
from gotd_ray.ot.sinkhorn import solve

_NOISE = 2.0**-20
"""Rounding of a float32 exponent, relative to its size: a self-potential is known no better."""


@dataclass(frozen=True)
class Transport:
    """OT(a, b) with its potentials."""

    f: np.ndarray
    """(n,) float64, of points of no weight too: f is a function of g."""

    g: np.ndarray
    """(m,) float64, sum_j b_j g_j = 0."""

    value: float
    """<a, f> + <b, g>, in units of cost. The error is of the second order in the residual."""

    residual: float


def transport(
    x: np.ndarray,
    a: np.ndarray,
    y: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    *,
    start: np.ndarray | None = None,
    precision: Precision = "float64",
    tolerance: float = 1e-6,
    max_steps: int = 10_000,
) -> Transport:
    """Entropic transport between (x, a) and (y, b) in this process.

    Args:
        x: (n, d) points; a: (n,) weights that sum to 1, zeros allowed; y: (m, d); b: (m,) likewise, all positive.
        start: (m,), the g to begin from; 0 if None.
        tolerance: residual at which to stop, see :class:`gotd_ray.ot.sinkhorn.Solution`.
    """
    dtype = dtype_of(precision)
    points, weights = _tensor(x).to(dtype), _tensor(a)
    present = weights > 0
    held, masses = (points, weights) if bool(present.all()) else (points[present], weights[present])
    target, work = side(_tensor(y), _tensor(b), epsilon, dtype=dtype), Workspace()

    def marginal(g: np.ndarray) -> np.ndarray:
        return column_marginal(held, masses, target, torch.from_numpy(g), work).numpy()

    b = np.asarray(b, np.float64)
    iterate = None if start is None else Iterate.at(np.asarray(start, np.float64))
    found = solve(marginal, b, epsilon=epsilon, tolerance=tolerance, max_passes=max_steps, iterate=iterate)
    f = soft_minimum(points, target, torch.from_numpy(found.g), work)
    return Transport(f, found.g, float(np.asarray(a, np.float64) @ f + b @ found.g), found.residual)


def self_potential(
    points: np.ndarray,
    epsilon: float,
    *,
    weights: np.ndarray | None = None,
    start: np.ndarray | None = None,
    precision: Precision = "float64",
    tolerance: float = 1e-7,
    max_steps: int = 1000,
) -> np.ndarray:
    """p (k,), the potential of a weighted point set against itself: p = softmin of p.

    The averaged iteration p <- (p + softmin(p)) / 2 of Feydy et al. 2019 (eq. 3.16), which halves the error at least,
    accelerated and safeguarded (:mod:`gotd_ray.ot.anderson`).

    Args:
        points: (k, d); weights: (k,), positive, summing to 1; None is uniform.
        start: (k,), where to begin; 0 if None.
        tolerance: largest |softmin(p) - p| at which to stop, in units of epsilon; in float32 no less than the
            rounding of C / epsilon.
    """
    z = _tensor(points)
    count = len(z)
    a = torch.full((count,), 1.0 / count, dtype=torch.float64) if weights is None else _tensor(weights)
    itself, work = side(z, a, epsilon, dtype=dtype_of(precision)), Workspace()
    if precision == "float32":
        tolerance = max(tolerance, _NOISE * 4 * float((z * z).sum(1).max()) / epsilon)
    z = z.to(itself.scaled.dtype)
    iterate = Iterate.at(np.zeros(count) if start is None else np.asarray(start, np.float64))
    for _ in range(max_steps):
        p = iterate.x
        image = (p + soft_minimum(z, itself, torch.from_numpy(p), work)) / 2
        iterate.residuals.append(2 * float(np.abs(image - p).max()))
        if iterate.residuals[-1] <= tolerance * epsilon:
            return image
        iterate.advance(image)
    return iterate.fallback


def self_transport(
    points: np.ndarray, weights: np.ndarray, epsilon: float, *, precision: Precision = "float64"
) -> float:
    """OT(a, a) of points (k, d) with weights (k,) that sum to 1, zeros allowed."""
    present = np.asarray(weights) > 0
    z, a = np.asarray(points)[present], np.asarray(weights, np.float64)[present]
    p = self_potential(z, epsilon, weights=a, precision=precision)
    return 2 * float(a @ p)


def sinkhorn_divergence(
    x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, epsilon: float, *, precision: Precision = "float64"
) -> float:
    """S(a, b), in units of cost.

    Args:
        x: (n, d) points; a: (n,) weights that sum to 1, zeros allowed; y: (m, d); b: (m,) likewise, all positive.
    """
    across = transport(x, a, y, b, epsilon, precision=precision).value
    own = [self_transport(*measure, epsilon, precision=precision) for measure in ((x, a), (y, b))]
    return across - sum(own) / 2


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))
