"""What is advised of synthetic curves whose answers are known, and how often the intervals hold them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gotd_ray.curves import advice
from gotd_ray.curves.advice import advise, as_loss, rises
from gotd_ray.curves.noise import Noise

SIZES = 50.0 * 2.0 ** np.arange(6)
LAST = float(SIZES[-1])

Law = Callable[[Any], Any]


def power(n: Any) -> Any:
    return 2 / n**0.5 + 0.2


def rectified(n: Any) -> Any:
    return 60 / (60 + n**0.9) + 0.15


def steep(n: Any) -> Any:
    return 200 / n**1.5 + 0.3


def flat(n: Any) -> Any:
    return 0.4 + 0 * n


def measured(law: Law, seed: int, spread: float = 0.005, between: float = 0.0, seeds: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    luck = between * rng.standard_normal((1, seeds))
    return law(SIZES)[:, None] + luck + spread * rng.standard_normal((len(SIZES), seeds))


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "DRAWS", 100)


@pytest.mark.parametrize(
    ("law", "form"), [(power, "power"), (rectified, "rectified"), (flat, "flat")], ids=["power", "rectified", "flat"]
)
def test_the_law_behind_a_curve_is_chosen(law: Law, form: str) -> None:
    found = [advise(SIZES, measured(law, seed, 0.002), seed) for seed in range(5)]
    assert sum(one["form"] == form for one in found) >= 4
    for one in found:
        for tried in one["tried"]:
            assert tried["error"] == pytest.approx(one["mean"][-1] - tried["predicted"])


def test_a_law_that_the_sizes_refute_is_not_chosen_for_meeting_the_largest_by_luck() -> None:
    """Without the largest size the power law predicts it within 0.002 here; it misses the second by nine times that."""
    found = advise(SIZES, measured(rectified, 1, 0.002), 0)
    tried = {one["form"]: one for one in found["tried"]}
    assert abs(tried["power"]["error"]) < 0.01 and tried["power"]["refuted"] and not tried["rectified"]["refuted"]


@pytest.mark.parametrize("law", [power, rectified], ids=["power", "rectified"])
def test_intervals_of_the_gain_hold_the_truth_about_as_often_as_they_say(law: Law) -> None:
    truth = law(LAST) - law(LAST + 1000)
    gains = [advise(SIZES, measured(law, 100 + seed, 0.005, 0.005), seed)["next"] for seed in range(20)]
    assert sum(one["low"] <= truth <= one["high"] for one in gains) >= 17
    assert np.median([one["high"] - one["low"] for one in gains]) < 2 * truth


def test_where_nothing_is_gained_the_knee_lies_at_the_smallest_size() -> None:
    found = advise(SIZES, measured(flat, 0), 0)
    assert found["form"] == "flat" and found["next"]["gain"] == 0
    assert found["saturation"]["size"] == SIZES[0] and found["saturation"]["below"]


def test_the_knee_is_where_doubling_gains_less_than_the_noise() -> None:
    found = advise(SIZES, measured(steep, 2, 0.01), 0)
    # 200 / n^1.5 (1 - 2^-1.5) = noise
    knee = (200 * (1 - 2**-1.5) / found["noise"]) ** (2 / 3)
    assert found["noise"] == pytest.approx(0.01, rel=0.5)
    assert found["saturation"]["size"] == pytest.approx(knee, rel=0.15)
    assert found["saturation"]["low"] <= knee <= (found["saturation"]["high"] or np.inf)


def test_a_knee_beyond_the_data_is_refused_with_what_was_gained_last() -> None:
    found = advise(SIZES, measured(power, 0, 0.002), 0)
    assert found["saturation"]["size"] is None
    said = found["saturation"]["refused"]
    assert re.fullmatch(
        r"the knee lies beyond the data: from 800 to 1,600 documents the loss still falls by 0\.0(1[89]|2[0-3]), more "
        r"than the noise of a training \(0\.00\d+\)\. Measure larger sizes",
        said,
    )


def test_a_curve_that_rises_is_refused_with_the_places() -> None:
    losses = measured(power, 0, 0.002)
    losses[4:] += 0.1
    found = advise(SIZES, losses, 0)
    assert found["form"] is None and found["next"] is None and found["budget"] is None
    assert found["refused"].startswith("the curve is not monotone: the loss rises from 0.29")
    assert "at 400 documents" in found["refused"] and "at 800" in found["refused"]


def test_noise_alone_is_seldom_taken_for_a_rise() -> None:
    rng = np.random.default_rng(0)
    seen = [rises(Noise(SIZES, 0.4 + 0.01 * rng.standard_normal((6, 3)))) for _ in range(200)]
    assert sum(one is not None for one in seen) <= 20


def test_the_budget_for_a_wanted_loss() -> None:
    found = advise(SIZES, measured(power, 4, 0.001), 0, wanted=0.225)["budget"]  # 2 / sqrt(n) = 0.025
    assert found["size"] == pytest.approx(6400, rel=0.3) and found["low"] <= 6400 <= (found["high"] or np.inf)
    assert found["times"] == pytest.approx(found["size"] / LAST, rel=1e-3)


def test_a_loss_below_the_floor_is_out_of_reach() -> None:
    found = advise(SIZES, measured(steep, 4, 0.001), 0, wanted=0.25)["budget"]
    assert found["size"] is None and found["high"] is None
    assert found["refused"].startswith(
        "a loss of 0.25 is out of reach of more documents like these: the curve comes no"
    )


def test_noise_is_split_into_the_seeds_own_and_the_rest() -> None:
    rng = np.random.default_rng(1)
    losses = 0.03 * rng.standard_normal((1, 400)) + 0.01 * rng.standard_normal((6, 400))
    noise = Noise(SIZES, losses)
    assert np.sqrt(noise.variances) == pytest.approx([np.hypot(0.03, 0.01)] * 6, rel=0.1)
    few = Noise(SIZES, losses[:, :5])
    drawn = few.draws(20_000, 0)
    assert drawn.mean(axis=0) == pytest.approx(few.means, abs=1e-3)
    # t of 4 degrees of freedom for what is common: twice the variance.
    assert drawn.var(axis=0) == pytest.approx(2 * few.errors**2, rel=0.25)
    assert np.corrcoef(drawn.T)[0, 1] > 0.7


def test_equal_seeds_have_no_noise() -> None:
    losses = np.repeat(power(SIZES)[:, None], 3, axis=1)
    found = advise(SIZES, losses, 0)
    assert found["noise"] == 0 and found["low"] == found["mean"] == found["high"]
    assert found["next"]["gain"] == pytest.approx(power(LAST) - power(LAST + 1000), rel=0.1)


def test_a_share_becomes_what_it_lacks() -> None:
    assert as_loss(np.array([0.75]), "higher") == [0.25] and as_loss(np.array([3.0]), "lower") == [3.0]
