"""The whole solve over shards, wherever they are: the shards' sums in, potentials out.

The caller supplies a function that asks all shards and adds their int64 answers. One process adds them in a list, Ray
adds them over actors: the same integers, so the same result to the last bit.

A pass over all candidates is dear, one over a sample of them is cheap, and one in 8-bit integers costs a third. So a
pass over all serves only to say what the cheap ones get wrong (*defect correction*, the nonlinear form of iterative
refinement; Brandt 1977, "Multi-level adaptive solutions", section 5): where a cheap level sees columns u(g) and the
level above it c(g), the cheap one is solved for the columns b u / c instead of b. At its solution c is close to b,
and the next pass says how close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gotd_ray.ot.exact import from_grid
from gotd_ray.ot.shard import MOMENT_LIMIT
from gotd_ray.ot.sinkhorn import Correction, Marginal, Solution, State, solve

SAMPLE_TOLERANCE = 0.02
"""Residual at which a sample is left: its own noise is no smaller."""

ROUGH_TOLERANCE = 1e-3
"""Residual at which 8-bit passes are left: their own error is no smaller."""

_INNER_GAIN = 0.1
"""By how much a cheap level reduces a residual; more would be lost in its difference from the level above."""

_INNER_PASSES = 12
_RATIO = 8.0
"""Bound on b u / (c b): far from the solution the difference of two levels says little."""


@dataclass(frozen=True)
class Level:
    """What one pass runs over: every stride-th segment, in 8-bit integers or in the precision of the solve."""

    stride: int
    rows: int
    rough: bool = False


ColumnSums = Callable[[np.ndarray, Level], np.ndarray]
"""(g (m,), level) -> (m,) int64 grid sums over all shards."""


def levels(rows_at: Callable[[int], int], target_rows: int, segments: int, rough: bool = False) -> list[Level]:
    """From a sample of about the target's size over a sixteenth of the candidates, or more, to all of them.

    Segments are random samples, so the potentials of some are close to those of all: the closer, the more rows there
    are for each target.

    Args:
        rows_at: stride -> candidates in every stride-th segment.
        segments: of the whole corpus.
        rough: whether 8-bit passes pay.
    """
    fits = [s for s in (16, 8, 4) if s <= segments // 2 and rows_at(s) >= (2 if s == 4 else 4) * target_rows]
    strides = fits[:1]
    while strides and strides[-1] * 4 <= segments // 2 and rows_at(strides[-1] * 4) >= target_rows:
        strides.append(strides[-1] * 4)
    sampled = [Level(stride, rows_at(stride), rough) for stride in reversed(strides)]
    whole = Level(1, rows_at(1))
    return [*sampled, Level(1, whole.rows, True), whole] if rough else [*sampled, whole]


def mean_cost(moments: np.ndarray, target: np.ndarray, b: np.ndarray) -> float:
    """The mean of C_ij under a x b, exactly: E|x|^2 + E|y|^2 - 2 E[x].E[y], from the shards' moments (d + 1,)."""
    means = from_grid(moments, MOMENT_LIMIT)
    y = target.astype(np.float64)
    return float(means[-1] + b @ (y * y).sum(1) - 2 * means[:-1] @ (b @ y))


def centre(moments: np.ndarray) -> np.ndarray:
    """(d,) the mean of the candidates, from the shards' moments (d + 1,)."""
    return from_grid(moments, MOMENT_LIMIT)[:-1]


