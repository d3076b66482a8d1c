"""One solve in this process, from arrays: for notebooks, benchmarks and whoever needs no cluster."""

from __future__ import annotations

import os

import numpy as np
import torch

from gotd_ray.ot.exact import from_units
from gotd_ray.ot.fit import fit, ladder
from gotd_ray.ot.kept import room
from gotd_ray.ot.kernel import Precision, dtype_of, one_thread_each, side, working_precision
from gotd_ray.ot.shard import Segment, Shard, segment_count
from gotd_ray.ot.sinkhorn import Solution


def solve_local(
    x: np.ndarray,
    y: np.ndarray,
    *,
    epsilon: float,
    tolerance: float = 1e-3,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    precision: Precision = "float32",
    device: str = "cpu",
    kept_memory: float = 2.0,
    threads: int | None = None,
    max_passes: int = 500,
) -> Solution:
    """The potential of the targets for candidates in memory.

    Args:
        x: (n, d) float16 or float32 candidates; rows in random order or not, equal rows count each.
        y: (m, d) targets.
        epsilon: temperature, in units of squared distance.
        tolerance: residual, see :class:`gotd_ray.ot.sinkhorn.Solution`.
        a: (n,) weights >= 0 of any sum, None for equal ones; b: (m,) positive weights, None for equal ones.
        precision: see :data:`gotd_ray.ot.kernel.Precision`.
        device: ``cpu`` or ``cuda``.
        kept_memory: for plans between passes, see :func:`gotd_ray.ot.kept.room`.
        threads: of this process; None: one per CPU, and one for a GPU.

    Raises:
        FloatingPointError: a point is not finite, or epsilon is too small for the precision.
    """
    a = None if a is None else np.asarray(a, np.float64) / (np.max(a) or 1.0)
    count = segment_count(len(x)) // 2  # no shards share them, and larger segments have less overhead
    threads = threads or (os.cpu_count() or 1 if device == "cpu" else 1)
    shard = Shard([_segment(x, a, i, count) for i in range(count)], device, threads)
    b = np.full(len(y), 1.0 / len(y)) if b is None else np.asarray(b, np.float64) / np.sum(b)
    mass = {stride: from_units(shard.mass(stride)) for stride in (1 << k for k in range(count.bit_length()))}
    levels = ladder(shard.support, len(y), count, room(kept_memory, *x.shape), shard.rows)
    with one_thread_each(), working_precision(precision, device):
        target = side(
            torch.from_numpy(np.asarray(y)),
            torch.from_numpy(b),
            epsilon,
            dtype=dtype_of(precision),
            device=device,
        )
        return fit(
            lambda g, stride, how: shard.columns(target, g, mass[stride], stride, how),
            levels,
            b,
            epsilon=epsilon,
            tolerance=tolerance,
            max_passes=max_passes,
        )


def _segment(x: np.ndarray, a: np.ndarray | None, index: int, count: int) -> Segment:
    """Every count-th row: rows that stand together, such as those of one source, go to different segments."""
    rows = x[index::count]
    weights = None if a is None else np.asarray(a[index::count], np.float64)
    return Segment(index, np.zeros(len(rows), "S32"), rows, weights)  # the ids are not used
