"""The solve against POT, its invariances, and its honesty about convergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import pot_potentials, squared_distances
from safetensors.numpy import load, save

from gotd_ray.ot.anderson import Iterate
from gotd_ray.ot.fit import Base, State
from gotd_ray.ot.kernel import column_marginal, side, soft_minimum
from gotd_ray.ot.sinkhorn import Solution, solve


def problem(seed: int, n: int = 37, m: int = 11, d: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random points on the sphere with random weights: x, a, y, b."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    a, b = rng.random(n) + 0.05, rng.random(m) + 0.05
    unit = [points / np.linalg.norm(points, axis=1, keepdims=True) for points in (x, y)]
    return unit[0], a / a.sum(), unit[1], b / b.sum()


def solved(x, a, y, b, epsilon: float, **options) -> tuple[np.ndarray, Solution]:
    target = side(torch.tensor(y), torch.tensor(b), epsilon, dtype=torch.float64)
    points, weights = torch.tensor(x), torch.tensor(a)
    settings = {"tolerance": 1e-12, "max_passes": 5000} | options
    solution = solve(
        lambda g: column_marginal(points, weights, target, torch.tensor(g)).numpy(), b, epsilon=epsilon, **settings
    )
    return soft_minimum(points, target, torch.tensor(solution.g)), solution


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("seed", range(4))
def test_float64_potentials_equal_pot(epsilon: float, seed: int) -> None:
    x, a, y, b = problem(seed)
    f, solution = solved(x, a, y, b, epsilon)
    f_pot, g_pot = pot_potentials(x, a, y, b, epsilon)
    assert solution.converged
    np.testing.assert_allclose(f, f_pot, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(solution.g, g_pot, rtol=1e-6, atol=1e-9)


def test_potentials_of_points_that_are_not_unit_vectors_equal_pot() -> None:
    x, a, y, b = problem(5)
    x, y = x * np.linspace(0.2, 3, len(x))[:, None], y * np.linspace(0.5, 2, len(y))[:, None]
    f, _ = solved(x, a, y, b, 0.5)
    np.testing.assert_allclose(f, pot_potentials(x, a, y, b, 0.5)[0], rtol=1e-6, atol=1e-9)


def test_the_plan_has_both_marginals() -> None:
    x, a, y, b = problem(1)
    f, solution = solved(x, a, y, b, 0.1)
    plan = a[:, None] * b * np.exp((f[:, None] + solution.g - squared_distances(x, y)) / 0.1)
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-12)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-11)


def test_residual_is_the_l1_error_of_the_target_marginal() -> None:
    x, a, y, b = problem(2)
    f, solution = solved(x, a, y, b, 0.05, max_passes=3)
    plan = a[:, None] * b * np.exp((f[:, None] + solution.g - squared_distances(x, y)) / 0.05)
    assert solution.residual == pytest.approx(np.abs(plan.sum(0) - b).sum(), rel=1e-9)


def test_stopping_early_is_reported_not_raised() -> None:
    x, a, y, b = problem(3)
    _, solution = solved(x, a, y, b, 0.02, max_passes=2)
    assert (solution.reason, len(solution.history), solution.converged) == ("max_passes", 2, False)


def test_the_start_of_g_does_not_change_the_answer() -> None:
    x, a, y, b = problem(4)
    f, _ = solved(x, a, y, b, 0.1)
    other, _ = solved(x, a, y, b, 0.1, iterate=Iterate.at(np.random.default_rng(0).normal(size=len(b)) + 7))
    np.testing.assert_allclose(f, other, atol=1e-9)


def test_candidates_without_weight_move_nothing_and_still_get_a_score() -> None:
    x, a, y, b = problem(6)
    f, solution = solved(x, a, y, b, 0.1)
    more = np.concatenate([x, x[:5] * -1])
    f_more, with_more = solved(more, np.concatenate([a, np.zeros(5)]), y, b, 0.1)
    np.testing.assert_allclose(with_more.g, solution.g, atol=1e-9)
    np.testing.assert_allclose(f_more[: len(f)], f, atol=1e-9)
    assert np.isfinite(f_more).all()


def test_one_target_gives_the_cost_itself() -> None:
    x, a, y, _ = problem(7, m=1)
    f, solution = solved(x, a, y, np.ones(1), 0.1)
    np.testing.assert_allclose(f, squared_distances(x, y)[:, 0], atol=1e-12)
    assert solution.residual < 1e-12


def test_float32_agrees_with_float64_on_ranks() -> None:
    x, a, y, b = problem(8, n=2000, m=50, d=32)
    double, _ = solved(x, a, y, b, 0.1, tolerance=1e-6)
    target = side(torch.tensor(y), torch.tensor(b), 0.1)
    points, weights = torch.tensor(x), torch.tensor(a)
    solution = solve(
        lambda g: column_marginal(points, weights, target, torch.tensor(g)).numpy(),
        b,
        epsilon=0.1,
        tolerance=1e-5,
        max_passes=500,
    )
    single = soft_minimum(points, target, torch.tensor(solution.g))
    assert len(set(np.argsort(double)[:200]) & set(np.argsort(single)[:200])) >= 199


def test_acceleration_saves_most_passes() -> None:
    x, a, y, b = problem(9, n=400, m=40, d=8)
    _, fast = solved(x, a, y, b, 0.02, tolerance=1e-6)
    plain, g, target = 0, np.zeros(len(b)), side(torch.tensor(y), torch.tensor(b), 0.02, dtype=torch.float64)
    while True:
        columns = column_marginal(torch.tensor(x), torch.tensor(a), target, torch.tensor(g)).numpy()
        plain += 1
        if np.abs(columns - b).sum() <= 1e-6:
            break
        g = g + 0.02 * np.log(b / columns)
    assert len(fast.history) < plain / 3


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12))
def test_a_solve_resumed_from_any_state_ends_in_the_same_bits(stop: int) -> None:
    x, a, y, b = problem(10, n=200, m=20)
    iterate, saved = Iterate.at(np.zeros(20)), list[bytes]()
    given = {"tolerance": 1e-9, "iterate": iterate}
    _, whole = solved(x, a, y, b, 0.02, **given, on_pass=lambda: saved.append(State(iterate).to_bytes()))
    resumed_from = State.from_bytes(saved[min(stop, len(saved)) - 1])
    _, resumed = solved(x, a, y, b, 0.02, tolerance=1e-9, iterate=resumed_from.iterate)
    assert resumed.g.tobytes() == whole.g.tobytes()
    assert resumed.history == whole.history


def saved_states() -> list[bytes]:
    x, a, y, b = problem(10, n=200, m=20)
    state, saved = State(Iterate.at(np.zeros(20)), Base(b, b, b)), list[bytes]()
    options = {"tolerance": 1e-9, "max_passes": 6, "iterate": state.iterate}
    solved(x, a, y, b, 0.02, **options, on_pass=lambda: saved.append(state.to_bytes()))
    return saved


def test_a_state_that_is_cut_short_anywhere_is_refused_in_one_sentence() -> None:
    whole = saved_states()[-1]
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1]:
        with pytest.raises(ValueError, match=r"^it is no state of a solve, or it is broken$"):
            State.from_bytes(whole[:length])


@pytest.mark.parametrize(
    "damage",
    [
        {"iterate.x": np.full(20, np.nan)},
        {"iterate.x": np.array(0.0)},
        {"iterate.x": np.zeros(19)},
        {"iterate.x": np.zeros(20, np.float32)},
        {"base.scale": np.zeros((20, 2))},
        {"iterate.images": np.zeros((3, 20))},
        {"base.g": None},
        {"numbers": np.zeros(2)},
        {"numbers": np.array([1.0, 0.0, np.nan])},
        {"numbers": np.array([np.inf, 0.0, 0.1])},
        {"unknown": np.zeros(2)},
        {"iterate.unknown": np.zeros(20)},
    ],
)
def test_a_state_whose_parts_do_not_fit_together_is_refused(damage: dict[str, np.ndarray]) -> None:
    arrays = load(saved_states()[-1])
    State.from_bytes(save(arrays))
    broken = {name: array for name, array in (arrays | damage).items() if array is not None}
    with pytest.raises(ValueError, match=r"^it is no state of a solve, or it is broken$"):
        State.from_bytes(save(broken))


def test_broken_numbers_are_said_and_no_setting_is_named() -> None:
    with pytest.raises(FloatingPointError, match=r"^the transport lost its precision in pass 1 at epsilon 0\.1$"):
        solve(lambda g: g * np.nan, np.full(3, 1 / 3), epsilon=0.1, tolerance=1e-3, max_passes=5)


@pytest.mark.parametrize(("epsilon", "weights"), [(0.0, [0.5, 0.5]), (0.1, [1.0, 0.0])])
def test_a_side_refuses_what_has_no_logarithm(epsilon: float, weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"positive|no weight"):
        side(torch.eye(2), torch.tensor(weights), epsilon)
