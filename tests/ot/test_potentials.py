"""What a solve leaves behind scores documents as the formulas say."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from oracles import squared_distances

from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.potentials import Potentials


def softmin(cost: np.ndarray, potential: np.ndarray, weights: np.ndarray, epsilon: float) -> np.ndarray:
    return -epsilon * np.log((weights * np.exp((potential - cost) / epsilon)).sum(1))


@pytest.fixture
def potentials() -> Potentials:
    rng = np.random.default_rng(0)
    y, z = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(20, 5)).astype(np.float32)
    b = rng.random(9)
    ids = np.sort(np.array([rng.bytes(16).hex() for _ in range(20)], dtype="S32"))
    return Potentials(
        target=y,
        b=b / b.sum(),
        g=rng.normal(size=9),
        epsilon=0.7,
        landmarks=z,
        landmark_ids=ids,
        landmark_potential=self_potential(z, 0.7),
        facts={"preset": "debiased"},
    )


def documents(count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return np.array([rng.bytes(16).hex() for _ in range(count)], dtype="S32"), rng.normal(size=(count, 5))


def test_self_potential_is_its_own_soft_minimum() -> None:
    z = np.random.default_rng(2).normal(size=(50, 4))
    p = self_potential(z, 0.3, tolerance=1e-12)
    np.testing.assert_allclose(softmin(squared_distances(z, z), p, np.full(50, 1 / 50), 0.3), p, atol=1e-9)


def test_debiased_score_is_f_minus_the_self_potential(potentials: Potentials) -> None:
    ids, x = documents()
    f = softmin(squared_distances(x, potentials.target.astype(float)), potentials.g, potentials.b, 0.7)
    cost = squared_distances(x, potentials.landmarks.astype(float))
    p = softmin(cost, potentials.landmark_potential, np.full(20, 1 / 20), 0.7)
    np.testing.assert_allclose(potentials.scorer("float64")(ids, x), f - p, atol=1e-9)
    np.testing.assert_allclose(potentials.scorer()(ids, x.astype(np.float32)), f - p, atol=1e-5)


@pytest.mark.parametrize(("epsilon", "precision", "atol"), [(0.7, "float64", 1e-8), (0.05, "float32", 1e-5)])
def test_a_landmark_is_scored_without_itself(
    potentials: Potentials, epsilon: float, precision: Literal["float32", "float64"], atol: float
) -> None:
    """At the smaller epsilon its own term is all of the sum that rounding leaves."""
    assert potentials.landmarks is not None and potentials.landmark_ids is not None
    potential = self_potential(potentials.landmarks, epsilon)
    potentials = replace(potentials, epsilon=epsilon, landmark_potential=potential)
    ids, x = potentials.landmark_ids[:6], potentials.landmarks[:6].astype(float)
    f = softmin(squared_distances(x, potentials.target.astype(float)), potentials.g, potentials.b, epsilon)
    others = np.array([[k for k in range(20) if k != i] for i in range(6)])
    p = [
        softmin(
            squared_distances(x[i : i + 1], potentials.landmarks[others[i]].astype(float)),
            potential[others[i]],
            np.full(19, 1 / 19),
            epsilon,
        )[0]
        for i in range(6)
    ]
    np.testing.assert_allclose(potentials.scorer(precision)(ids, x.astype(np.float32)), f - p, atol=atol)


def test_a_landmark_of_twice_the_weight_counts_as_two(potentials: Potentials) -> None:
    """Weighted landmarks score like the same landmarks repeated."""
    ids, x = documents()
    twice = np.r_[np.arange(20), np.arange(7)]
    points, weights = potentials.landmarks, np.where(np.arange(20) < 7, 2, 1) / 27
    own = self_potential(points, 0.7, weights=weights, tolerance=1e-12)
    weighted = replace(potentials, landmark_potential=own, landmark_weights=weights)
    np.testing.assert_allclose(self_potential(points[twice], 0.7, tolerance=1e-12), own[twice], atol=1e-9)
    new = np.array([b"%032x" % i for i in range(27)], dtype="S32")
    repeated = replace(potentials, landmarks=points[twice], landmark_ids=new, landmark_potential=own[twice])
    np.testing.assert_allclose(weighted.scorer("float64")(ids, x), repeated.scorer("float64")(ids, x), atol=1e-9)
    again = Potentials.from_bytes(weighted.to_bytes())
    assert (again.scorer()(ids, x) == weighted.scorer()(ids, x)).all()


def test_bytes_round_trip(potentials: Potentials) -> None:
    ids, x = documents()
    again = Potentials.from_bytes(potentials.to_bytes())
    assert (again.scorer()(ids, x) == potentials.scorer()(ids, x)).all()
    assert again.facts == potentials.facts
    assert again.epsilon == potentials.epsilon
    assert len({potentials.to_bytes() for _ in range(20)}) == 1


def test_the_plain_score_needs_no_landmarks(potentials: Potentials) -> None:
    plain = Potentials(potentials.target, potentials.b, potentials.g, 0.7)
    ids, x = documents()
    f = softmin(squared_distances(x, potentials.target.astype(float)), potentials.g, potentials.b, 0.7)
    np.testing.assert_allclose(Potentials.from_bytes(plain.to_bytes()).scorer("float64")(ids, x), f, atol=1e-9)


@pytest.mark.parametrize("data", [b"", b"not a file at all", b"\x02\0\0\0\0\0\0\0{}  "])
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="potentials"):
        Potentials.from_bytes(data)
