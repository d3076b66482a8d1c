"""The numbers of the report against what they claim to be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotd_ray.ot.divergence import transport
from gotd_ray.report import numbers


def unit(rng: np.random.Generator, count: int, width: int = 6) -> np.ndarray:
    points = rng.standard_normal((count, width))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_pulls_are_the_rows_of_the_plan() -> None:
    rng = np.random.default_rng(0)
    x, y, epsilon = unit(rng, 30), unit(rng, 12), 0.2
    a, b = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(12))
    found = transport(x, a, y, b, epsilon, tolerance=1e-10)
    cost = np.array([[np.sum((p - q) ** 2) for q in y] for p in x])
    plan = a[:, None] * b * np.exp((found.f[:, None] + found.g - cost) / epsilon)
    assert plan.sum(0) == pytest.approx(b, abs=1e-8), "a plan at all"
    rows = numbers.plan_rows(x, y, b, found.g, epsilon)
    assert rows == pytest.approx(plan / a[:, None], abs=1e-8)
    for row, places in zip(plan, numbers.largest(rows, 3), strict=True):
        assert [j for j, _ in places] == np.argsort(-row)[:3].tolist()


@given(st.dictionaries(st.text(max_size=5), st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)), min_size=1))
def test_shares_of_sources_add_up_and_lift_averages_to_one(counts: dict[str, tuple[int, int]]) -> None:
    rows = numbers.sources(counts)
    taken = sum(count for _, count in counts.values())
    assert sum(row["corpus_share"] for row in rows) == pytest.approx(1)
    assert sum(row["subset_share"] for row in rows) == pytest.approx(1 if taken else 0)
    assert {row["source"]: (row["corpus"], row["subset"]) for row in rows} == counts
    if taken:
        assert sum(row["lift"] * row["corpus_share"] for row in rows) == pytest.approx(1)


def test_a_histogram_counts_every_score_once() -> None:
    rng = np.random.default_rng(1)
    scores = np.append(rng.standard_normal(5000), [np.inf] * 7 + [40.0])
    taken = np.sort(scores)[:90]
    found = numbers.distribution(scores, taken)
    assert (found["candidates"], found["never"]) == (5008, 7)
    assert sum(found["counts"]) == 5001 and sum(found["taken"]) == 90
    assert all(t <= c for t, c in zip(found["taken"], found["counts"], strict=True))
    assert found["edges"][-1] < 5, "one far score does not press the rest together"


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0], [np.inf]])
def test_few_or_equal_scores_have_a_histogram_too(scores: list[float]) -> None:
    found = numbers.distribution(np.array(scores), np.empty(0))
    assert sum(found["counts"]) == np.isfinite(scores).sum()


def test_the_map_is_of_the_points_and_not_of_their_order_or_number() -> None:
    rng = np.random.default_rng(2)
    groups = {"a": unit(rng, 40) + 1, "b": unit(rng, 9)}
    found = numbers.plane(groups)
    turned = numbers.plane({"a": np.repeat(groups["a"], 3, axis=0)[::-1], "b": groups["b"][::-1]})
    assert turned["explained"] == pytest.approx(found["explained"])
    assert turned["points"]["b"] == pytest.approx(np.array(found["points"]["b"][::-1]), abs=2e-4)
    assert 0 < found["explained"][1] <= found["explained"][0] <= 1
    assert numbers.plane({"a": np.ones((1, 4)), "b": np.ones((2, 4))})["points"]["a"] == [[0, 0]]


def test_a_subset_like_the_target_lowers_the_divergence_of_the_mixture() -> None:
    rng = np.random.default_rng(3)
    away, near = unit(rng, 60) + 3.0 * np.eye(6)[0], unit(rng, 60)
    even = np.full(60, 1 / 60)
    found = numbers.divergences((away, even), near, (near, even), 0.3, 0.2)
    assert found["subset"] == pytest.approx(0, abs=1e-4)
    assert found["subset"] < found["mixture"] < found["corpus"]


def test_what_json_does_not_know_becomes_null() -> None:
    found = numbers.plain({"a": [1, float("nan"), {"b": (float("inf"), "x")}], 2: True})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"a": [1, None, {"b": [None, "x"]}], "2": True}
