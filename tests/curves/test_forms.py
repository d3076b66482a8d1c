"""The laws are fitted as non-negative least squares have it, and known curves are found again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from gotd_ray.curves.forms import FORMS, Form, fit

SIZES = 50.0 * 2.0 ** np.arange(6)
FLAT, POWER, RECTIFIED = FORMS


@pytest.mark.parametrize("form", [POWER, RECTIFIED], ids=lambda form: form.name)
def test_the_best_of_the_grid_is_what_scipy_finds(form: Form) -> None:
    rng = np.random.default_rng(3)
    variances = rng.uniform(0.5, 2.0, 6) * 1e-3
    rising, steep = np.linspace(0.2, 0.6, 6), 40 / SIZES**1.5  # no part of the law, and no constant
    curves = np.stack([0.2 + 3 / SIZES**0.5 + rng.normal(0, 0.02, 6), rising, steep])
    found = fit(form, SIZES, curves, variances)
    root = 1 / np.sqrt(variances)
    grid = form.grid(SIZES / SIZES[0])
    for row, curve in enumerate(curves):
        residuals = []
        for beta, known in grid:
            x = 1 / (known**beta + (SIZES / SIZES[0]) ** beta)
            (b, e), residual = nnls(np.stack([x, np.ones(6)], axis=1) * root[:, None], curve * root)
            residuals.append(residual)
            if beta == found.beta[row] and known * SIZES[0] == pytest.approx(found.known[row]):
                assert (found.B[row], found.E[row]) == pytest.approx((b, e), abs=1e-7)
        ours = float(np.linalg.norm((found.at(SIZES)[row] - curve) * root))
        assert ours == pytest.approx(min(residuals), rel=1e-6, abs=1e-6)


def test_a_power_law_is_found_again() -> None:
    found = fit(POWER, SIZES, 2 / SIZES**0.5 + 0.2, np.ones(6))
    told = found.parameters()
    assert (told["beta"], told["E"]) == (pytest.approx(0.5, rel=0.04), pytest.approx(0.2, abs=0.01))
    assert found.at(3200.0)[0, 0] == pytest.approx(2 / 3200**0.5 + 0.2, abs=5e-4)


def test_a_rectified_law_is_found_again_where_a_power_law_is_not() -> None:
    def law(n: np.ndarray) -> np.ndarray:
        return 60 / (60 + n**0.9) + 0.15

    rectified, power = (fit(form, SIZES, law(SIZES), np.ones(6)) for form in (RECTIFIED, POWER))
    told = rectified.parameters()
    made = told["B"] / (told["D0"] + SIZES ** told["beta"]) + told["E"]
    assert made == pytest.approx(rectified.at(SIZES)[0])
    assert np.abs(law(SIZES) - rectified.at(SIZES)[0]).max() < 2e-3 < np.abs(law(SIZES) - power.at(SIZES)[0]).max()
    assert rectified.at(3200.0)[0, 0] == pytest.approx(law(np.array(3200.0)), abs=2e-3)


def test_flat_is_the_mean_weighted_by_precision() -> None:
    found = fit(FLAT, SIZES[:2], np.array([[1.0, 4.0]]), np.array([1.0, 0.5]))
    assert found.at(SIZES).tolist() == [pytest.approx([3.0] * 6)]
    assert found.parameters() == {"E": pytest.approx(3.0)}
