"""Slow and obvious answers to compare with. The only place where an n x m array is welcome."""

from __future__ import annotations

import numpy as np
import ot as pot


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)


def pot_potentials(
    x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """POT's log-domain Sinkhorn, in our convention: POT keeps a and b inside its potentials, we do not.

    Returns f (n,) and g (m,), shifted so that sum_j b_j g_j = 0.
    """
    _, log = pot.sinkhorn(
        a, b, squared_distances(x, y), epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=200_000, log=True
    )
    f = epsilon * (log["log_u"] - np.log(a))
    g = epsilon * (log["log_v"] - np.log(b))
    shift = b @ g
    return f + shift, g - shift


def residual_of(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, g: np.ndarray, epsilon: float) -> float:
    """sum_j |col_j - b_j| of the plan whose rows are exact, from g (m,) alone."""
    cost = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    scores = np.log(b) + (g - cost) / epsilon
    scores -= scores.max(1, keepdims=True)
    plan = np.exp(scores)
    plan *= (a / plan.sum(1))[:, None]
    return float(np.abs(plan.sum(0) - b).sum())
