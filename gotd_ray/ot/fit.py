"""The whole solve over shards, wherever they are: the shards' sums in, potentials out.

The caller supplies two functions that ask all shards and add their int64 answers. One process adds them in a list,
Ray adds them over actors: the same integers, so the same result to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gotd_ray.ot.exact import from_grid
from gotd_ray.ot.shard import MOMENT_LIMIT
from gotd_ray.ot.sinkhorn import Solution, State, solve

ColumnSums = Callable[[np.ndarray, int], np.ndarray]
"""(g (m,), stride) -> (m,) int64 grid sums over all shards at this stride."""

COARSE_TOLERANCE = 0.03
"""Residual at which a coarse sample is left: its own sampling noise is no smaller."""


@dataclass(frozen=True)
class Level:
    """A sample of the candidates: every stride-th segment."""

    stride: int
    rows: int


def levels(rows_at: Callable[[int], int], target_rows: int, segments: int) -> list[Level]:
    """From a sample a few times the target's size to all candidates, each four times the last.

    Potentials of a random sample are close to those of the whole, and passes over it are cheap.
    """
    strides = [1]
    while strides[-1] * 4 <= segments // 4 and rows_at(strides[-1] * 4) >= 8 * target_rows:
        strides.append(strides[-1] * 4)
    return [Level(stride, rows_at(stride)) for stride in reversed(strides)]


def mean_cost(moments: np.ndarray, target: np.ndarray, b: np.ndarray) -> float:
    """The mean of C_ij under a x b, exactly: E|x|^2 + E|y|^2 - 2 E[x].E[y], from the shards' moments (d + 1,)."""
    means = from_grid(moments, MOMENT_LIMIT)
    y = target.astype(np.float64)
    return float(means[-1] + b @ (y * y).sum(1) - 2 * means[:-1] @ (b @ y))


def fit(
    column_sums: ColumnSums,
    plan: list[Level],
    b: np.ndarray,
    *,
    epsilon: float,
    tolerance: float,
    max_passes: int,
    resume: State | None = None,
    on_pass: Callable[[State], None] = lambda _: None,
) -> Solution:
    """Solve on each level in turn, each from the last one's g; the last level is all candidates and decides.

    Args:
        resume: the state of an earlier call's last level, as ``on_pass`` gave it.
        on_pass: called after passes over all candidates only.
    """

    def level(stride: int, tolerance: float, state: State, on_pass: Callable[[State], None]) -> Solution:
        return solve(
            lambda g: from_grid(column_sums(g, stride)),
            b,
            epsilon=epsilon,
            tolerance=tolerance,
            max_passes=max_passes,
            state=state,
            on_pass=on_pass,
        )

    if resume is None:
        resume = State.at(np.zeros_like(b))
        for coarse in plan[:-1]:
            found = level(coarse.stride, max(tolerance, COARSE_TOLERANCE), State.at(resume.g), lambda _: None)
            resume = State.at(found.g, spent=resume.spent + found.passes * coarse.rows / plan[-1].rows)
    return level(1, tolerance, resume, on_pass)
