"""A kept plan: what passes with it get wrong, when it is made anew, and that a solve which lost it goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import residual_of

from gotd_ray.ot import kept
from gotd_ray.ot.anderson import Iterate
from gotd_ray.ot.exact import from_grid, from_units
from gotd_ray.ot.fit import State, fit, ladder
from gotd_ray.ot.kernel import LOG2_E, Side, side
from gotd_ray.ot.local import solve_local
from gotd_ray.ot.shard import How, Shard, make_segments, segment_count
from gotd_ray.ot.sinkhorn import Solution

EPSILON = 0.05
B = np.full(40, 1 / 40)


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and vectors of 3,000 candidates, 40 targets; on the sphere, in clusters."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 24))
    x, y = (centres[rng.integers(0, 6, n)] + rng.normal(size=(n, 24)) for n in (3000, 40))
    x, y = (points / np.linalg.norm(points, axis=1, keepdims=True) for points in (x, y))
    ids = np.array(sorted(rng.bytes(16).hex() for _ in x), dtype="S32")
    return ids, x.astype(np.float16), y.astype(np.float32)


def shard_of(corpus: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[Shard, Side]:
    ids, x, y = corpus
    count = segment_count(len(ids))
    weights = np.random.default_rng(1).random(len(ids))
    shard = Shard(make_segments(ids, x, count, range(count), weights), threads=2)
    return shard, side(torch.from_numpy(y), torch.from_numpy(B), EPSILON)


def columns(shard: Shard, target: Side, g: np.ndarray, **how: object) -> np.ndarray:
    return from_grid(shard.columns(target, g, from_units(shard.mass()), how=How(**how)))  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0.0, 0.002, 0.02, 0.2])
def test_columns_by_a_kept_plan_are_the_exact_ones_but_for_its_rounding(corpus, step: float) -> None:
    shard, target = shard_of(corpus)
    base = np.random.default_rng(2).normal(scale=0.1, size=40)
    g = base + np.random.default_rng(3).normal(scale=step, size=40)
    assert np.abs(columns(shard, target, base, keep=True) - columns(shard, target, base)).sum() < 1e-6
    wrong, deviations, moved = wrong_at(shard, target, base, g)
    assert wrong <= 2 * deviations + 1e-6
    assert wrong < 0.01 * moved + 1e-6


def wrong_at(shard: Shard, target: Side, base: np.ndarray, g: np.ndarray) -> tuple[float, float, float]:
    """At g, by the plan of the base set right there: L1 error of the columns, the standard deviations that are said of
    it, in all, and how far the columns have moved."""
    exact, by_kept = (columns(shard, target, base, **how) for how in ({}, {"base": base}))
    wanted, found = columns(shard, target, g), columns(shard, target, g, base=base) * exact / by_kept
    variance = columns(shard, target, g, base=base, grown=wanted / exact)
    return (
        float(np.abs(found / found.sum() - wanted).sum()),
        float(np.sqrt(variance).sum()),
        float(np.abs(wanted - exact).sum()),
    )


def test_a_shard_that_does_not_have_the_plan_makes_it_and_answers_in_the_same_bits(corpus) -> None:
    (first, target), (anew, _) = shard_of(corpus), shard_of(corpus)
    base, g = np.zeros(40), np.linspace(0, 0.1, 40)
    first.columns(target, base, 1500.0, how=How(keep=True))
    assert (
        first.columns(target, g, 1500.0, how=How(base=base)) == anew.columns(target, g, 1500.0, how=How(base=base))
    ).all()
    first.columns(target, g, 1500.0, 2, How(keep=True))  # of half the segments: that of all is gone
    answers = [shard.columns(target, g, 1500.0, how=How(base=base)) for shard in (first, anew)]
    assert (answers[0] == answers[1]).all()


def test_rows_that_are_alike_err_each_in_its_own_way() -> None:
    """Candidates on the axes: every row of the plan has the same two entries, whose errors would add up unseen."""
    n, m = 400, 40
    ids = np.array([format(i, "032x") for i in range(n)], dtype="S32")
    shard = Shard(make_segments(ids, np.eye(m)[np.arange(n) % m].astype(np.float16), 1, range(1)))
    target = side(torch.eye(m), torch.from_numpy(B), 0.3)
    wrong, deviations, moved = wrong_at(shard, target, np.zeros(m), np.random.default_rng(0).normal(scale=0.1, size=m))
    assert 1e-5 < wrong < 2 * deviations < 0.02 * moved


def hub(rows: int, powers: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half the mass on a few candidates that lie nearest to one of 40 targets: where its column falls, all their other
    entries grow by 2^powers, and with them what those got wrong."""
    m, rng = 40, np.random.default_rng(seed)
    near = np.concatenate([np.full((rows, 1), powers * EPSILON * np.log(2) / 2), np.zeros((rows, m - 1))], axis=1)
    near[:, 1:] += rng.normal(size=(rows, m - 1)) * 0.25 * EPSILON
    x = np.concatenate([near, np.eye(m)[1:]])
    weights = np.r_[np.full(rows, 0.5 / rows), np.full(m - 1, 0.5 / (m - 1))]
    return x.astype(np.float32), np.eye(m, dtype=np.float32), weights


