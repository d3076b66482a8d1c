"""How much a cheap score must let through."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from gotd_ray import config
from gotd_ray.choosing.recall import AMONG_THE_BEST, FITTED, cut_for, may_miss, sample_share


@pytest.mark.parametrize("count", [0, 1, 98, 99, 156, 157, AMONG_THE_BEST, 1000, 10**5])
def test_what_may_be_missed_is_the_binomials(count: int) -> None:
    found = may_miss(count)
    assert found < 0 or binom.cdf(found, count, 0.03) <= 0.05
    assert binom.cdf(found + 1, count, 0.03) > 0.05


def test_the_cut_passes_over_as_many_as_it_may() -> None:
    exact = np.arange(2000.0)
    cheap = exact.copy()
    cheap[[3, 70]] = 5000.0, 6000.0  # of the best 200, two that the cheap score does not see; one may be missed
    shown = cut_for(cheap, exact, 0.1)
    assert (shown.best, shown.missed, shown.cut) == (200, 1, 5000.0)
    cheap[3] = 3.0
    assert cut_for(cheap, exact, 0.1).cut == 199.0
    assert cut_for(cheap, exact, 0.04).cut == math.inf  # 80 show nothing


def test_its_confidence_holds() -> None:
    """A corpus whose cheap score misses some of the best by chance: a sample's cut serves 19 times of 20."""
    draw = np.random.default_rng(0)
    n, depth, wrong, cuts = 40_000, 0.05, 0, []
    exact = np.sort(draw.normal(size=n))
    cheap = exact + draw.normal(size=n) * 0.7
    best = cheap[: int(depth * n)]
    for _ in range(200):
        some = np.sort(draw.choice(n, 4000, replace=False))
        shown = cut_for(cheap[some], exact[some], depth)
        cuts.append((cheap <= shown.cut).mean())
        wrong += (best <= shown.cut).mean() < 0.97
    assert wrong <= 18  # of 200 at 5%: more than 18 have the probability 0.6%
    assert 0.1 < np.median(cuts) < 0.9  # it cuts something off all the same


def test_where_the_cheap_score_does_not_serve_more_is_let_through() -> None:
    draw = np.random.default_rng(1)
    exact = draw.normal(size=20_000)
    shares = [
        (cheap <= cut_for(cheap, exact, 0.02).cut).mean()
        for cheap in (exact + draw.normal(size=20_000) * noise for noise in (0.01, 0.5, 2.0, 100.0))
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.03
    assert shares[-1] > 0.9


def test_the_sample_grows_with_what_must_be_shown(tmp_path: Path) -> None:
    def share(candidates: int, cascade: object) -> float:
        run = {"out": str(tmp_path), "corpus": {"paths": "c"}, "target": {"paths": "t"}, "select": {"budget": 1000}}
        return sample_share(candidates, config.Run.model_validate(run | {"encoder": {"cascade": cascade}}))

    assert share(10**6, 0.2) == FITTED / 10**6
    assert share(10**6, "auto") == AMONG_THE_BEST / 1000
    assert share(2000, "auto") == 1.0
