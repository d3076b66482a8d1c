"""Sums over any split have the same bits, and none ever wraps around: it is right, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from gotd_ray.ot.exact import from_grid, from_units, to_grid, to_units
from gotd_ray.ot.fit import mean_cost, mean_square
from gotd_ray.ot.shard import Shard, make_segments, segment_bounds, segment_count, shard_segments

N, M, D = 700, 9, 16


def shards_of(ids: np.ndarray, x: np.ndarray, weights: np.ndarray | None, number: int) -> list[Shard]:
    count = segment_count(len(ids))
    bounds, held = segment_bounds(count), []
    for part in shard_segments(count, number):
        mine = (ids >= bounds[part.start]) & (ids < bounds[part.stop])
        held.append(Shard(make_segments(ids[mine], x[mine], count, part, None if weights is None else weights[mine])))
    return held


def points(length: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, float16 candidates and float32 targets of about this length, not around zero."""
    rng = np.random.default_rng(seed)
    ids = np.array(sorted(rng.bytes(16).hex() for _ in range(N)), dtype="S32")
    x, y = (rng.normal(size=(rows, D)) + 1 for rows in (N, M))
    x, y = (z * length / np.sqrt((z * z).sum(1).mean()) for z in (x, y))
    return ids, x.astype(np.float16), y.astype(np.float32)


@pytest.mark.parametrize("square", [1.0, 2.0**20 * 0.99, 2.0**20 * 1.01, 4 * 2.0**20, 5e6, 1e8, 65504.0**2])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_cost_of_vectors_of_any_length_is_right_and_the_same_for_any_split(
    square: float, weighted: bool
) -> None:
    """Above a mean |x|^2 of 4 * 2^20 int64 sums of a fixed limit wrapped around: 5e6 came back as -3.4e6."""
    ids, x, y = points(square**0.5)
    assert np.isfinite(x).all()
    a = np.random.default_rng(1).exponential(size=N) if weighted else None
    masses, b = np.ones(N) if a is None else a, np.full(M, 1 / M)
    found = []
    for number in (1, 2, 7, 64):
        held = shards_of(ids, x, a, number)
        total = from_units(sum(shard.mass() for shard in held))
        found.append(np.sum([shard.moments(total) for shard in held], axis=0))
    assert all((moments == found[0]).all() for moments in found)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    cost = ((x64[:, None] - y64) ** 2).sum(-1)
    assert mean_cost(found[0], y, b) == pytest.approx(masses @ cost @ b / masses.sum(), rel=1e-9)
    assert mean_square(found[0]) == pytest.approx(masses @ (x64**2).sum(1) / masses.sum(), rel=1e-12)
    mean = [from_units(total) for total in found[0][:-1]]
    np.testing.assert_allclose(mean, masses @ x64 / masses.sum(), rtol=1e-9)


def test_vectors_with_the_largest_components_that_float16_holds_have_the_right_moments() -> None:
    ids, x, _ = points(1.0)
    x = np.where(np.random.default_rng(2).random(x.shape) < 0.5, np.float16(65504), np.float16(-65504))
    (shard,) = shards_of(ids, x, None, 1)
    moments = shard.moments(float(N))
    assert mean_square(moments) == D * 65504.0**2
    mean = [from_units(total) for total in moments[:-1]]
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_moments_of_a_vector_that_is_not_finite_are_refused(value: float) -> None:
    ids, x, _ = points(1.0)
    x[5, 3] = value
    (shard,) = shards_of(ids, x, None, 1)
    with pytest.raises(FloatingPointError, match="not finite"):
        shard.moments(float(N))


@pytest.mark.parametrize("value", [1.01, -1.01, 3.9, 4.0, 1e300])
def test_a_term_above_its_bound_is_refused_in_words_that_name_no_setting(value: float) -> None:
    with pytest.raises(FloatingPointError, match=r"above .* bound") as raised:
        to_grid(np.array([0.5, value]))
    assert not any(section in str(raised.value) for section in ("solve.", "encoder."))
    with pytest.raises(FloatingPointError, match="above"):
        to_grid(np.array([value / 4]), share=0.25)
    assert to_grid(np.array([value]), limit=2 * abs(value)) * 2 == np.sign(value) * 2**61


def test_shares_that_add_up_to_the_limit_never_wrap_around() -> None:
    """Each of a million terms at the top of its share, and a thousandth above it for rounding."""
    terms, limit = 1 << 20, 12_345.678
    share = limit / terms
    one = to_grid(np.array([share * (1 + 5e-4), -share * (1 + 5e-4)]), limit, share=share)
    total = one * terms  # int64, as the shards add them
    np.testing.assert_allclose(from_grid(total, limit), [limit * (1 + 5e-4), -limit * (1 + 5e-4)], rtol=1e-9)


def test_units_of_what_is_not_finite_are_refused() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="not finite"):
            to_units(value)
    assert from_units(to_units(-2.5)) == -2.5