def knots(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates between two knots of 20 equal targets each: by chance, both columns can be right at g0."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.eye(6, dtype=np.float32)[:2], 20, axis=0)
    between = rng.normal(0.08, 0.05, rows)
    x = rng.normal(size=(rows, 6)) * 0.1
    x[:, 0], x[:, 1] = between, -between
    return x.astype(np.float32), y, np.full(rows, 1 / rows)


@pytest.mark.parametrize(
    ("problem", "epsilon"),
    [(hub(8, powers, seed), EPSILON) for powers in (8, 10) for seed in range(4)]
    + [(knots(rows, seed), 0.1) for rows in (8, 16) for seed in range(10)],
)
def test_a_plan_is_believed_only_as_far_as_its_rounding_allows(problem, epsilon: float) -> None:
    x, y, weights = problem
    found = solve_local(x, y, epsilon=epsilon, tolerance=1e-3, a=weights)
    b = np.full(len(y), 1 / len(y))
    assert found.converged
    assert residual_of(x.astype(float), y.astype(float), weights, b, found.g, epsilon) <= 1e-3


@pytest.mark.parametrize("distance", [-1.0, 1.0])
def test_a_plan_serves_until_factors_are_too_far_apart(distance: float) -> None:
    powers = np.zeros(9)
    powers[0] = distance * kept.REACH
    assert kept.in_reach(powers)
    powers[0] *= 1.01
    assert not kept.in_reach(powers)


@pytest.mark.parametrize(("epsilon", "tolerance"), [(0.1, 0.1), (0.06, 0.01), (0.06, 1e-3), (0.03, 0.01)])
def test_where_one_column_holds_all_mass_and_falls_the_residual_is_the_true_one(
    epsilon: float, tolerance: float
) -> None:
    """All candidates lie nearest to one target, by 30 to 44 powers of 2; the entries of the others were lost."""
    rng = np.random.default_rng(0)
    others = np.eye(8)[1] + 0.05 * rng.normal(size=(19, 8))
    y = np.concatenate([np.eye(8)[:1], others / np.linalg.norm(others, axis=1, keepdims=True)])
    between = rng.uniform(30, 44, 100 if tolerance > 2e-3 else 30) * epsilon * np.log(2)
    angle = np.arccos(np.clip(between / np.sqrt(8), -1, 1)) - np.pi / 4
    x = np.repeat(np.eye(8)[:1], 100, axis=0)
    x[len(x) - len(angle) :, :2] = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    first = 1 - 0.5 * len(angle) / len(x)
    b = np.array([first, *[(1 - first) / 19] * 19])
    found = solve_local(x.astype(np.float32), y.astype(np.float32), epsilon=epsilon, tolerance=tolerance, b=b)
    assert found.converged
    true = residual_of(x.astype(np.float32).astype(float), y.astype(np.float32).astype(float),
                       np.full(len(x), 1 / len(x)), b, found.g, epsilon)  # fmt: skip
    assert true <= tolerance


def test_candidates_of_no_weight_count_towards_the_memory_of_the_plan(corpus) -> None:
    ids, x, _ = corpus
    count = segment_count(len(ids))
    shard = Shard(make_segments(ids, x, count, range(count), (np.arange(len(ids)) < 30).astype(float)))
    room = kept.BYTES * 40 * 200  # of some times the 30 of positive weight
    assert ladder(shard.support, 40, count, room, shard.support)[-1].kept
    assert not ladder(shard.support, 40, count, room, shard.rows)[-1].kept


def solved(
    corpus, tolerance: float, resume: State | None = None, saved: list[bytes] | None = None, room: int = 10**6
) -> Solution:
    shard, target = shard_of(corpus)
    count = segment_count(len(corpus[0]))
    mass = {stride: from_units(shard.mass(stride)) for stride in (1, 4, 16, 64)}
    return fit(
        lambda g, stride, how: shard.columns(target, g, mass[stride], stride, how),
        ladder(shard.support, 40, count, room),
        B,
        epsilon=EPSILON,
        tolerance=tolerance,
        max_passes=200,
        resume=resume,
        on_pass=lambda state: saved.append(state.to_bytes()) if saved is not None else None,
    )


def test_a_solve_whose_shards_lost_the_plan_ends_in_the_same_bits(corpus) -> None:
    saved: list[bytes] = []
    whole = solved(corpus, 1e-6, saved=saved)
    assert whole.kept_passes > whole.passes > 1
    for state in saved[1::3]:
        resumed = solved(corpus, 1e-6, State.from_bytes(state))
        assert resumed.g.tobytes() == whole.g.tobytes()
        assert resumed.history == whole.history


def test_a_solve_without_a_plan_that_goes_on_from_any_pass_ends_in_the_same_bits(corpus) -> None:
    saved: list[bytes] = []
    whole = solved(corpus, 1e-3, saved=saved, room=0)
    assert whole.kept_passes == 0 and len(saved) > 1
    for state in saved:
        resumed = solved(corpus, 1e-3, State.from_bytes(state), room=0)
        assert resumed.g.tobytes() == whole.g.tobytes()
        assert resumed.passes == pytest.approx(whole.passes)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-5])
