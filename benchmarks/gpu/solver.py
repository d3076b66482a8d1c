"""The solver on a device against plain Sinkhorn in float64 on the CPU, then its time."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
import torch
from measure import seconds_of
from passes import as_in_a_fit, bare_pass, grown, in_memory, uniform_side
from referee import overlap, potentials, residual_of

from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.kernel import Precision
from gotd_ray.ot.local import solve_local
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.shard import How, Shard, shard_segments
from gpu.results import Results

EPSILONS = (0.25, 0.05)
"""Shares of the mean cost: the default preset's, and a small one."""

TOLERANCES = {"float64": 1e-9, "float32": 1e-6, "bfloat16": 1e-4}
"""Residuals that are asked for, by the solver's own passes."""

RESIDUALS = {"float64": 1e-9, "float32": 2e-5, "bfloat16": 0.05}
GAPS = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 0.1}
"""Largest residual by float64, and largest distance of a score from the right one, in units of epsilon."""

OVERLAP = 0.999
SHARDS = (1, 2, 3, 7)


@dataclass(frozen=True)
class Problem:
    """Candidates (n, d) and targets (m, d), float16, with their weights, at one temperature."""

    name: str
    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    epsilon: float


def run(results: Results, given: argparse.Namespace) -> None:
    """All checks, then the times."""
    x, y = _points(given)
    precisions = [name for name in get_args(Precision) if name != "bfloat16" or given.device != "cpu"]
    n, m = (400, 30) if given.toy else (6000, 300)
    for problem in _problems(x[:n], y[:m], given.seed):
        f, g = potentials(problem.x, problem.y, problem.a, problem.b, problem.epsilon)
        for precision in precisions:
            _against_the_oracle(results, problem, f, g, precision, given.device)
    _shards(results, x[:n], y[:m], given.device)
    _landmarks(results, x[:n], y[:m], given.device)
    n, m = (3000, 60) if given.toy else (100_000, 2000)
    _against_the_cpu(results, grown(x, n), y[:m], given.device)
    _times(results, x, y, given)


