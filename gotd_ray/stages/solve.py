"""Stage 2, solve: index and target -> potentials. One Sinkhorn over all shards; the state is g, m numbers."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Site
from gotd_ray.errors import UserError
from gotd_ray.index import Embedded
from gotd_ray.ot.fit import fit, levels, mean_cost
from gotd_ray.ot.potentials import Potentials, self_potential
from gotd_ray.ot.shard import segment_count
from gotd_ray.ot.sinkhorn import Solution, State
from gotd_ray.progress import Progress
from gotd_ray.stages._shards import Pool, Problem, one_thread_each, shards, target_points

VERSION = 1
"""Raised when the result of equal settings changes."""

PRESETS = {
    "debiased": {"epsilon": 0.25, "epsilon_unit": "mean_cost", "tolerance": 1e-3},
    "paper": {"epsilon": 0.1, "epsilon_unit": "absolute", "tolerance": 0.1},
}
"""debiased: the best of our trials on the paper's Figure 3. paper: the values of the authors' code."""

SMALL_EPSILON = 1e-3
"""Below it the scores / epsilon are so large that float32 is not fine enough: auto takes float64."""

CHECKPOINT_SECONDS = 2.0
POTENTIALS = "potentials.safetensors"


def solve(run: config.Run, embedded: Embedded, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Fit the potentials of ``run.solve`` and commit them.

    Raises:
        UserError: the target is empty; the arithmetic broke down.
    """
    artifact.begin()
    try:
        return _solve(run, embedded, artifact, site)
    except FloatingPointError as error:
        raise UserError(str(error)) from None


def _solve(run: config.Run, embedded: Embedded, artifact: Artifact, site: Site) -> dict[str, Any]:
    started = time.perf_counter()
    y = target_points(embedded, run.storage)
    b = np.full(len(y), 1.0 / len(y))
    with shards(embedded, run, site) as pool:
        rows = sum(pool.ask("rows", 1))
        epsilon, unit_cost, tolerance = _temperature(run.solve, pool, rows, y, b)
        problem = Problem(artifact.key, y, b, epsilon, _precision(run.solve, epsilon))
        solution = _fit(run, pool, problem, tolerance, segment_count(embedded.candidates.rows), artifact, site.progress)
        landmarks = _landmarks(pool, min(run.solve.landmarks, rows)) if run.solve.preset == "debiased" else None
    facts = {
        "preset": run.solve.preset,
        "precision": problem.precision,
        "candidates": rows,
        "targets": len(y),
        "epsilon": epsilon,
        "mean_cost": unit_cost,
        "tolerance": tolerance,
        "residual": solution.residual,
        "passes": round(solution.passes, 2),
        "reason": solution.reason,
        "last_move": solution.last_move,
        "residuals": [float(f"{r:.4g}") for r in solution.history],
    }
    ids, points = landmarks or (None, None)
    with one_thread_each():
        own = None if points is None else self_potential(points, epsilon)
    potentials = Potentials(
        target=y,
        b=b,
        g=solution.g,
        epsilon=epsilon,
        landmarks=points,
        landmark_ids=ids,
        landmark_potential=own,
        facts=facts,
    )
    artifact.write(POTENTIALS, potentials.to_bytes())
    if not solution.converged:
        site.progress.say(
            f"solve stopped at residual {solution.residual:.2g} after {len(solution.history)} passes, above the "
            f"tolerance {tolerance:g}: raise solve.max_passes or solve.epsilon for scores that are final"
        )
    storage.delete_tree(_checkpoint(artifact), run.storage)
    return artifact.commit(facts | {"seconds": time.perf_counter() - started})


def _temperature(
    settings: config.Solve, pool: Pool, rows: int, y: np.ndarray, b: np.ndarray
) -> tuple[float, float, float]:
    """Absolute epsilon, the mean cost it may be relative to, and the tolerance."""
    preset = PRESETS[settings.preset]
    cost = mean_cost(np.sum(pool.ask("moments", rows), axis=0), y, b)
    epsilon = settings.epsilon or preset["epsilon"]
    unit = settings.epsilon_unit or preset["epsilon_unit"]
    tolerance = settings.tolerance or preset["tolerance"]
    return float(epsilon) * (cost if unit == "mean_cost" else 1.0), cost, float(tolerance)  # type: ignore[arg-type]


def _precision(settings: config.Solve, epsilon: float) -> Any:
    if settings.precision != "auto":
        return settings.precision
    return "float64" if epsilon < SMALL_EPSILON else "float32"


def _checkpoint(artifact: Artifact) -> str:
    """Where an unfinished solve of this key leaves its state."""
    return artifact.path(f"checkpoint-{artifact.key}.safetensors")


def _fit(
    run: config.Run,
    pool: Pool,
    problem: Problem,
    tolerance: float,
    segments: int,
    artifact: Artifact,
    progress: Progress,
) -> Solution:
    shared = pool.share(problem)
    path = _checkpoint(artifact)

    @cache
    def rows(stride: int) -> int:
        return sum(pool.ask("rows", stride))

    def column_sums(g: np.ndarray, stride: int) -> np.ndarray:
        return np.sum(pool.ask("columns", shared, g, rows(stride), stride), axis=0)

    saved = time.monotonic()
    with progress.task("solve", total=None, unit="passes") as task:

        def on_pass(state: State) -> None:
            nonlocal saved
            task.advance(1)
            task.update(note=f"residual {state.history[-1]:.2g}, wanted {tolerance:g}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                storage.write_bytes(path, state.to_bytes(), run.storage)
                saved = time.monotonic()

        return fit(
            column_sums,
            levels(rows, len(problem.b), segments),
            problem.b,
            epsilon=problem.epsilon,
            tolerance=tolerance,
            max_passes=run.solve.max_passes,
            resume=State.from_bytes(storage.read_bytes(path, run.storage))
            if storage.exists(path, run.storage)
            else None,
            on_pass=on_pass,
        )


def _landmarks(pool: Pool, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids (k,) and float32 vectors (k, d) of the candidates with the smallest ids, over all shards."""
    parts = pool.ask("smallest", count)
    ids = np.concatenate([ids for ids, _ in parts])
    vectors = np.concatenate([vectors for _, vectors in parts])
    order = np.argsort(ids)[:count]
    return ids[order], vectors[order].astype(np.float32)
