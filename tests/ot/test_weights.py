"""Weights on candidates and targets, zeros included, against POT and against what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import pot_potentials, squared_distances

from gotd_ray.ot.exact import from_grid, from_units, to_units
from gotd_ray.ot.fit import Level, fit, mean_cost
from gotd_ray.ot.kernel import side, soft_minimum
from gotd_ray.ot.shard import Shard, make_segments, segment_bounds, segment_count, shard_segments
from gotd_ray.ot.weights import by_source, thin

EPSILON = 0.1


class Problem:
    """Points on the sphere with weights, a third of them zero on either side."""

    def __init__(self, n: int = 600, m: int = 30, d: int = 8, seed: int = 0):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 0.5
        self.ids = np.array(sorted(rng.bytes(16).hex() for _ in range(n)), dtype="S32")
        self.x = x / np.linalg.norm(x, axis=1, keepdims=True)
        self.y = y / np.linalg.norm(y, axis=1, keepdims=True)
        self.a = rng.exponential(size=n) * (rng.random(n) > 1 / 3)
        self.b = rng.exponential(size=m) * (rng.random(m) > 1 / 3)

    def shards(self, number: int = 1, weights: np.ndarray | None = None) -> list[Shard]:
        count = segment_count(len(self.ids))
        bounds = segment_bounds(count)
        held = []
        for part in shard_segments(count, number):
            mine = (self.ids >= bounds[part.start]) & (self.ids < bounds[part.stop])
            own = (self.a if weights is None else weights)[mine]
            held.append(Shard(make_segments(self.ids[mine], self.x[mine], count, part, own)))
        return held


def solve(shards: list[Shard], y: np.ndarray, b: np.ndarray) -> np.ndarray:
    """g (m,) for positive b, solved far."""
    b = b / b.sum()
    target = side(torch.tensor(y), torch.tensor(b), EPSILON, dtype=torch.float64)
    total = from_units(sum(s.mass() for s in shards))
    return fit(
        lambda g, stride, how: np.sum([s.columns(target, g, total, stride, how) for s in shards], axis=0),
        [Level(1, sum(s.support() for s in shards))],
        b,
        epsilon=EPSILON,
        tolerance=1e-11,
        max_passes=1000,
    ).g


def columns(shards: list[Shard], y: np.ndarray, b: np.ndarray, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """(m,) column sums of one pass at some g: all that a fit asks of the candidates."""
    target = side(torch.tensor(y), torch.tensor(b / b.sum()), EPSILON, dtype=dtype)
    g = np.random.default_rng(9).normal(size=len(y)) / 10
    total = from_units(sum(s.mass() for s in shards))
    return from_grid(np.sum([s.columns(target, g, total) for s in shards], axis=0))


def test_potentials_under_weights_are_those_of_pot() -> None:
    p = Problem()
    some = p.b > 0
    y, b = p.y[some], p.b[some] / p.b.sum()
    g = solve(p.shards(3), y, b)
    f = soft_minimum(
        torch.tensor(p.x), side(torch.tensor(y), torch.tensor(b), EPSILON, dtype=torch.float64), torch.tensor(g)
    )
    taken = p.a > 0
    their_f, their_g = pot_potentials(p.x[taken], p.a[taken] / p.a.sum(), y, b, EPSILON)
    np.testing.assert_allclose(g, their_g, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(f[taken], their_f, rtol=1e-6, atol=1e-9)
    assert np.isfinite(f[~taken]).all()  # candidates of no weight are scored all the same


def test_a_weight_k_is_k_copies() -> None:
    p = Problem(n=200)
    copies = np.random.default_rng(1).integers(0, 4, len(p.ids))
    weighted = columns(p.shards(1, copies.astype(float)), p.y, np.ones(len(p.y)))
    p.x = np.repeat(p.x, copies, axis=0)
    p.ids = np.array([format(i, "032x") for i in range(len(p.x))], dtype="S32")
    copied = columns(p.shards(1, np.ones(len(p.x))), p.y, np.ones(len(p.y)))
    np.testing.assert_allclose(weighted, copied, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_of_the_weights_does_not_matter(scale: float) -> None:
    p = Problem()
    y, b = p.y, np.ones(len(p.y))
    expected = columns(p.shards(), y, b)
    np.testing.assert_allclose(columns(p.shards(1, p.a * scale), y, b), expected, rtol=1e-12)
    np.testing.assert_allclose(columns(p.shards(1, p.a * scale), y, b, torch.float32), expected, rtol=1e-5)


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_the_same_bits_for_any_number_of_shards(shards: int) -> None:
    p = Problem()
    one, many = p.shards(), p.shards(shards)
    b = np.ones(len(p.y))
    assert columns(one, p.y, b).tobytes() == columns(many, p.y, b).tobytes()
    assert one[0].mass() == sum(s.mass() for s in many)
    for held in (one, many):
        total = from_units(sum(s.mass() for s in held))
        for shard in held:
            shard.reweigh(p.ids[::5], 0.3, total)
    assert one[0].mass() == sum(s.mass() for s in many)
    assert columns(one, p.y, b).tobytes() == columns(many, p.y, b).tobytes()


def test_ones_are_no_weights_to_the_last_bit() -> None:
    p = Problem()
    count = segment_count(len(p.ids))
    plain = Shard(make_segments(p.ids, p.x, count, range(count)))
    assert columns([plain], p.y, p.b + 1).tobytes() == columns(p.shards(1, np.ones(600)), p.y, p.b + 1).tobytes()
    assert from_units(plain.mass()) == len(p.ids)


def test_all_weight_on_one_candidate_or_one_target() -> None:
    p = Problem()
    alone = np.zeros(len(p.ids))
    alone[7] = 3.0
    b = p.b + 0.1
    costs = squared_distances(p.x[7:8], p.y)[0]
    # The plan is b itself, so P_ij = a_i b_j exp(...) makes f + g_j the cost; g has mean 0 under b.
    np.testing.assert_allclose(solve(p.shards(2, alone), p.y, b), costs - b @ costs / b.sum(), atol=1e-9)
    assert solve(p.shards(2), p.y[:1], np.ones(1)) == pytest.approx(0, abs=1e-12)


def test_mean_cost_is_that_of_the_weights() -> None:
    p = Problem()
    shards, b = p.shards(3), p.b / p.b.sum()
    total = from_units(sum(s.mass() for s in shards))
    cost = p.a / p.a.sum() @ squared_distances(p.x, p.y) @ b
    assert mean_cost(np.sum([s.moments(total) for s in shards], axis=0), p.y, b) == pytest.approx(cost, 1e-12)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_reweighed_is_the_mixture_and_reset_the_inverse(share: float) -> None:
    p = Problem()
    chosen = np.random.default_rng(2).choice(p.ids, 50, replace=False)
    mixed = (1 - share) * p.a / p.a.sum() + share * np.isin(p.ids, chosen) / len(chosen)
    shards, y, b = p.shards(3), p.y, np.ones(len(p.y))
    total = from_units(sum(s.mass() for s in shards))
    before = columns(shards, y, b)
    for _ in range(2):  # twice is once: the mixture starts from the shard's own weights
        for shard in shards:
            shard.reweigh(chosen, share, total)
    assert from_units(sum(s.mass() for s in shards)) == pytest.approx(1, 1e-12)
    assert sum(s.support() for s in shards) == np.count_nonzero(mixed)
    np.testing.assert_allclose(columns(shards, y, b), columns(p.shards(1, mixed), y, b), rtol=1e-12)
    for shard in shards:
        shard.reset()
    assert columns(shards, y, b).tobytes() == before.tobytes()


def test_of_a_repeated_id_the_largest_weight_counts() -> None:
    p = Problem(n=100)
    order = np.random.default_rng(3).permutation(200)
    ids, x = np.r_[p.ids, p.ids][order], np.r_[p.x, p.x][order]
    weights = np.r_[p.a, p.a[::-1]][order]
    count = segment_count(100)
    held = make_segments(ids, x, count, range(count), weights)
    found = np.concatenate([np.ones(len(s.ids)) if s.weights is None else s.weights for s in held])
    np.testing.assert_array_equal(found, np.maximum(p.a, p.a[::-1]))


def test_masses_add_exactly_over_all_magnitudes_of_float32() -> None:
    values = np.array([2.0**-149, 1.0, 1e38, 1 / 3], np.float32)
    assert from_units(sum(to_units(float(v)) for v in values[:1])) == 2.0**-149
    forward, backward = (sum(to_units(float(v)) for v in part) for part in (values, values[::-1]))
    assert forward == backward
    assert from_units(forward) == pytest.approx(float(values.astype(float).sum()), 1e-15)
    assert from_units(forward - to_units(float(values[2]))) == pytest.approx(4 / 3, 1e-7)


def drawn(shards: list[Shard], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Ids, vectors and weights of the sample that stands for all."""
    ids, x, a = (np.concatenate(part) for part in zip(*(s.draw(k + 1) for s in shards), strict=True))
    kept, weights = thin(ids, a, k)
    return ids[kept], x[kept], weights


