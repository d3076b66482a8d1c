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
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import vectors
from machine import facts
from measure import heading, row, seconds_of
from passes import as_in_a_fit, in_memory
from referee import overlap

from gotd_ray.config import Solve
from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.fit import mean_cost
from gotd_ray.ot.kernel import Precision, fast_matmul_is_exact, one_thread_each
from gotd_ray.ot.local import solve_local
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.presets import PRESETS

Preset = Literal["debiased", "paper"]
BOTH: tuple[Preset, Preset] = ("debiased", "paper")
EXACT = 1e-6


@dataclass(frozen=True)
class Points:
    """The candidates in memory and a target."""

    ids: np.ndarray
    """(n,) S32."""

    x: np.ndarray
    """(n, d) float16."""

    y: np.ndarray
    """(m, d) float16."""

    def some(self, rows: np.ndarray) -> Points:
        return Points(self.ids[rows], self.x[rows], self.y)

    def fit(
        self,
        preset: Preset,
        *,
        precision: Precision = "float32",
        tolerance: float | None = None,
        marks: np.ndarray | None = None,
    ) -> Potentials:
        """Potentials by a preset's settings. ``marks``: rows of the landmarks; None takes the smallest ids, as the
        solve stage does."""
        target, b = self.y.astype(np.float32), np.full(len(self.y), 1.0 / len(self.y))
        settings: dict[str, Any] = dict(PRESETS[preset])
        epsilon = float(settings["epsilon"])
        if settings["epsilon_unit"] == "mean_cost":
            n = float(len(self.x))
            epsilon *= mean_cost(in_memory(self.x).moments(n), target, b)
        tolerance = tolerance or tolerance_of(preset)
        g = solve_local(self.x, target, epsilon=epsilon, tolerance=tolerance, precision=precision).g
        if preset == "paper":
            return Potentials(target, b, g, epsilon)
        marks = np.argsort(self.ids)[: int(Solve().landmarks)] if marks is None else marks
        points = self.x[marks].astype(np.float32)
        with one_thread_each():
            own = self_potential(points, epsilon)
        return Potentials(target, b, g, epsilon, points, self.ids[marks], own)

    def scores(self, fitted: Potentials, precision: Precision = "float32") -> np.ndarray:
        """(n,) float64, lower is better; as the select stage scores: segments on threads of their own."""
        score = fitted.scorer(precision)
        with as_in_a_fit():
            shard = in_memory(self.x, self.ids)
            return np.concatenate(shard.each(lambda segment: score(segment.ids, segment.vectors)))


def tolerance_of(preset: Preset) -> float:
    settings: dict[str, Any] = dict(PRESETS[preset])
    return float(settings["tolerance"])


def sampled(points: Points, given: argparse.Namespace) -> None:
    n, budget = len(points.x), min(max(given.depths), len(points.x) // 10)
    heading("preset", "fitted on", "seeds", f"overlap of the first {budget:,}: mean", "lowest")
    for preset in BOTH:
        whole = points.scores(points.fit(preset))

        def drawn(size: int) -> list[np.ndarray]:
            return [np.random.default_rng(seed).choice(n, size, replace=False) for seed in range(given.seeds)]

        sizes = [size for size in given.samples if size < n]
        lines = {f"{size:,}": [points.some(rows).fit(preset) for rows in drawn(size)] for size in sizes}
        if preset == "debiased":
            marks = drawn(min(int(Solve().landmarks), n))
            lines["all, other landmarks"] = [points.fit(preset, marks=rows) for rows in marks]
        for what, fits in lines.items():
            shares = [overlap(points.scores(fitted), whole, budget) for fitted in fits]
            row(preset, what, len(shares), f"{statistics.fmean(shares):.4f}", f"{min(shares):.4f}")


def throughput(points: Points, given: argparse.Namespace) -> None:
    print()
    heading("preset", "targets", "landmarks", "documents scored per second")
    for preset in BOTH:
        fitted = points.fit(preset, tolerance=0.1)

        def scored(fitted: Potentials = fitted) -> np.ndarray:
            return points.scores(fitted)

        (seconds,) = seconds_of([scored], given.repeats)
        marks = 0 if fitted.landmarks is None else len(fitted.landmarks)
        row(preset, f"{len(points.y):,}", f"{marks:,}", f"{len(points.x) / seconds:,.0f}")


def precisions(points: Points, given: argparse.Namespace) -> None:
    depths = [depth for depth in given.depths if depth < len(points.x)]
    print()
    heading("preset", "precision", "tolerance", *(f"first {depth:,}" for depth in depths))
    for preset in BOTH:
        exact = points.scores(points.fit(preset, precision="float64", tolerance=EXACT), "float64")
        ways: list[tuple[Precision, float]] = [("float32", EXACT)]
        ways += [("float32", tolerance_of(preset)), ("float64", tolerance_of(preset))]
        for precision, tolerance in ways:
            found = points.scores(points.fit(preset, precision=precision, tolerance=tolerance), precision)
            row(preset, precision, f"{tolerance:g}", *(f"{overlap(found, exact, depth):.4f}" for depth in depths))
    why = "on this CPU it is computed like float32" if fast_matmul_is_exact() else "solve_local does not offer it"
    print(f"\nbfloat16 is not measured: {why}.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=Path("vectors"), help="cache folder, see vectors.py")
    parser.add_argument("--rows", type=int, default=200_000, help="candidates")
    parser.add_argument("--targets", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, nargs="+", default=[5_000, 12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--depths", type=int, nargs="+", default=[1_000, 5_000], help="first documents looked at")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(argv)
    points = Points(*vectors.load(given.vectors, given.rows, given.targets))
    print(f"- {facts()}\n")
    sampled(points, given)
    throughput(points, given)
    precisions(points, given)


if __name__ == "__main__":
    main()
