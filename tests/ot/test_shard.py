"""The same bits however the candidates are cut, ordered and repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.ot.exact import from_grid, from_units, to_grid
from gotd_ray.ot.fit import Level, fit, ladder, mean_cost
from gotd_ray.ot.kernel import side
from gotd_ray.ot.shard import Shard, make_segments, segment_bounds, segment_count, shard_segments


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids (n,), vectors (n, d) float16, target (m, d)."""
    rng = np.random.default_rng(0)
    n, m, d = 3000, 40, 16
    centres = rng.normal(size=(6, d))
    x = centres[rng.integers(0, 6, n)] + rng.normal(size=(n, d))
    y = centres[rng.integers(0, 3, m)] + rng.normal(size=(m, d))
    ids = np.array([rng.bytes(16).hex() for _ in range(n)], dtype="S32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return ids, x.astype(np.float16), y / np.linalg.norm(y, axis=1, keepdims=True)


def make_shards(ids: np.ndarray, x: np.ndarray, shards: int) -> list[Shard]:
    count = segment_count(len(ids))
    bounds = segment_bounds(count)
    made = []
    for part in shard_segments(count, shards):
        mine = (ids >= bounds[part.start]) & (ids < bounds[part.stop])
        made.append(Shard(make_segments(ids[mine], x[mine], count, part)))
    return made


def solve(shards: list[Shard], y: np.ndarray, segments: int, room: int = 10**6) -> tuple[np.ndarray, float]:
    b = np.full(len(y), 1 / len(y))
    rows = {stride: sum(s.support(stride) for s in shards) for stride in (1, 4, 8, 16, 32, 64)}
    mass = {stride: from_units(sum(s.mass(stride) for s in shards)) for stride in rows}
    moments = np.sum([s.moments(mass[1]) for s in shards], axis=0)
    target = side(torch.tensor(y), torch.tensor(b), 0.05)
    solution = fit(
        lambda g, stride, how: np.sum([s.columns(target, g, mass[stride], stride, how) for s in shards], axis=0),
        ladder(rows.__getitem__, len(y), segments, room),
        b,
        epsilon=0.05,
        tolerance=1e-5,
        max_passes=200,
    )
    return solution.g, mean_cost(moments, y, b)


@pytest.mark.parametrize("shards", [2, 3, 7, 64, 100])
def test_g_has_the_same_bits_for_any_number_of_shards(corpus, shards: int) -> None:
    ids, x, y = corpus
    count = segment_count(len(ids))
    g, cost = solve(make_shards(ids, x, 1), y, count)
    held = [shard for shard in make_shards(ids, x, shards) if shard.segments]
    other, other_cost = solve(held, y, count)
    assert g.tobytes() == other.tobytes()
    assert cost == other_cost


def test_g_has_the_same_bits_for_any_number_of_threads(corpus) -> None:
    ids, x, y = corpus
    count = segment_count(len(ids))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, four = (Shard(make_segments(ids, x, count, range(count)), threads=threads) for threads in (1, 4))
        assert solve([one], y, count)[0].tobytes() == solve([four], y, count)[0].tobytes()
    finally:
        torch.set_num_threads(before)


def test_the_first_pass_of_a_shard_has_the_bits_of_all_others(tmp_path: Path) -> None:
    """A thread that has just begun multiplied small tiles on all cores, and rounded some entries otherwise."""
    rng = np.random.default_rng(0)
    ids = np.array(sorted(rng.bytes(16).hex() for _ in range(5)), dtype="S32")
    x, y = rng.normal(size=(5, 8)).astype(np.float16), rng.normal(size=(20, 8))
    code = (
        "import sys, numpy as np, torch; from gotd_ray.ot.kernel import one_thread_each, side;"
        "from gotd_ray.ot.shard import How, Shard, make_segments;"
        "held = np.load(sys.argv[1]); torch.set_num_threads(2);"
        "shard = Shard(make_segments(held['ids'], held['x'], 1, range(1)))\n"
        "with one_thread_each():\n"
        "    to = side(torch.from_numpy(held['y']), torch.full((20,), 0.05), 0.5)\n"
        "    first, second = (shard.columns(to, np.zeros(20), 5.0, how=How(keep=True)) for _ in range(2))\n"
        "assert (first == second).all(), first - second"
    )
    path = tmp_path / "points.npz"
    np.savez(path, ids=ids, x=x, y=y)
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment, timeout=1000)