def test_the_residual_that_is_said_is_that_of_an_exact_pass(corpus, tolerance: float) -> None:
    found = solved(corpus, tolerance)
    shard, target = shard_of(corpus)
    exact = np.abs(columns(shard, target, found.g) - B).sum()
    assert found.converged and exact <= tolerance
    assert found.residual == pytest.approx(exact, abs=0.1 * tolerance)


def test_a_step_out_of_reach_makes_the_plan_anew(corpus) -> None:
    """Of one target that starts far too low no entry is kept."""
    shard, target = shard_of(corpus)
    mass = from_units(shard.mass())
    asked: list[How] = []

    def sums(g: np.ndarray, stride: int, how: How) -> np.ndarray:
        asked.append(how)
        return shard.columns(target, g, mass, stride, how)

    start = np.zeros(40)
    start[0] = -3 * kept.REACH * EPSILON / LOG2_E
    state = State(Iterate.at(start))
    found = fit(
        sums, ladder(shard.support, 40, 1, 10**6), B, epsilon=EPSILON, tolerance=1e-3, max_passes=99, resume=state
    )
    assert found.converged
    assert sum(how.keep for how in asked) > 1


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-9])
def test_a_tolerance_however_small_is_kept_with_a_kept_plan(tolerance: float) -> None:
    """The squares of a plan's errors must not vanish among sums of columns."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(40, 32))
        x, y = (centres[rng.integers(k, size=n)] + rng.normal(size=(n, 32)) for n, k in ((400, 40), (30, 8)))
        x, y = (points / np.linalg.norm(points, axis=1, keepdims=True) for points in (x, y))
        a, b = (weights / weights.sum() for weights in (rng.exponential(size=n) + 0.01 for n in (400, 30)))
        found = solve_local(x, y, a=a, b=b, epsilon=0.45, tolerance=tolerance, precision="float64")
        assert found.kept_passes > 0
        assert residual_of(x, y, a, b, found.g, 0.45) <= tolerance
