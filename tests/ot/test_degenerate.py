"""Inputs at the edge: each gives the right answer, or an error that names the remedy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import pot_potentials, squared_distances

from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.exact import from_grid, from_units
from gotd_ray.ot.fit import fit, ladder, mean_cost
from gotd_ray.ot.kernel import side
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.shard import Shard, make_segments, segment_count
from gotd_ray.ot.sinkhorn import Solution

EPSILON = 0.1


def points(rows: int, seed: int, shift: float = 0.0) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(rows, 8)) + shift
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


X, Y = points(300, 0), points(12, 1, shift=0.5)


class Fitted:
    """The whole way of a solve in one process, in float32 unless told otherwise."""

    def __init__(self, x: np.ndarray, y: np.ndarray, b: np.ndarray | None = None, epsilon: float = EPSILON, **options):
        rng = np.random.default_rng(2)
        self.x, self.ids = x, np.array(sorted(rng.bytes(16).hex() for _ in x), dtype="S32")
        self.b = np.full(len(y), 1 / len(y)) if b is None else b
        self.precision = options.pop("precision", "float32")
        count = segment_count(len(x))
        shard = Shard(make_segments(self.ids, x, count, range(count)))
        mass = {stride: from_units(shard.mass(stride)) for stride in (1, 4, 16, 64)}
        self.mean_cost = mean_cost(shard.moments(mass[1]), y, self.b)
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        target = side(torch.tensor(y), torch.tensor(self.b), epsilon, dtype=dtype)
        self.solution: Solution = fit(
            lambda g, stride, how: shard.columns(target, g, mass[stride], stride, how),
            ladder(shard.support, len(y), count, 10**9),
            self.b,
            epsilon=epsilon,
            **{"tolerance": 1e-5, "max_passes": 500} | options,
        )
        self.plain = Potentials(y, self.b, self.solution.g, epsilon)

    def scores(self) -> np.ndarray:
        return self.plain.scorer(self.precision)(self.ids, self.x)

    def debiased(self) -> np.ndarray:
        epsilon = self.plain.epsilon
        own = self_potential(self.x, epsilon)
        return Potentials(self.plain.target, self.b, self.solution.g, epsilon, self.x, self.ids, own).scorer(
            self.precision
        )(self.ids, self.x)


def pot_scores(x: np.ndarray, y: np.ndarray, b: np.ndarray | None = None, epsilon: float = EPSILON) -> np.ndarray:
    b = np.full(len(y), 1 / len(y)) if b is None else b
    return pot_potentials(x.astype(float), np.full(len(x), 1 / len(x)), y.astype(float), b, epsilon)[0]


def with_row(rows: np.ndarray, value: float) -> np.ndarray:
    changed = rows.copy()
    changed[3] = value
    return changed


def almost_one(m: int, rest: float) -> np.ndarray:
    """All weight on the first target but ``rest`` on each other one."""
    b = np.full(m, rest)
    b[0] = 1 - b[1:].sum()
    return b


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["candidates", "targets"])
def test_a_broken_vector_is_an_error_that_says_what_it_is_and_names_no_setting(where: str, value: float) -> None:
    x, y = (with_row(X, value), Y) if where == "candidates" else (X, with_row(Y, value))
    with pytest.raises(FloatingPointError, match=r"^a sum over candidates is not finite$"):
        Fitted(x, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        pytest.param(with_row(X, 0), Y, id="a zero candidate"),
        pytest.param(X, with_row(Y, 0), id="a zero target"),
        pytest.param(np.zeros_like(X), Y, id="only zero candidates"),
        pytest.param(np.zeros_like(X), np.zeros_like(Y), id="nothing but zeros"),
        pytest.param(X, np.repeat(Y, 3, 0), id="targets three times"),
        pytest.param(X, Y[:1], id="one target"),
        pytest.param(X[:1], Y, id="one candidate"),
        pytest.param(X[:1], Y[:1], id="one of each"),
        pytest.param(X[:5], Y, id="fewer candidates than targets"),
        pytest.param(np.repeat(X[:1], 300, 0), Y, id="equal candidates"),
        pytest.param(np.repeat(Y[:1], 300, 0), Y, id="candidates equal to one target"),
        pytest.param(np.concatenate([X, 30 * X[:3]]), Y, id="some very long candidates"),
    ],
)
def test_scores_are_those_of_pot(x: np.ndarray, y: np.ndarray) -> None:
    fitted = Fitted(x, y)
    assert fitted.solution.converged
    cost = squared_distances(x.astype(float), y.astype(float))
    assert fitted.mean_cost == pytest.approx(cost.mean(), rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(fitted.scores(), pot_scores(x, y), rtol=1e-6, atol=1e-4)
    assert np.isfinite(fitted.debiased()).all()


def test_equal_candidates_have_equal_scores_and_no_debiased_preference() -> None:
    """Their self-potential is 0: the mean over themselves costs nothing."""
    fitted = Fitted(np.repeat(X[:1], 300, 0), Y)
    assert len(set(fitted.scores())) == 1
    np.testing.assert_allclose(fitted.debiased(), fitted.scores(), atol=1e-6)


def test_candidates_equal_to_the_targets_have_the_self_potential() -> None:
    """OT(t, t) is symmetric: f and g are both p, apart from the constant that g's mean of 0 moves between them."""
    fitted, own = Fitted(Y, Y, epsilon=0.5), self_potential(Y, 0.5)
    np.testing.assert_allclose(fitted.scores() - own.mean(), own, atol=1e-4)
    np.testing.assert_allclose(fitted.solution.g + own.mean(), own, atol=1e-4)
    np.testing.assert_allclose(fitted.scores(), pot_scores(Y, Y, epsilon=0.5), atol=1e-4)


