"""The early look against the late one, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from gotd_ray.tuning.agreement import agreement, order, saved, to_finish


def test_the_best_are_finished_and_as_many_over_the_other_ranks() -> None:
    values = [0.5, None, 0.9, 0.1, 0.8, 0.2, 0.3, 0.4, 0.7, 0.6]
    assert order(values, "higher") == [2, 4, 8, 9, 0, 7, 6, 5, 3, 1]
    assert to_finish(values, 2, "higher") == [2, 4, 8, 3]
    assert to_finish(values, 3, "higher") == [2, 4, 8, 9, 7, 3]
    assert to_finish(values, 2, "lower") == [3, 5, 6, 2]
    assert to_finish([0.2, None, 0.1], 3, "lower") == [2, 0]
    assert to_finish([None], 1, "lower") == []
    assert order([1.0, 1.0, 0.0], "higher") == [0, 1, 2]


def test_overlap_order_and_regret_by_hand() -> None:
    early = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    late = [0.80, 0.95, 0.70, 0.90, 0.60, 0.50]
    found = agreement(early, late, "higher", 0)
    assert found is not None
    # The three best: trials 0, 1, 2 early; 1, 3, 0 at the end. Of 15 pairs (0, 1), (0, 3) and (2, 3) are turned.
    assert (found["finished"], found["top"], found["overlap"], found["by_chance"]) == (6, 3, 2, 1.5)
    tau, low, high = found["tau"]
    assert tau == pytest.approx((12 - 3) / 15)
    assert low < tau < high <= 1
    assert found["regret"] == pytest.approx(0.15)
    flipped = agreement([-x for x in early], [-x for x in late], "lower", 0)
    assert flipped is not None and flipped["regret"] == pytest.approx(0.15) and flipped["tau"][0] == pytest.approx(tau)


def test_an_order_that_agrees_or_is_none() -> None:
    same = agreement([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], "lower", 0)
    assert same is not None and same["tau"] == [1.0, 1.0, 1.0] and same["regret"] == 0 and same["overlap"] == 2
    equal = agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "lower", 0)
    assert equal is not None and equal["tau"] is None
    assert agreement([1.0, 2.0], [1.0, 2.0], "lower", 0) is None


def test_the_order_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        early, late = (list(rng.integers(4, size=9).astype(float)) for _ in range(2))
        found = agreement(early, late, "lower", seed)
        assert found is not None and found["tau"][0] == pytest.approx(kendalltau(early, late).statistic)


def test_the_interval_of_an_order_that_is_none_holds_nought() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(40):
        found = agreement(list(rng.normal(size=10)), list(rng.normal(size=10)), "lower", seed)
        assert found is not None
        held += found["tau"][1] <= 0 <= found["tau"][2]
    assert held >= 34  # of 95% a few less with so few trials


def test_what_was_saved() -> None:
    found = saved([10.0, 20.0, 30.0], [(10.0, 50.0), (30.0, 150.0)], 1)
    assert found == pytest.approx({"spent": 110.0, "in_full": 300.0, "measuring": 150.0})
