"""What may be spared: a fit on a sample, a coarser arithmetic; and how fast documents are scored.

Run: GOTD_DATA=folder python benchmarks/bench_sample.py --vectors cache [--rows 200000] [--targets 2000] [--seeds 3]

1. Potentials fitted on a random sample score all candidates: how many of the first 5,000 are those of the fit on all?
   The debiased score also depends on which 2,048 candidates are its landmarks (the smallest ids of what is fitted), so
   a line gives the fit on all with other landmarks: no sample can be expected above it.
2. Documents that one pass scores per second, on all cores.
3. The first 1,000 and 5,000 by each solve.precision and by the default tolerance, against float64 solved to 1e-6.
   solve.precision governs the fit; scores are made in float64 for float64, else in float32, as in the select stage.

Documents that tie with the last one taken count as taken (equal vectors stand in equal places).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import vectors
from machine import facts

from gotd_ray.config import Solve
from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.kernel import fast_matmul_is_exact, matmul_precision, one_thread_each
from gotd_ray.ot.local import solve_local
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.shard import Segment, Shard, segment_count
from gotd_ray.stages.solve import PRESETS

SAMPLES = (5_000, 12_500, 25_000, 50_000, 100_000)
BUDGET = 5_000
DEPTHS = (1_000, 5_000)
EXACT = 1e-6
ROUNDS = 5


def mean_cost(x: np.ndarray, y: np.ndarray) -> float:
    """E|x - y|^2 over all pairs, in blocks."""
    mean, square = np.zeros(x.shape[1]), 0.0
    for start in range(0, len(x), 50_000):
        block = x[start : start + 50_000].astype(np.float64)
        mean += block.sum(0) / len(x)
        square += float((block * block).sum()) / len(x)
    y = y.astype(np.float64)
    return square + float((y * y).sum(1).mean()) - 2 * float(mean @ y.mean(0))


def potentials(
    ids: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    preset: str,
    *,
    precision: str = "float32",
    tolerance: float | None = None,
    marks: np.ndarray | None = None,
) -> Potentials:
    """Fit by a preset's settings. ``marks``: rows of the landmarks; None takes the smallest ids, as the solve stage."""
    settings = PRESETS[preset]
    epsilon = float(settings["epsilon"]) * (mean_cost(x, y) if settings["epsilon_unit"] == "mean_cost" else 1.0)
    target = y.astype(np.float32)
    tolerance = tolerance or float(settings["tolerance"])
    solution = solve_local(x, target, epsilon=epsilon, tolerance=tolerance, precision=precision)  # type: ignore[arg-type]
    b = np.full(len(y), 1.0 / len(y))
    if preset == "paper":
        return Potentials(target, b, solution.g, epsilon)
    if marks is None:
        marks = np.argsort(ids)[: Solve().landmarks]
    points = x[marks].astype(np.float32)
    with one_thread_each():
        own = self_potential(points, epsilon)
    return Potentials(target, b, solution.g, epsilon, points, ids[marks], own)


class Scores:
    """All candidates in memory, scored as the select stage does: segments on threads of their own."""

    def __init__(self, ids: np.ndarray, x: np.ndarray) -> None:
        count = segment_count(len(x))
        segments = [Segment(i, a, b) for i, (a, b) in enumerate(zip(*(np.array_split(v, count) for v in (ids, x))))]  # noqa: B905
        self._shard = Shard(segments, threads=os.cpu_count() or 1)

    def of(self, fitted: Potentials, precision: str = "float32") -> np.ndarray:
        """(n,) float64, lower is better."""
        score = fitted.scorer("float64" if precision == "float64" else "float32")
        with one_thread_each(), matmul_precision("medium" if fast_matmul_is_exact() else "highest"):
            return np.concatenate(self._shard.each(lambda segment: score(segment.ids, segment.vectors)))


def overlap(found: np.ndarray, wanted: np.ndarray, k: int) -> float:
    """Share of the first k by ``found`` that are among the first k by ``wanted``, ties with the last one included."""
    last = np.partition(wanted, k - 1)[k - 1]
    first = np.argsort(found, kind="stable")[:k]
    return float((wanted[first] <= last + 1e-12 * max(1.0, abs(last))).mean())


def sampled(scores: Scores, ids: np.ndarray, x: np.ndarray, y: np.ndarray, seeds: int) -> None:
    print("| preset | fitted on | seeds | overlap of the first 5,000: mean | lowest |\n|---|---|---|---|---|")
    budget = min(BUDGET, len(x) // 10)
    for preset in PRESETS:
        whole = scores.of(potentials(ids, x, y, preset))

        def row(what: str, shares: list[float], preset: str = preset) -> None:
            print(
                f"| {preset} | {what} | {len(shares)} | {statistics.fmean(shares):.4f} | {min(shares):.4f} |",
                flush=True,
            )

        for size in (size for size in SAMPLES if size < len(x)):
            shares = []
            for seed in range(seeds):
                rows = np.random.default_rng(seed).choice(len(x), size, replace=False)
                shares.append(overlap(scores.of(potentials(ids[rows], x[rows], y, preset)), whole, budget))
            row(f"{size:,}", shares)
        if preset == "debiased":
            draws = [
                np.random.default_rng(seed).choice(len(x), min(Solve().landmarks, len(x)), replace=False)
                for seed in range(seeds)
            ]
            row(
                "all, other landmarks",
                [overlap(scores.of(potentials(ids, x, y, preset, marks=m)), whole, budget) for m in draws],
            )


def throughput(scores: Scores, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    print("\n| preset | targets | landmarks | documents scored per second |\n|---|---|---|---|")
    for preset in PRESETS:
        fitted = potentials(ids, x, y, preset, tolerance=0.1)
        seconds = []
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            scores.of(fitted)
            seconds.append(time.perf_counter() - started)
        marks = 0 if fitted.landmarks is None else len(fitted.landmarks)
        print(f"| {preset} | {len(y):,} | {marks:,} | {len(x) / statistics.median(seconds[1:]):,.0f} |", flush=True)


def precisions(scores: Scores, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    depths = [depth for depth in DEPTHS if depth < len(x)]
    print(f"\n| preset | precision | tolerance | {' | '.join(f'first {depth:,}' for depth in depths)} |")
    print("|---|---|---|" + "---|" * len(depths))
    for preset, settings in PRESETS.items():
        exact = scores.of(potentials(ids, x, y, preset, precision="float64", tolerance=EXACT), "float64")
        for precision, tolerance in (
            ("float32", EXACT),
            ("float32", settings["tolerance"]),
            ("float64", settings["tolerance"]),
        ):
            fitted = potentials(ids, x, y, preset, precision=precision, tolerance=float(tolerance))
            found = scores.of(fitted, precision)
            shares = " | ".join(f"{overlap(found, exact, depth):.4f}" for depth in depths)
            print(f"| {preset} | {precision} | {tolerance:g} | {shares} |", flush=True)
    if fast_matmul_is_exact():
        print("\nbfloat16 is not measured: on this CPU it is computed like float32.")
    else:
        print("\nbfloat16 is not measured: solve_local does not offer it.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=Path("vectors"), help="cache folder, see vectors.py")
    parser.add_argument("--rows", type=int, default=200_000, help="candidates")
    parser.add_argument("--targets", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    ids, x, y = vectors.load(args.vectors, args.rows, args.targets)
    print(f"- {facts()}\n")
    scores = Scores(ids, x)
    sampled(scores, ids, x, y, args.seeds)
    throughput(scores, ids, x, y)
    precisions(scores, ids, x, y)


if __name__ == "__main__":
    main()
