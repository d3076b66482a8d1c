"""One fit over the shards, what the solve and the later rounds of select share, and the sample that it takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from gotd_ray.errors import UserError
from gotd_ray.ot.exact import from_units
from gotd_ray.ot.fit import State, fit, ladder
from gotd_ray.ot.kept import room
from gotd_ray.ot.kernel import one_thread_each
from gotd_ray.ot.shard import How
from gotd_ray.ot.sinkhorn import Solution
from gotd_ray.shards.pool import Pool
from gotd_ray.shards.work import Problem


def fit_shards(
    pool: Pool,
    problem: Problem,
    *,
    tolerance: float,
    max_passes: int,
    kept_memory: float,
    sample: int = 1,
    start: np.ndarray | None = None,
    enough: float = 0.0,
    resume: State | None = None,
    on_pass: Callable[[State], None] = lambda _: None,
) -> Solution:
    """See :func:`gotd_ray.ot.fit.fit`.

    Args:
        kept_memory: for plans between passes, see :func:`gotd_ray.ot.kept.room`.
        sample: the stride of the segments to fit on, see :func:`sample_stride`; 1 is all of them.
    """
    shared = pool.share(problem)

    @cache
    def rows(stride: int) -> int:
        return sum(pool.ask("support", sample * stride, shared))

    @cache
    def mass(stride: int) -> float:
        return total_mass(pool, sample * stride, shared)

    @cache
    def held(stride: int) -> int:
        return sum(pool.ask("rows", sample * stride))

    def column_sums(g: np.ndarray, stride: int, how: How) -> np.ndarray:
        return np.sum(pool.ask("columns", shared, g, mass(stride), sample * stride, how), axis=0)

    bytes_kept = room(kept_memory, sum(pool.ask("rows", 1)), problem.target.shape[1])
    with one_thread_each():  # long sums have other bits on more threads
        return fit(
            column_sums,
            ladder(rows, len(problem.b), pool.segments // sample, bytes_kept, held),
            problem.b,
            epsilon=problem.epsilon,
            tolerance=tolerance,
            max_passes=max_passes,
            start=start,
            enough=enough,
            resume=resume,
            on_pass=on_pass,
        )


def unfinished(solution: Solution, tolerance: float) -> str | None:
    """What to tell of a fit that stopped above its tolerance."""
    if solution.converged:
        return None
    return (
        f"stopped at residual {solution.residual:.2g} after {len(solution.history)} passes, above the tolerance "
        f"{tolerance:g}: raise solve.max_passes or solve.epsilon for scores that are final"
    )


def total_mass(pool: Pool, stride: int, problem: Any = None) -> float:
    """The sum of the candidates' weights in every stride-th segment, the same bits for any number of shards.

    Args:
        problem: one that is shared with the pool, for its weights; None for the candidates' own.

    Raises:
        UserError: it is zero.
    """
    total = from_units(sum(pool.ask("mass", stride, problem)))
    if not total > 0:
        raise UserError(
            "every candidate has weight 0. Check the weight_column of the corpus (of the reference, if there is one): "
            "some weight must be positive."
        )
    return total


def sample_stride(support_at: Callable[[int], int], segments: int, wanted: int | None) -> int:
    """The largest power of two such that every stride-th segment still holds ``wanted`` candidates of positive
    weight; 1 where none does, or where ``wanted`` is None.

    Segments are cut by content id and their number is a power of two, so the sample is uniform and the same for any
    number of shards.
    """
    stride = 1
    while wanted and stride < segments and support_at(2 * stride) >= wanted:
        stride *= 2
    return stride
