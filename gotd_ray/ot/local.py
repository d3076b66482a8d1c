"""One solve in this process, from arrays: for notebooks, benchmarks and whoever needs no cluster."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import torch

from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.exact import from_units
from gotd_ray.ot.fit import fit, ladder
from gotd_ray.ot.kept import room
from gotd_ray.ot.kernel import Precision, dtype_of, one_thread_each, side, working_precision
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.presets import Temperature, temperature
from gotd_ray.ot.shard import Segment, Shard, make_segments, segment_count
from gotd_ray.ot.sinkhorn import Solution
from gotd_ray.ot.weights import distinct, thin


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
    shard = Shard([_segment(x, a, i, count) for i in range(count)], device, threads or _threads(device))
    b = np.full(len(y), 1.0 / len(y)) if b is None else np.asarray(b, np.float64) / np.sum(b)
    heat = Temperature(epsilon, math.nan, tolerance, precision)
    return _solve(shard, count, np.asarray(y), b, heat, device, room(kept_memory, *x.shape), max_passes)


def potentials_local(
    x: np.ndarray,
    ids: np.ndarray,
    y: np.ndarray,
    target_ids: np.ndarray,
    *,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    preset: str = "debiased",
    epsilon: float | None = None,
    epsilon_unit: str | None = None,
    tolerance: float | None = None,
    max_passes: int = 500,
    landmarks: int = 2048,
    precision: str = "auto",
    kept_memory: float = 2.0,
    device: str = "cpu",
    threads: int | None = None,
) -> Potentials:
    """What the stage solve leaves for the same vectors, ids and settings, to the last bit.

    Args:
        x: (n, d) float16 or float32 candidates, in any order; ids: (n,) S32 hexadecimal hashes, see
            :mod:`gotd_ray.ot.shard`. Rows with one id are one document.
        y: (m, d) targets; target_ids: (m,) S32.
        a: (n,) weights >= 0; of one id the largest counts; b: (m,) likewise. None is equal ones.
        preset, epsilon, epsilon_unit, tolerance, max_passes, landmarks, precision, kept_memory: see ``config.Solve``.
        device: ``cpu`` or ``cuda``.

    Raises:
        NoCostError: see :func:`gotd_ray.ot.presets.temperature`.
        FloatingPointError: as :func:`solve_local`.
    """
    target_ids, first, masses = distinct(target_ids, b)
    masses = np.ones(len(target_ids)) if masses is None else masses
    some = masses > 0
    b, target = masses[some] / masses.sum(), np.asarray(y)[first][some].astype(np.float32)
    rows = len(np.unique(ids))
    count = segment_count(rows)
    shard = Shard(make_segments(ids, x, count, range(count), a), device, threads or _threads(device))
    moments = shard.moments(from_units(shard.mass()))
    named = {"epsilon": epsilon, "epsilon_unit": epsilon_unit, "tolerance": tolerance, "precision": precision}
    heat = temperature(preset, moments, target, b, **named)  # type: ignore[arg-type]
    found = _solve(shard, count, target, b, heat, device, room(kept_memory, rows, x.shape[1]), max_passes)
    facts = vars(heat) | {
        "preset": preset,
        "candidates": rows,
        "targets": len(b),
        "residual": found.residual,
        "converged": found.converged,
        "passes": len(found.history),
        "last_move": found.last_move,
    }
    plain = Potentials(target, b, found.g, heat.epsilon, facts=facts, target_ids=target_ids[some])
    if preset == "paper":
        return plain
    most = min(landmarks, rows)
    drawn, points, weights = shard.draw(most + 1)
    taken, shares = thin(drawn, weights, most)
    points = points[taken].astype(np.float32)
    with one_thread_each():
        own = self_potential(points, heat.epsilon, weights=shares)
    return replace(plain, landmarks=points, landmark_ids=drawn[taken], landmark_potential=own, landmark_weights=shares)


def _threads(device: str) -> int:
    return os.cpu_count() or 1 if device == "cpu" else 1


def _solve(
    shard: Shard,
    count: int,
    y: np.ndarray,
    b: np.ndarray,
    heat: Temperature,
    device: str,
    bytes_kept: int,
    max_passes: int,
) -> Solution:
    """The fit over a shard that holds all ``count`` segments; b (m,) sums to 1."""
    mass = {stride: from_units(shard.mass(stride)) for stride in (1 << k for k in range(count.bit_length()))}
    levels = ladder(shard.support, len(y), count, bytes_kept, shard.rows)
    with one_thread_each(), working_precision(heat.precision, device):
        dtype = dtype_of(heat.precision)
        target = side(torch.from_numpy(y), torch.from_numpy(b), heat.epsilon, dtype=dtype, device=device)
        return fit(
            lambda g, stride, how: shard.columns(target, g, mass[stride], stride, how),
            levels,
            b,
            epsilon=heat.epsilon,
            tolerance=heat.tolerance,
            max_passes=max_passes,
        )


def _segment(x: np.ndarray, a: np.ndarray | None, index: int, count: int) -> Segment:
    """Every count-th row: rows that stand together, such as those of one source, go to different segments."""
    rows = x[index::count]
    weights = None if a is None else np.asarray(a[index::count], np.float64)
    return Segment(index, np.zeros(len(rows), "S32"), rows, weights)  # the ids are not used
