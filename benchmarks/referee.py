"""Slow and obvious answers in float64, by numpy alone: what solvers are judged by, on whatever device they run.

Conventions are those of ``gotd_ray.ot``: cost |x - y|^2, the potentials without the logarithms of the weights.
"""

from __future__ import annotations

import numpy as np


def residual_of(
    x: np.ndarray,
    y: np.ndarray,
    g: np.ndarray,
    epsilon: float,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
) -> float:
    """L1 distance from b of the column sums of the plan of (f(g), g), in blocks.

    Args:
        x: (n, d); y: (m, d); a: (n,) and b: (m,), each summing to 1, None for equal ones; g: (m,).
    """
    a = np.full(len(x), 1 / len(x)) if a is None else a
    b = np.full(len(y), 1 / len(y)) if b is None else b
    y = y.astype(np.float64)
    offset = (g - (y * y).sum(1)) / epsilon + np.log(b)
    columns = np.zeros(len(y))
    block = max(1, 2**22 // len(y))
    for start in range(0, len(x), block):
        scores = x[start : start + block].astype(np.float64) @ (y.T * (2 / epsilon)) + offset
        scores -= scores.max(1, keepdims=True)  # |x_i|^2 and f_i leave with the row's sum
        np.exp(scores, out=scores)
        columns += (a[start : start + block] / scores.sum(1)) @ scores
    return float(np.abs(columns - b).sum())


def potentials(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, tolerance: float = 1e-11
) -> tuple[np.ndarray, np.ndarray]:
    """f (n,) and g (m,), sum_j b_j g_j = 0, by plain Sinkhorn steps on the whole cost matrix.

    Args:
        x: (n, d); y: (m, d); a: (n,) and b: (m,), positive, each summing to 1.
        tolerance: L1 distance of the plan's column sums from b.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    scores = (2 * x @ y.T - (x * x).sum(1)[:, None] - (y * y).sum(1)) / epsilon
    log_a, log_b, g = np.log(a), np.log(b), np.zeros(len(y))
    while True:
        f = -epsilon * _log_sums(scores + (g / epsilon + log_b), 1)
        columns = np.exp(_log_sums(scores + (f / epsilon + log_a)[:, None], 0) + g / epsilon + log_b)
        if np.abs(columns - b).sum() <= tolerance:
            shift = b @ g
            return f + shift, g - shift
        g = g + epsilon * np.log(b / columns)


def _log_sums(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis, keepdims=True)
    return np.log(np.exp(values - top).sum(axis)) + top.squeeze(axis)


def overlap(found: np.ndarray, wanted: np.ndarray, k: int) -> float:
    """Share of the k lowest by ``found`` that are among the k lowest by ``wanted``, ties with the last one included."""
    last = np.partition(wanted, k - 1)[k - 1]
    first = np.argsort(found, kind="stable")[:k]
    return float((wanted[first] <= last + 1e-12 * max(1.0, abs(last))).mean())