def fit(
    column_sums: ColumnSums,
    plan: list[Level],
    b: np.ndarray,
    *,
    epsilon: float,
    tolerance: float,
    max_passes: int,
    start: np.ndarray | None = None,
    resume: State | None = None,
    on_pass: Callable[[State], None] = lambda _: None,
) -> Solution:
    """Solve on each level in turn, each from the last one's g; the last level is exact and decides.

    Args:
        start: (m,) a guess of g, such as an earlier run's. Where it is good, the last level begins with it.
        resume: the state of an earlier call, as ``on_pass`` gave it.
        on_pass: called after passes over all candidates only.
    """
    ladder = _Ladder(column_sums, plan, b, epsilon, tolerance)
    state = resume or ladder.begin(start)
    while True:
        number, level = state.level, plan[state.level]
        last, sampled = number == len(plan) - 1, level.stride > 1
        if level.rough and not sampled and not state.history:
            state.scale = ladder.defect(state)
        found = solve(
            ladder.marginal(level, state),
            b,
            epsilon=epsilon,
            tolerance=tolerance if last else max(tolerance, SAMPLE_TOLERANCE if sampled else ROUGH_TOLERANCE),
            max_passes=max_passes,
            state=state,
            correct=ladder.correction(number, state),
            leap=not last,
            on_pass=(lambda _: None) if sampled else on_pass,
        )
        if last:
            return found
        state = State.at(found.g, level=number + 1, work=state.work)


class _Ladder:
    """The levels of one solve, and how one corrects another."""

    def __init__(self, sums: ColumnSums, plan: list[Level], b: np.ndarray, epsilon: float, tolerance: float):
        self._sums, self._plan, self._b, self._epsilon, self._tolerance = sums, plan, b, epsilon, tolerance
        self._known: tuple[bytes, np.ndarray] | None = None

    def begin(self, start: np.ndarray | None) -> State:
        """At the last level if one pass says that the guess is no worse than a sample's g, else at the first."""
        if start is None:
            return State.at(np.zeros_like(self._b))
        state = State.at(start)
        columns = self.columns(start, self._plan[-1], state)
        if np.abs(columns - self._b).sum() <= SAMPLE_TOLERANCE:
            state.level = len(self._plan) - 1
            self._known = start.tobytes(), columns
        return state

    def columns(self, g: np.ndarray, level: Level, state: State) -> np.ndarray:
        """(m,) the columns that a level sees, counted in the state; a full rough level's with the known defect."""
        state.work[int(level.rough)] += level.rows / self._plan[-1].rows
        columns = from_grid(self._sums(g, level))
        return columns * state.scale if level.rough and level.stride == 1 else columns

    def marginal(self, level: Level, state: State) -> Marginal:
        def columns(g: np.ndarray) -> np.ndarray:
            known, self._known = self._known, None
            return known[1] if known and known[0] == g.tobytes() else self.columns(g, level, state)

        return columns

    def _sample(self) -> Level | None:
        """The largest sample."""
        sampled = [level for level in self._plan if level.stride > 1]
        return sampled[-1] if sampled else None

    def defect(self, state: State) -> np.ndarray:
        """(m,) exact over rough columns, as a sample sees them: what 8 bits get wrong is much the same everywhere."""
        sample = self._sample()
        if sample is None:
            return np.ones_like(self._b)
        exact = self.columns(state.g, Level(sample.stride, sample.rows), state)
        return _ratio(exact, self.columns(state.g, sample, state))

    def correction(self, number: int, state: State) -> Correction | None:
        """The step of level ``number`` by a cheaper one, or None where there is none."""
        level, cheap = self._plan[number], self._sample()
        if level.stride > 1 or cheap is None:
            return None

        def correct(g: np.ndarray, columns: np.ndarray, residual: float) -> np.ndarray:
            seen = self.columns(g, cheap, state)
            aim = self._b * _ratio(seen, columns)
            aim /= aim.sum()
            known = {g.tobytes(): seen}  # the inner solve begins with the pass that was just made

            def marginal(at: np.ndarray) -> np.ndarray:
                first = known.pop(at.tobytes(), None)
                return self.columns(at, cheap, state) if first is None else first

            wanted = max(_INNER_GAIN * residual, 0.1 * self._tolerance)
            return solve(
                marginal,
                aim,
                epsilon=self._epsilon,
                tolerance=wanted,
                max_passes=_INNER_PASSES,
                state=State.at(g),
                leap=True,
            ).g

        return correct


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    floor = 1e-30
    return np.clip(np.maximum(above, floor) / np.maximum(below, floor), 1 / _RATIO, _RATIO)
