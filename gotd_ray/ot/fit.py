"""The whole solve over shards, wherever they are: the shards' sums in, potentials out.

The caller supplies a function that asks all shards and adds their int64 answers. One process adds them in a list, Ray
adds them over actors: the same integers, so the same result to the last bit.

A pass over all candidates is dear, one over a sample of them is cheap, and one with a kept plan (``ot.kept``) is next
to nothing. So a sample is solved first; then, where the plan over all candidates may be kept, one exact pass at the
sample's g keeps it, and all that follow use it. Where it would be too large, a pass over all serves only to say what
cheaper ones get wrong (*defect correction*, the nonlinear form of iterative refinement; Brandt 1977, "Multi-level
adaptive solutions", section 5): where a cheap level sees columns u(g) and the level above it c(g), the cheap one is
solved for the columns b u / c instead of b. At its solution c is close to b, and the next pass says how close. The
cheap levels are then a sample with its plan kept, and passes in 8-bit integers, each a third of an exact one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gotd_ray.ot import kept
from gotd_ray.ot.exact import from_grid, from_units
from gotd_ray.ot.kernel import LOG2_E
from gotd_ray.ot.shard import MOST_SEGMENTS, MOST_VARIANCE, How
from gotd_ray.ot.sinkhorn import Correction, Marginal, Solution, State, solve

SAMPLE_TOLERANCE = 0.02
"""Residual at which a sample is left: its own noise is no smaller."""

ROUGH_TOLERANCE = 1e-3
"""Residual at which 8-bit passes are left: their own error is no smaller."""

_INNER_GAIN = 0.1
"""By how much a cheap level reduces a residual; more would be lost in its difference from the level above."""

_INNER_PASSES = 12
_KEPT_SHARE = 0.75
"""Share of the tolerance at which passes with a kept plan stop; the rest is for what they get wrong."""

KEPT_BYTES = 1024 * 10**6
"""Memory for kept plans over all shards, where nobody says."""

_UNBELIEVED = 64
"""Tolerances: whatever error of a column is larger in one segment of a sample, its plan is made anew all the same."""

_FLOOR = 1e-30

_RATIO = 8.0
"""Bound on b u / (c b): far from the solution the difference of two levels says little."""


@dataclass(frozen=True)
class Level:
    """What one pass runs over: every stride-th segment, in 8-bit integers or in the precision of the solve; and whether
    the plan is kept."""

    stride: int
    rows: int
    rough: bool = False
    kept: bool = False

    def how(self, base: np.ndarray | None = None) -> How:
        """The arithmetic of a pass: with a base, by the plan that is kept of it."""
        return How(rough=self.rough, keep=self.kept and base is None, base=base)


ColumnSums = Callable[[np.ndarray, int, How], np.ndarray]
"""(g (m,), stride, arithmetic) -> (m,) int64 grid sums over all shards."""


def levels(
    rows_at: Callable[[int], int],
    target_rows: int,
    segments: int,
    rough: bool = False,
    room: int = KEPT_BYTES,
    held_at: Callable[[int], int] | None = None,
) -> list[Level]:
    """From a sample of about the target's size over a sixteenth of the candidates, or more, to all of them.

    Segments are random samples, so the potentials of some are close to those of all: the closer, the more rows there
    are for each target.

    Args:
        rows_at: stride -> candidates of positive weight in every stride-th segment.
        segments: of the whole corpus.
        rough: whether 8-bit passes pay, where a plan cannot be kept.
        room: bytes for kept plans over all shards.
        held_at: the same as ``rows_at`` of all candidates, where some have weight 0: their plan is kept too.
    """
    fits = [s for s in (16, 8, 4) if s <= segments // 2 and rows_at(s) >= (2 if s == 4 else 4) * target_rows]
    strides = fits[:1]
    while strides and strides[-1] * 4 <= segments // 2 and rows_at(strides[-1] * 4) >= target_rows:
        strides.append(strides[-1] * 4)

    def level(stride: int) -> Level:
        rows = rows_at(stride)
        keeps = kept.BYTES * (held_at or rows_at)(stride) * target_rows <= room
        return Level(stride, rows, rough=rough and stride > 1 and not keeps, kept=keeps)

    sampled, whole = [level(stride) for stride in reversed(strides)], level(1)
    eight_bits = [Level(1, whole.rows, rough=True)] if rough and not whole.kept else []
    return [*sampled, *eight_bits, whole]


def mean_cost(moments: np.ndarray, target: np.ndarray, b: np.ndarray) -> float:
    """The mean of C_ij under a x b, exactly: E|x|^2 + E|y|^2 - 2 E[x].E[y], from the shards' moments (d + 1,)."""
    y = target.astype(np.float64)
    return float(mean_square(moments) + b @ (y * y).sum(1) - 2 * centre(moments) @ (b @ y))


def mean_square(moments: np.ndarray) -> float:
    """The mean of |x|^2 over the candidates, from the shards' moments (d + 1,)."""
    return from_units(moments[-1])