def test_order_and_repetition_of_rows_change_nothing(corpus) -> None:
    ids, x, y = corpus
    count = segment_count(len(ids))
    order = np.random.default_rng(1).permutation(np.r_[np.arange(len(ids)), np.arange(300)])
    shuffled = [Shard(make_segments(ids[order], x[order], count, range(count)))]
    assert solve(shuffled, y, count)[0].tobytes() == solve(make_shards(ids, x, 1), y, count)[0].tobytes()


@pytest.mark.parametrize("given_as", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_side_is_laid_out_row_by_row_and_leaves_its_points_as_they_were(corpus, given_as, dtype) -> None:
    points = torch.from_numpy(corpus[2]).to(given_as)
    before = points.clone()
    made = side(points, torch.full((len(points),), 1 / len(points)), 0.1, dtype=dtype)
    assert torch.equal(points, before)
    assert made.scaled.is_contiguous() and made.scaled.dtype == dtype
    torch.testing.assert_close(made.scaled.double(), points.double().T * (2 / 0.1 / np.log(2)))


def test_mean_cost_is_the_mean_of_all_costs(corpus) -> None:
    ids, x, y = corpus
    shards = make_shards(ids, x, 3)
    b = np.full(len(y), 1 / len(y))
    cost = ((x[:, None].astype(float) - y[None]) ** 2).sum(-1).mean()
    assert mean_cost(np.sum([s.moments(len(ids)) for s in shards], axis=0), y, b) == pytest.approx(cost, 1e-9)


def test_levels_end_with_an_exact_one_of_all_candidates_and_start_no_smaller_than_the_target(corpus) -> None:
    ids, x, _ = corpus
    (shard,) = make_shards(ids, x, 1)
    for room in (0, 10**6):
        levels = ladder(shard.rows, 40, segment_count(len(ids)), room)
        assert levels[-1] == Level(1, len(ids), kept=room > 0)
        assert [level.stride for level in levels] == sorted((level.stride for level in levels), reverse=True)
        assert levels[0].rows >= 40
        assert levels[0].stride > 1


def test_a_solve_by_kept_plans_agrees_with_an_exact_one(corpus) -> None:
    ids, x, y = corpus
    count = segment_count(len(ids))
    by_kept, exact = (solve(make_shards(ids, x, 1), y, count, room)[0] for room in (10**6, 0))
    assert np.abs(by_kept - exact).max() < 1e-4 * 0.05 * 40  # residual 1e-5 in all, b_j = 1/40


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.randoms(use_true_random=False))
def test_exact_sums_do_not_depend_on_order(values: list[float], random) -> None:
    limit = float(len(values))
    shuffled = random.sample(values, len(values))
    forward = sum(int(to_grid(np.array(v), limit)) for v in values)
    assert forward == sum(int(to_grid(np.array(v), limit)) for v in shuffled)
    assert float(from_grid(np.array(forward), limit)) == pytest.approx(sum(values), abs=1e-12)


def test_exact_sums_refuse_what_is_not_a_number() -> None:
    with pytest.raises(FloatingPointError):
        to_grid(np.array([np.inf]))


@pytest.mark.parametrize("rows", [1, 131_072, 131_073, 10_000_000])
def test_segments_stay_small_and_their_number_is_a_power_of_two(rows: int) -> None:
    count = segment_count(rows)
    assert count & (count - 1) == 0
    assert rows / count <= 2048
    bounds = segment_bounds(count)
    assert bounds[0] == b"0" * 32
    assert bounds[-1] > b"f" * 32
    assert (np.sort(bounds) == bounds).all()