def test_without_weights_the_sample_is_the_smallest_ids() -> None:
    p = Problem()
    for weights in (np.ones(600), np.full(600, 0.5)):
        ids, x, masses = drawn(p.shards(3, weights), 100)
        np.testing.assert_array_equal(ids, p.ids[:100])
        np.testing.assert_array_equal(x, p.x[:100])
        assert masses is None


@pytest.mark.parametrize("k", [1, 100, 599, 600, 5000])
def test_the_sample_is_the_same_for_any_number_of_shards_and_has_no_weight_zero(k: int) -> None:
    p = Problem()
    first = drawn(p.shards(1), k)
    for shards in (2, 3, 7):
        other = drawn(p.shards(shards), k)
        for ours, theirs in zip(first, other, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or ours.tobytes() == theirs.tobytes()
    positive = p.ids[p.a > 0]
    assert np.isin(first[0], positive).all()
    assert len(first[0]) == min(k, len(positive))
    if k >= len(positive):
        np.testing.assert_allclose(first[2], p.a[p.a > 0] / p.a.sum(), rtol=1e-12)


def test_the_sample_estimates_sums_and_keeps_the_heavy() -> None:
    """The mean over many draws is the weighted mean; one document with half of the weight is always there."""
    rng = np.random.default_rng(5)
    n, k = 300, 60
    a, value = rng.exponential(size=n), rng.normal(size=n)
    a[3] = a.sum()
    found = []
    for _ in range(400):
        ids = np.array([rng.bytes(16).hex() for _ in range(n)], dtype="S32")
        kept, weights = thin(ids, a, k)
        assert weights is not None
        assert 3 in kept
        found.append(weights @ value[kept])
    assert np.mean(found) == pytest.approx(a @ value / a.sum(), abs=4 * np.std(found) / 20)


def test_sources_get_their_shares_and_keep_their_own_ratios() -> None:
    ids = np.array([c * 32 for c in "abcdac"], dtype="S32")
    sources = np.array(["one", "one", "two", "two", "two", "none"])
    kept, first, b = by_source(ids, np.array([1.0, 3.0, 2.0, 0.0, 6.0, 9.0]), sources, {"one": 1, "two": 3, "none": 0})
    assert [one[:1] for one in kept] == [b"a", b"b", b"c", b"d"]
    np.testing.assert_array_equal(first, [0, 1, 2, 3])
    # a has 1/4 of source one (share 1) and 6/8 of source two (share 3)
    np.testing.assert_allclose(b, [1 / 4 + 3 * 6 / 8, 3 / 4, 3 * 2 / 8, 0])
    with pytest.raises(ValueError, match=r"^the source 'two' has a share, but all of its documents have weight 0$"):
        by_source(ids, np.array([1.0, 1, 0, 0, 0, 1]), sources, {"one": 1, "two": 1, "none": 1})
    for shares in ({"one": 1, "two": 1}, {"one": 1, "two": 1, "none": 0, "three": 0}):
        with pytest.raises(ValueError, match=r"^the shares name \[.*\], the sources are \['none', 'one', 'two'\]$"):
            by_source(ids, None, sources, shares)