def test_targets_that_stand_several_times_count_as_their_weight() -> None:
    b = np.full(12, 1 / 12)
    np.testing.assert_allclose(Fitted(X, np.repeat(Y, 3, 0)).scores(), Fitted(X, Y, b).scores(), atol=1e-4)


@pytest.mark.parametrize("rest", [1e-6, 1e-12, 1e-30, 1e-300])
def test_with_nearly_all_weight_on_one_target_scores_are_its_distances(rest: float) -> None:
    """f is the squared distance to it, up to the constant <b, C(., y)> shifted into g."""
    fitted = Fitted(X, Y, almost_one(12, rest))
    assert fitted.solution.converged
    np.testing.assert_allclose(fitted.scores(), squared_distances(X, Y[:1])[:, 0], atol=1e-4)


def test_a_target_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="leave the points of no weight out"):
        Fitted(X, Y, almost_one(12, 0.0))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-8, 1e-20])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_tiny_epsilon_stops_at_the_limit_and_says_so(epsilon: float, precision: str) -> None:
    """No number of passes gets there, but nothing breaks: what comes out is feasible, so its value is a lower bound."""
    fitted = Fitted(X, Y, epsilon=epsilon, precision=precision, max_passes=40)
    assert fitted.solution.reason == "max_passes"
    assert fitted.solution.residual > 1e-5
    f, g = fitted.scores(), fitted.solution.g
    assert np.isfinite(f).all()
    slack = squared_distances(X, Y) - f[:, None] - g
    assert slack.min() >= -epsilon * np.log(12) - 1e-5


@pytest.mark.parametrize("epsilon", [1.0, 10.0, 100.0])
def test_a_huge_epsilon_gives_the_mean_cost(epsilon: float) -> None:
    """In float32 too: the ranking is the one by distance from the target's mean."""
    fitted = Fitted(X, Y, epsilon=epsilon)
    np.testing.assert_allclose(fitted.scores(), pot_scores(X, Y, epsilon=epsilon), atol=1e-5 * max(1, epsilon))


@pytest.mark.parametrize("length", [1e-3, 300.0, 2236.0, 60_000.0])
def test_vectors_of_any_length_are_scored_as_unit_vectors_are(length: float) -> None:
    """An encoder that does not normalise: costs, scores and epsilon grow with the square of the length."""
    x, y = ((z * length).astype(np.float16).astype(np.float32) for z in (X, Y))
    fitted = Fitted(x, y, epsilon=EPSILON * length**2)
    cost = squared_distances(x.astype(float), y.astype(float))
    assert fitted.mean_cost == pytest.approx(cost.mean(), rel=1e-9)
    expected = pot_scores(x.astype(float) / length, y.astype(float) / length)
    np.testing.assert_allclose(fitted.scores() / length**2, expected, atol=1e-4)


def test_no_candidates_at_all_sum_to_nothing() -> None:
    count = segment_count(1)
    shard = Shard(make_segments(np.empty(0, "S32"), np.empty((0, 8), np.float16), count, range(count)))
    target = side(torch.tensor(Y), torch.full((12,), 1 / 12, dtype=torch.float64), EPSILON)
    assert (from_grid(shard.columns(target, np.zeros(12), 1.0)) == 0).all()
    assert (shard.rows(), shard.support(), shard.mass()) == (0, 0, 0)
