"""How far mixtures of a pool are from a target, of many at once: the referee of bench_rounds.py.

It shares no code with the package: whole kernel matrices in memory and plain Sinkhorn steps on them. With the pool's
products kept, a new temperature or target costs one exponential, and all mixtures of a pool are solved together.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-6
"""Of the potentials: L1 residual of a target's columns; largest move of a self-potential, in units of epsilon."""


class Pool:
    """Candidates (n, d) with their products, (n, n) float32: 1.6 GB for 20,000 of them."""

    def __init__(self, x: np.ndarray):
        self.x = x.astype(np.float32)
        self._products = torch.from_numpy(self.x) @ torch.from_numpy(self.x).T

    def kernel(self, epsilon: float) -> Tensor:
        """(n, n) float32 exp(-|x_i - x_j|^2 / epsilon)."""
        squares = self._products.diagonal().clone()
        found = torch.empty_like(self._products)
        for rows in torch.arange(len(squares)).split(1024):
            part = found[rows[0] : rows[-1] + 1]
            torch.mul(self._products[rows[0] : rows[-1] + 1], 2 / epsilon, out=part)
            part.sub_(squares / epsilon).sub_((squares[rows] / epsilon)[:, None]).exp_()
        return found


class Target:
    """One target against the pool, at one temperature.

    Args:
        own: the pool's kernel at epsilon; y: (m, d), all of equal weight.
    """

    def __init__(self, pool: Pool, own: Tensor, y: np.ndarray, epsilon: float):
        self._own, self._epsilon = own, epsilon
        x, z = torch.from_numpy(pool.x).double(), torch.from_numpy(y.astype(np.float64))
        self._cross = torch.exp(-torch.cdist(x, z).square() / epsilon)
        self._among = torch.exp(-torch.cdist(z, z).square() / epsilon)
        self._b = torch.full((len(y), 1), 1 / len(y), dtype=torch.float64)

    def divergences(self, a: Tensor, p: Tensor) -> np.ndarray:
        """(k,) the Sinkhorn divergence of each column of a (n, k), with its self-potential p (n, k)."""
        f, g = self._potentials(a)
        q = self_potentials(self._among, self._b, self._epsilon)
        return ((a * (f - p)).sum(0) + (self._b * (g - q)).sum(0)).numpy()

    def _potentials(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """f (n, k) and g (m, k), each column a problem of its own."""
        v = torch.ones(len(self._b), a.shape[1], dtype=torch.float64)
        while True:
            u = self._cross @ (self._b * v)
            columns = self._b * v * (self._cross.T @ (a / u))
            if float((columns - self._b).abs().sum(0).max()) <= TOLERANCE:
                return -self._epsilon * u.log(), self._epsilon * v.log()
            v = v * self._b / columns

    def discrepancies(self, a: Tensor) -> np.ndarray:
        """(k,) MMD^2 of each column of a (n, k), with this kernel."""
        among = (a * (self._own @ a.float()).double()).sum(0)
        across, own = (a.T @ self._cross @ self._b)[:, 0], (self._b.T @ self._among @ self._b)[0, 0]
        return (among - 2 * across + own).numpy()


def self_potentials(kernel: Tensor, a: Tensor, epsilon: float) -> Tensor:
    """(n, k) of each column of a (n, k) against itself, by the averaged iteration."""
    p = torch.zeros_like(a)
    while True:
        image = -epsilon * (kernel @ (a * torch.exp(p / epsilon)).to(kernel.dtype)).double().log()
        moved = float((image - p).abs().max())
        p = (p + image) / 2
        if moved <= TOLERANCE * epsilon:
            return p


def mixed(count: int, kept: np.ndarray, share: float) -> Tensor:
    """(n,) weights of (1 - share) all + share those at the places ``kept``."""
    a = torch.full((count,), (1 - share) / count, dtype=torch.float64)
    a[kept] += share / len(kept)
    return a
