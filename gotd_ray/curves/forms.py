"""Three laws of the loss L at n documents, fitted by a grid over the exponent and non-negative least squares.

    flat        L = E
    power       L = B / n^beta + E
    rectified   L = B / (D0 + n^beta) + E        for fine-tuning (Lin et al., arXiv 2402.02314): what the model
                                                 knows beforehand counts as documents that it has seen

At a given exponent (and D0) a law is linear in B and E, both of which are at least 0. Of two unknowns the non-negative
least squares have a closed form, so that the whole grid is fitted to many draws at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

EXPONENTS = (0.05, 3.0)
"""Smallest and largest exponent that is tried."""

_POWERS, _RECTIFIED, _KNOWN = 120, 60, 40
"""Exponents tried for either law, and values of what is known beforehand."""

_AT_ONCE = 1 << 21
"""Fits in memory: 16 MB an array."""


@dataclass(frozen=True)
class Form:
    """A law.

    Attributes:
        free: its free parameters; so many sizes are the least that it can be fitted to.
        grid: sizes relative to the smallest (k,) -> (g, 2): exponents, and what is known beforehand as documents.
    """

    name: str
    free: int
    grid: Callable[[np.ndarray], np.ndarray]


def _power(_relative: np.ndarray) -> np.ndarray:
    exponents = np.geomspace(*EXPONENTS, _POWERS)
    return np.stack([exponents, np.zeros_like(exponents)], axis=1)


def _rectified(relative: np.ndarray) -> np.ndarray:
    exponents, known = np.geomspace(*EXPONENTS, _RECTIFIED), np.geomspace(0.25, 4 * relative[-1], _KNOWN)
    return np.stack([one.ravel() for one in np.meshgrid(exponents, known, indexing="ij")], axis=1)


FORMS = (
    Form("flat", 1, lambda _: np.empty((0, 2))),
    Form("power", 3, _power),
    Form("rectified", 4, _rectified),
)
"""The simplest first."""


@dataclass(frozen=True)
class Fit:
    """A law fitted to r curves.

    Attributes:
        unit: the documents in which sizes are counted: the smallest size.
        B, E, beta, known: (r,); L = B / ((known / unit)^beta + (n / unit)^beta) + E.
    """

    form: str
    unit: float
    B: np.ndarray
    E: np.ndarray
    beta: np.ndarray
    known: np.ndarray

    def at(self, sizes: np.ndarray | float) -> np.ndarray:
        """(r, k) losses at k sizes."""
        n = np.atleast_1d(np.asarray(sizes, np.float64)) / self.unit
        beta, known = self.beta[:, None], self.known[:, None] / self.unit
        return self.B[:, None] / (known**beta + n**beta) + self.E[:, None]

    def parameters(self) -> dict[str, float]:
        """Of the first curve, as they stand in the laws above, n in documents."""
        if self.form == "flat":
            return {"E": float(self.E[0])}
        beta = float(self.beta[0])
        found = {"B": float(self.B[0]) * self.unit**beta, "beta": beta, "E": float(self.E[0])}
        return found | ({"D0": float(self.known[0]) ** beta} if self.form == "rectified" else {})


def fit(form: Form, sizes: np.ndarray, losses: np.ndarray, variances: np.ndarray) -> Fit:
    """Fit a law to r curves.

    Args:
        sizes: (k,) rising, k at least ``form.free``.
        losses: (r, k), at least 0.
        variances: (k,), of which the reciprocals weigh the sizes; where all are 0 they count alike.
    """
    sizes, losses = np.asarray(sizes, np.float64), np.atleast_2d(np.asarray(losses, np.float64))
    floor = variances.max() * 1e-6 or 1.0
    weights = 1.0 / np.maximum(variances, floor)
    weights = weights / weights.sum()
    level = np.maximum(losses @ weights, 0.0)
    relative = sizes / sizes[0]
    grid = form.grid(relative)
    if not len(grid):
        zeros = np.zeros(len(losses))
        return Fit(form.name, float(sizes[0]), zeros, level, zeros + 1.0, zeros)
    beta, known = grid[:, :1], grid[:, 1:]
    x = 1.0 / (known**beta + relative**beta)
    step = max(1, _AT_ONCE // len(grid))
    parts = [_nonnegative(x, losses[start : start + step], weights) for start in range(0, len(losses), step)]
    best, B, E = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Fit(form.name, float(sizes[0]), B, E, grid[best, 0], grid[best, 1] * sizes[0])


def _nonnegative(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of g regressors (g, k) the one that, with a constant, fits each of r curves (r, k) best, both factors at least 0.

    Returns:
        (r,) which, its factor, and the constant.
    """
    xx, x1, x_y, y1 = (x * x) @ w, x @ w, (y * w) @ x.T, (y @ w)[:, None]  # the weights sum to 1
    spread = xx - x1 * x1
    B = np.divide(x_y - x1 * y1, spread, out=np.zeros_like(x_y), where=spread > 1e-14 * xx)
    E = y1 - B * x1
    alone = np.maximum(x_y / xx, 0.0)  # without the constant
    B, E = np.where(E < 0, alone, B), np.maximum(E, 0.0)
    E = np.where(B < 0, np.maximum(y1, 0.0), E)
    B = np.maximum(B, 0.0)
    loss = B * B * xx + 2 * B * E * x1 + E * E - 2 * (B * x_y + E * y1)  # and the curve's own square, the same for all
    best = loss.argmin(axis=1)
    rows = np.arange(len(y))
    return best, B[rows, best], E[rows, best]