def _points(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Real vectors if there are any, else unit vectors of mixed clusters, the targets in a few of them."""
    if given.vectors:
        held = np.load(given.vectors)
        return held["x"], held["y"]
    rng = np.random.default_rng(given.seed)
    n, m, d = (3000, 60, 32) if given.toy else (20_000, 10_000, 384)
    centres = rng.normal(size=(40, d))

    def drawn(count: int, clusters: int) -> np.ndarray:
        points = centres[rng.integers(clusters, size=count)] + rng.normal(size=(count, d))
        return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)

    return drawn(n, 40), drawn(m, 8)


def _problems(x: np.ndarray, y: np.ndarray, seed: int) -> Iterator[Problem]:
    """Each temperature, with weights and without."""
    rng = np.random.default_rng(seed)
    cost = _mean_cost(x, y)
    for share in EPSILONS:
        equal = [np.full(len(points), 1 / len(points)) for points in (x, y)]
        drawn = [weights / weights.sum() for weights in (rng.exponential(size=len(points)) + 0.01 for points in (x, y))]
        for name, (a, b) in {"equal": equal, "drawn": drawn}.items():
            yield Problem(f"epsilon {share:g} of the mean cost, {name} weights", x, y, a, b, share * cost)


def _mean_cost(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float((x * x).sum(1).mean() + (y * y).sum(1).mean() - 2 * x.mean(0) @ y.mean(0))


def _ids(count: int) -> np.ndarray:
    return np.array([f"{i:032x}" for i in range(count)], "S32")


def _scores(
    x: np.ndarray, y: np.ndarray, b: np.ndarray, g: np.ndarray, epsilon: float, precision: Precision, device: str
) -> np.ndarray:
    fitted = Potentials(y.astype(np.float32), b, g, epsilon)
    return fitted.scorer("float64" if precision == "float64" else "float32", device)(_ids(len(x)), x)


def _against_the_oracle(
    results: Results, problem: Problem, f: np.ndarray, g: np.ndarray, precision: Precision, device: str
) -> None:
    x, y, a, b, epsilon = problem.x, problem.y, problem.a, problem.b, problem.epsilon
    solution = solve_local(
        x, y, a=a, b=b, epsilon=epsilon, tolerance=TOLERANCES[precision], precision=precision, device=device
    )
    found = _scores(x, y, b, solution.g, epsilon, precision, device)
    where = f"{precision}, {problem.name}"
    residual = residual_of(x, y, solution.g, epsilon, a, b)
    results.check(f"residual by float64: {where}", residual, most=RESIDUALS[precision])
    gaps = max(np.abs(found - f).max(), np.abs(solution.g - g).max()) / epsilon
    results.check(f"largest error of f and g / epsilon: {where}", float(gaps), most=GAPS[precision])
    results.check(f"first tenth: {where}", overlap(found, f, len(x) // 10), least=OVERLAP)


def _shards(results: Results, x: np.ndarray, y: np.ndarray, device: str) -> None:
    """Sums over shards are integers: the same for any number of them, so that whatever follows is the same."""
    target, whole = uniform_side(y, 0.3, device), in_memory(x, device=device)
    g = np.random.default_rng(0).normal(0, 0.01, len(y))
    for how in (How(), How(base=np.zeros(len(y)))):
        sums = []
        for count in SHARDS:
            parts = shard_segments(len(whole.segments), count)
            held = [Shard(whole.segments[part.start : part.stop], device) for part in parts]
            with as_in_a_fit(device):
                sums.append(sum(shard.columns(target, g, float(len(x)), 1, how) for shard in held))
        moved = max(int(np.abs(found - sums[0]).max()) for found in sums)
        kind = "exact" if how.base is None else "by the kept plan"
        results.check(f"sums of a pass over {', '.join(map(str, SHARDS))} shards, {kind}: apart", moved, most=0)


def _landmarks(results: Results, x: np.ndarray, y: np.ndarray, device: str) -> None:
    """The debiased score on the device against float64 on the CPU."""
    epsilon, b, ids = 0.25 * _mean_cost(x, y), np.full(len(y), 1 / len(y)), _ids(len(x))
    g = solve_local(x, y, epsilon=epsilon, tolerance=1e-6, device=device).g
    marks = x[: len(x) // 3].astype(np.float32)
    fitted = Potentials(y.astype(np.float32), b, g, epsilon, marks, ids[: len(marks)], self_potential(marks, epsilon))
    found, wanted = fitted.scorer("float32", device)(ids, x), fitted.scorer("float64")(ids, x)
    results.check("debiased score: largest error / epsilon", float(np.abs(found - wanted).max() / epsilon), most=1e-3)
    results.check("debiased score: first tenth", overlap(found, wanted, len(x) // 10), least=OVERLAP)


def _against_the_cpu(results: Results, x: np.ndarray, y: np.ndarray, device: str) -> None:
    """More candidates than whole matrices allow: the package in float32 on the device, in float64 on the CPU."""
    epsilon, b = 0.25 * _mean_cost(x, y), np.full(len(y), 1 / len(y))

    def scores(precision: Precision, place: str) -> np.ndarray:
        g = solve_local(x, y, epsilon=epsilon, tolerance=1e-6, precision=precision, device=place).g
        return _scores(x, y, b, g, epsilon, precision, place)

    depth = len(x) // 100
    share = overlap(scores("float32", device), scores("float64", "cpu"), depth)
    results.check(f"n {len(x):,}, m {len(y):,}, first {depth:,} of the CPU's", share, least=OVERLAP)


def _times(results: Results, x: np.ndarray, y: np.ndarray, given: argparse.Namespace) -> None:
    """Solves to the default tolerance, then one pass of each kind against its bare arithmetic."""
    for n, m in [(4000, 60)] if given.toy else [(200_000, 2000), (1_000_000, 1000), (1_000_000, 10_000)]:
        if results.late or m > len(y):
            why = "no time is left" if results.late else "there are too few targets"
            results.note(f"n {n:,}, m {m:,} is not timed: {why}")
            continue
        some, target = grown(x, n), y[:m]
        epsilon = 0.25 * _mean_cost(some, target)
        solve = partial(solve_local, some, target, epsilon=epsilon, device=given.device, kept_memory=m)
        _forget_peak()
        passes = solve().passes
        (seconds,) = seconds_of([solve], 1 if given.toy else 3)
        results.time(f"solve, n {n:,}, m {m:,}", seconds, passes=passes, **_peak())
        _times_of_passes(results, some, target, given)


def _times_of_passes(results: Results, x: np.ndarray, y: np.ndarray, given: argparse.Namespace) -> None:
    device, n, g = given.device, float(len(x)), np.zeros(len(y))
    target, shard = uniform_side(y, 0.25 * _mean_cost(x, y), device), in_memory(x, device=device)
    ways = {"exact": How(), "that keeps its plan": How(keep=True), "by the kept plan": How(base=g)}
    with as_in_a_fit(device):
        calls = [partial(shard.columns, target, g, n, 1, how) for how in ways.values()]
        *ours, bare = seconds_of([*calls, bare_pass(shard, target)], 1 if given.toy else 5)
    for name, seconds in zip(ways, ours, strict=True):
        results.time(f"pass {name}, n {len(x):,}, m {len(y):,}", seconds, bare=bare, ratio=seconds / bare)


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> dict[str, float]:
    return {"gigabytes": torch.cuda.max_memory_allocated() / 1e9} if torch.cuda.is_available() else {}