def centre(moments: np.ndarray) -> np.ndarray:
    """(d,) the mean of the candidates, from the shards' moments (d + 1,)."""
    return np.array([from_units(total) for total in moments[:-1]])


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
    """Solve on each level in turn, each from the last one's g; the last level decides.

    Args:
        start: (m,) a guess of g, such as an earlier run's. Where it is good, the last level begins with it.
        resume: the state of an earlier call, as ``on_pass`` gave it.
        on_pass: called after passes over all candidates only.
    """
    ladder = _Ladder(column_sums, plan, b, epsilon, tolerance)
    if resume and resume.level >= len(plan):  # from a machine with 8-bit passes, which this one has not
        start, resume = resume.g, None
    state = resume or ladder.begin(start)
    while True:
        number, level = state.level, plan[state.level]
        last, sampled = number == len(plan) - 1, level.stride > 1
        if level.rough and not sampled and not state.history:
            state.scale = ladder.defect(state)
        enough = tolerance if last else max(tolerance, SAMPLE_TOLERANCE if sampled else ROUGH_TOLERANCE)
        found = solve(
            ladder.marginal(level, state),
            b,
            epsilon=epsilon,
            tolerance=enough * _KEPT_SHARE if level.kept and last else enough,
            max_passes=max_passes,
            state=state,
            correct=ladder.correction(number, state),
            leap=not last,
            on_pass=(lambda _: None) if sampled else on_pass,
        )
        if not last:
            state = State.at(found.g, level=number + 1, work=state.work)
            continue
        error = ladder.error(state) if level.kept and found.converged else 0.0
        if not found.converged or found.residual + error <= tolerance:
            return replace(found, residual_error=error, kept_passes=state.work[2])
        state.base = None  # what the kept plan gets wrong may count: an exact pass looks


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
        return State.at(start, work=state.work)

    def columns(self, g: np.ndarray, level: Level, state: State) -> np.ndarray:
        """(m,) the columns that a level sees, counted in the state; those of a kept plan, or of all candidates in 8
        bits, with the known defect."""
        if level.kept:
            return self._by_kept(g, level, state)
        state.work[int(level.rough)] += self._share(level)
        columns = from_grid(self._sums(g, level.stride, level.how()))
        return columns * state.scale if level.rough and level.stride == 1 else columns

    def _by_kept(self, g: np.ndarray, level: Level, state: State) -> np.ndarray:
        """By the kept plan, or exact where none is kept or g has moved too far from it; that plan is then kept."""
        state.work[2] += self._share(level)
        if state.base is not None and kept.in_reach((g - state.base) * (LOG2_E / self._epsilon)):
            columns = from_grid(self._sums(g, level.stride, level.how(state.base))) * state.scale
            return columns / columns.sum()
        state.work[0] += self._share(level)
        columns = from_grid(self._sums(g, level.stride, level.how()))
        state.base, state.at_base = g, columns
        state.scale = _ratio(columns, from_grid(self._sums(g, level.stride, level.how(g))))
        return columns

    def error(self, state: State) -> float:
        """What the kept plan gets wrong at the state's g (L1), with two standard deviations for each column.

        Their squares are measured on the largest sample, and fall as the rows grow in number. 0 where an exact pass has
        just been made.
        """
        if state.base is None or state.at_base is None or np.array_equal(state.g, state.base):
            return 0.0
        level = self._sample() or self._plan[-1]
        state.work[2] += self._share(level)
        most = min(MOST_VARIANCE, (_UNBELIEVED * self._tolerance) ** 2)
        how = How(base=state.base, grown=self._b / np.maximum(state.at_base, _FLOOR), most=most)
        variance = from_grid(self._sums(state.g, level.stride, how), most * MOST_SEGMENTS) * self._share(level)
        return 2 * float(np.sqrt(variance).sum())

    def _share(self, level: Level) -> float:
        return level.rows / self._plan[-1].rows

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
        exact, rough = (Level(sample.stride, sample.rows, rough=rough) for rough in (False, True))
        return _ratio(self.columns(state.g, exact, state), self.columns(state.g, rough, state))

    def correction(self, number: int, state: State) -> Correction | None:
        """The step of level ``number`` by a cheaper one, or None where there is none."""
        level, cheap = self._plan[number], self._sample()
        if level.stride > 1 or level.kept or cheap is None:
            return None

        def correct(g: np.ndarray, columns: np.ndarray, residual: float) -> np.ndarray:
            inner = State.at(g, work=state.work)
            seen = self.columns(g, cheap, inner)
            aim = self._b * _ratio(seen, columns)
            aim /= aim.sum()
            known = {g.tobytes(): seen}  # the inner solve begins with the pass that was just made

            def marginal(at: np.ndarray) -> np.ndarray:
                first = known.pop(at.tobytes(), None)
                return self.columns(at, cheap, inner) if first is None else first

            wanted = max(_INNER_GAIN * residual, 0.1 * self._tolerance)
            return solve(
                marginal,
                aim,
                epsilon=self._epsilon,
                tolerance=wanted,
                max_passes=_INNER_PASSES,
                state=inner,
                leap=True,
            ).g

        return correct


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.clip(np.maximum(above, _FLOOR) / np.maximum(below, _FLOOR), 1 / _RATIO, _RATIO)
