"""The Sinkhorn divergence against POT, and its gradient against the debiased score."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
from oracles import squared_distances

from gotd_ray.ot.divergence import self_potential, self_transport, sinkhorn_divergence, transport

Measures = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

EPSILONS = [0.2, 2.0]


@pytest.fixture(scope="module")
def measures() -> Measures:
    """x (60, 5), a, y (25, 5), b: unit vectors around different centres, unequal weights."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.normal(size=(25, 5)) + np.array([1, 0.5, 0, 0, 0])
    a, b = rng.random(60) + 0.1, rng.random(25) + 0.1
    x, y = (points / np.linalg.norm(points, axis=1, keepdims=True) for points in (x, y))
    return x, a / a.sum(), y, b / b.sum()


def pot_plan(x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, epsilon: float) -> np.ndarray:
    cost = squared_distances(x, y)
    return pot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-11, numItermax=20_000)


def pot_value(x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, epsilon: float) -> float:
    """<P, C> + epsilon KL(P | a x b), from POT's plan."""
    plan = pot_plan(x, a, y, b, epsilon)
    return float((plan * (squared_distances(x, y) + epsilon * np.log(plan / (a[:, None] * b)))).sum())


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_divergence_is_made_of_pots_plans_and_their_entropy(measures: Measures, epsilon: float) -> None:
    x, a, y, b = measures
    theirs = pot_value(x, a, y, b, epsilon) - (pot_value(x, a, x, a, epsilon) + pot_value(y, b, y, b, epsilon)) / 2
    assert sinkhorn_divergence(x, a, y, b, epsilon) == pytest.approx(theirs, abs=1e-8)
    assert theirs > 0.01
    assert sinkhorn_divergence(x, a, y, b, epsilon, precision="float32") == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_pots_own_divergence_is_ours_without_the_entropy(measures: Measures, epsilon: float) -> None:
    """empirical_sinkhorn_divergence takes <P, C> of each of the three plans; our potentials give the same plans."""
    x, a, y, b = measures
    theirs = pot.bregman.empirical_sinkhorn_divergence(
        x, y, epsilon, a=a, b=b, numIterMax=20_000, stopThr=1e-11, method="sinkhorn_log"
    )
    across = transport(x, a, y, b, epsilon, tolerance=1e-12)
    p, q = self_potential(x, epsilon, weights=a), self_potential(y, epsilon, weights=b)
    ours = (
        sharp(x, a, across.f, y, b, across.g, epsilon)
        - (sharp(x, a, p, x, a, p, epsilon) + sharp(y, b, q, y, b, q, epsilon)) / 2
    )
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def sharp(
    x: np.ndarray, a: np.ndarray, f: np.ndarray, y: np.ndarray, b: np.ndarray, g: np.ndarray, epsilon: float
) -> float:
    cost = squared_distances(x, y)
    return float((cost * a[:, None] * b * np.exp((f[:, None] + g - cost) / epsilon)).sum())


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_measure_is_at_no_distance_from_itself_and_at_some_from_any_other(measures: Measures, epsilon: float) -> None:
    x, a, _, _ = measures
    assert sinkhorn_divergence(x, a, x, a, epsilon) == pytest.approx(0, abs=1e-8)
    rng = np.random.default_rng(1)
    for _ in range(5):
        other = rng.dirichlet(np.ones(60))
        assert sinkhorn_divergence(x, a, x, other, epsilon) > 1e-6


def test_points_of_no_weight_and_the_order_of_the_measures_count_nothing(measures: Measures) -> None:
    x, a, y, b = measures
    some = np.where(np.arange(60) < 40, a, 0)
    some /= some.sum()
    held = sinkhorn_divergence(x[:40], some[:40], y, b, 0.3)
    assert sinkhorn_divergence(x, some, y, b, 0.3) == pytest.approx(held, abs=1e-10)
    assert sinkhorn_divergence(y, b, x[:40], some[:40], 0.3) == pytest.approx(held, abs=1e-7)


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_its_gradient_in_a_candidates_mass_is_the_debiased_score(measures: Measures, epsilon: float) -> None:
    """d/dt S((1 - t) a + t [i]) at 0 = score_i - <a, score>: the score's constant has no meaning."""
    x, a, y, b = measures
    score = transport(x, a, y, b, epsilon, tolerance=1e-12).f - self_potential(x, epsilon, weights=a, tolerance=1e-12)
    step = 1e-4
    for i in (0, 7, 33):
        ends = []
        for t in (step, -step):
            moved = (1 - t) * a + t * (np.arange(60) == i)
            ends.append(sinkhorn_divergence(x, moved, y, b, epsilon))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(score[i] - a @ score, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 3.0])
def test_a_weighted_self_potential_is_its_own_soft_minimum_wherever_it_starts(
    measures: Measures, epsilon: float
) -> None:
    x, a, _, _ = measures
    cost = squared_distances(x, x)
    p = self_potential(x, epsilon, weights=a, tolerance=1e-11)
    image = -epsilon * np.log((a * np.exp((p - cost) / epsilon)).sum(1))
    np.testing.assert_allclose(image, p, atol=1e-9)
    start = np.random.default_rng(3).normal(size=60)
    np.testing.assert_allclose(self_potential(x, epsilon, weights=a, start=start, tolerance=1e-11), p, atol=1e-9)
    assert self_transport(x, a, epsilon) == pytest.approx(pot_value(x, a, x, a, epsilon), abs=1e-8)


def test_float32_stops_at_its_rounding_and_not_at_the_limit_of_steps() -> None:
    """At a small epsilon float32 cannot reach the tolerance; it must not run on."""
    x = np.random.default_rng(4).normal(size=(300, 16))
    p = self_potential(x, 0.05, precision="float32", max_steps=60)
    assert (p == self_potential(x, 0.05, precision="float32", max_steps=61)).all()
    np.testing.assert_allclose(p, self_potential(x, 0.05), atol=1e-3)
