"""A solve from arrays: the same potentials as POT's, by whichever passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gotd_ray.ot.kernel import column_marginal, side
from gotd_ray.ot.local import solve_local
from gotd_ray.ot.sinkhorn import solve
from tests.oracles import residual_of


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray]:
    """4,000 candidates and 60 targets on the unit sphere, in clusters, as float16."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(9, 48))
    x = centres[rng.integers(0, 9, 4000)] + rng.normal(size=(4000, 48))
    y = centres[rng.integers(2, 5, 60)] + rng.normal(size=(60, 48))
    x, y = (points / np.linalg.norm(points, axis=1, keepdims=True) for points in (x, y))
    return x.astype(np.float16), y.astype(np.float32)


WAYS = pytest.mark.parametrize(
    "kept_memory", [0.0, 2.0, 2 * 1000 * 60 / 512e6], ids=["exact", "plan kept", "a sample's plan kept"]
)


@WAYS
@pytest.mark.parametrize("epsilon", [0.5, 0.1, 0.03])
def test_the_residual_is_what_a_float64_referee_finds(problem, epsilon: float, kept_memory: float) -> None:
    x, y = problem
    solution = solve_local(x, y, epsilon=epsilon, tolerance=1e-3, kept_memory=kept_memory, threads=1)
    assert solution.converged
    assert solution.residual <= 1e-3
    uniform = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    true = residual_of(x.astype(float), y.astype(float), *uniform, solution.g, epsilon)
    assert true <= 1e-3
    assert solution.residual + solution.residual_error <= 1e-3
    assert true == pytest.approx(solution.residual, abs=2e-5 + solution.residual_error)
    assert (solution.residual_error == 0) == (kept_memory != 2.0)


def test_weights_and_a_fine_tolerance_give_the_potential_of_the_exact_iteration(problem) -> None:
    x, y = problem
    rng = np.random.default_rng(0)
    a, b = rng.random(len(x)), rng.random(len(y)) + 0.1
    a[::7] = 0
    given = {"epsilon": 0.1, "tolerance": 1e-9, "a": a, "b": b, "precision": "float64", "threads": 1}
    plain, found = (solve_local(x, y, kept_memory=kept_memory, **given) for kept_memory in (0, 2.0))
    assert found.converged
    assert plain.converged
    np.testing.assert_allclose(found.g, plain.g, atol=1e-8)


def test_most_passes_over_all_candidates_are_spared(problem) -> None:
    x, y = problem
    before = solve(_marginal(x, y, 0.03), np.full(len(y), 1 / len(y)), epsilon=0.03, tolerance=1e-3, max_passes=500)
    sampled = solve_local(x, y, epsilon=0.03, tolerance=1e-3, kept_memory=0, threads=1)
    assert len(sampled.history) < len(before.history)
    kept = solve_local(x, y, epsilon=0.03, tolerance=1e-3, threads=1)
    assert kept.passes < 2


def test_candidates_that_are_all_one_and_a_single_target_are_no_trouble() -> None:
    x = np.zeros((70, 8), np.float16)
    solution = solve_local(x, np.ones((1, 8), np.float32), epsilon=0.1, threads=1)
    assert solution.residual == pytest.approx(0, abs=1e-6)
    assert solve_local(x, np.eye(8, dtype=np.float32)[:3], epsilon=0.1, threads=1).converged


def _marginal(x: np.ndarray, y: np.ndarray, epsilon: float):
    b = torch.full((len(y),), 1 / len(y), dtype=torch.float64)
    target = side(torch.from_numpy(y), b, epsilon, dtype=torch.float64)
    return lambda g: (column_marginal(torch.from_numpy(x), None, target, torch.tensor(g)) / len(x)).numpy()
