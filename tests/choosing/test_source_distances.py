"""Distances of sources are POT's, their spread is what repeated samples show, and the cut is what the settings say."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest

from gotd_ray.choosing.survey import (
    Distance,
    distance,
    exact_cost,
    kept_sources,
    near_the_cut,
    ranked,
    sample_size,
)


def sphere(rows: int, seed: int, shift: float = 0.0, d: int = 8) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(rows, d)) + shift
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize(("k", "m"), [(60, 60), (50, 80), (80, 50), (1, 7), (7, 1)])
def test_the_cost_is_that_of_pot(k: int, m: int) -> None:
    x, y = sphere(k, 0), sphere(m, 1, shift=0.4)
    expected = pot.solve_sample(x.astype(float), y.astype(float)).value
    assert exact_cost(x, y) == pytest.approx(expected, abs=1e-9)
    assert distance(x, y).value == exact_cost(x, y)


def test_a_sample_is_no_distance_from_itself_in_any_order() -> None:
    x = sphere(100, 2)
    assert exact_cost(x, x[np.random.default_rng(0).permutation(100)]) == pytest.approx(0, abs=1e-9)


def test_a_large_problem_is_solved_to_its_end() -> None:
    """POT's own limit of pivots ends this one early, with a value that is too high."""
    x, y = sphere(1500, 3, d=64), sphere(1500, 4, d=64)
    cost = pot.dist(x.astype(float), y.astype(float))
    _, log = pot.emd2([], [], cost, log=True, numItermax=10_000)
    assert log["warning"]
    assert exact_cost(x, y) < log["cost"]


def test_the_spread_is_what_other_samples_of_the_source_show() -> None:
    y = sphere(200, 5, shift=0.5)
    found = [distance(sphere(200, seed), y) for seed in range(100, 140)]
    seen = np.std([one.value for one in found], ddof=1)
    said = np.mean([one.spread for one in found])
    assert 0.5 < said / seen < 2


def test_a_few_documents_have_no_spread() -> None:
    assert distance(sphere(9, 0), sphere(30, 1)).spread is None
    assert distance(sphere(10, 0), sphere(30, 1)).spread is not None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_vectors_are_an_error_that_says_so(value: float) -> None:
    x = sphere(20, 0)
    x[3, 1] = value
    with pytest.raises(FloatingPointError, match=r"^a vector is not finite$"):
        exact_cost(x, sphere(20, 1))


def test_all_sources_are_compared_by_the_same_number_of_documents() -> None:
    assert sample_size({"a": 900, "b": 5000}, 2000) == 900
    assert sample_size({"a": 3000, "b": 5000}, 2000) == 2000
    assert sample_size({"a": 3000, "b": 5000, "small": 499}, 2000) == 2000
    assert sample_size({"a": 30, "b": 20}, 2000) == 20


DISTANCES = {
    "near": Distance(1.0, 0.01, 100),
    "next": Distance(1.1, 0.01, 100),
    "close behind": Distance(1.12, 0.01, 100),
    "far": Distance(1.5, 0.01, 100),
    "few": Distance(1.6, None, 5),
}


def test_the_nearest_are_kept_and_those_that_are_named() -> None:
    assert ranked(DISTANCES) == ["near", "next", "close behind", "far", "few"]
    assert kept_sources(DISTANCES, 2, []) == {"near", "next"}
    assert kept_sources(DISTANCES, 2, ["far", "near", "unknown"]) == {"near", "next", "far"}
    assert kept_sources(DISTANCES, None, []) == kept_sources(DISTANCES, 5, []) == kept_sources(DISTANCES, 99, [])
    assert kept_sources(DISTANCES, 99, []) == set(DISTANCES)


def test_sources_that_cannot_be_told_from_the_last_one_kept_are_named() -> None:
    assert near_the_cut(DISTANCES, {"near", "next"}, 2) == ["close behind", "few"]
    assert near_the_cut(DISTANCES, {"near"}, 1) == ["few"]
    assert near_the_cut(DISTANCES, {"near", "next", "close behind"}, 2) == ["few"]
    assert near_the_cut(DISTANCES, set(DISTANCES), None) == near_the_cut(DISTANCES, set(DISTANCES), 5) == []
