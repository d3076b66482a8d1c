"""The linear theory's estimate: on losses that follow it, and on losses that do not."""

from __future__ import annotations

import numpy as np
import pytest

from gotd_ray.curves.noise import Noise
from gotd_ray.curves.theory import gains, linear

SIZES = np.array([5.0, 10.0, 20.0, 40.0])
SCORES = np.linspace(-1.0, -0.2, 40)
MEAN = 0.1


def losses(slope: float) -> np.ndarray:
    fallen = np.array([(SCORES[: int(size)] - MEAN).sum() for size in SIZES])
    return (3 + slope * fallen)[:, None] + np.array([[-0.01, 0.0, 0.01]])


def test_the_slope_is_found_again_and_predicts_the_largest_size() -> None:
    found = linear(Noise(SIZES, losses(0.02)), SCORES, MEAN)
    assert found["slope"] == pytest.approx(0.02) and found["refused"] is None
    assert found["predicted"] == pytest.approx(losses(0.02)[-1].mean())
    assert found["error"] == pytest.approx(0, abs=1e-9)


def test_a_loss_that_saturates_is_over_predicted() -> None:
    values = np.maximum(losses(0.02), losses(0.02)[2])
    found = linear(Noise(SIZES, values), SCORES, MEAN)
    assert found["error"] == pytest.approx(values[-1].mean() - losses(0.02)[-1].mean())


def test_a_loss_that_does_not_fall_is_refused() -> None:
    assert "does not fall" in str(linear(Noise(SIZES, losses(-0.02)), SCORES, MEAN)["refused"])
    assert linear(Noise(SIZES, losses(0.0)), np.full(40, MEAN), MEAN)["slope"] == 0


def test_a_source_gains_by_how_far_it_lies_below_the_corpus() -> None:
    assert gains(0.5, {"far": 0.3, "near": -0.1, "as all": 0.1}, 0.1) == {
        "near": pytest.approx(0.1),
        "as all": 0.0,
        "far": pytest.approx(-0.1),
    }
