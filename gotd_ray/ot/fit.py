"""The whole solve over shards, wherever they are: the shards' sums in, potentials out.

    for each level, from the smallest sample of the candidates to all of them:
        Sinkhorn from the g of the level below, until the residual is within the level's tolerance
        (passes by the kept plan, wherever there is one and g is close to where it was kept; else exact)
    what the rounding of the kept plan may have done counts towards the last residual:
        if both together are above the tolerance, keep the plan of this g, and go on

An exact pass over all candidates is expensive, one over a sample of them is cheap, and one by a kept plan
(:mod:`gotd_ray.ot.kept`) costs next to nothing. So most fits make one exact pass over all candidates.

The caller supplies a function that asks all shards and adds their int64 answers. One process adds them in a list, Ray
adds them over actors: the same integers, so the same result to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from gotd_ray.ot import kept
from gotd_ray.ot.anderson import Iterate
from gotd_ray.ot.exact import from_grid, from_units
from gotd_ray.ot.kernel import LOG2_E
from gotd_ray.ot.shard import MOST_SEGMENTS, MOST_VARIANCE, How
from gotd_ray.ot.sinkhorn import Solution, solve

SAMPLE_TOLERANCE = 0.02
"""Residual at which a sample is left: its own noise is no smaller."""

_KEPT_SHARE = 0.75
"""Share of the tolerance at which passes with a kept plan stop; the rest is for what they get wrong."""

_UNBELIEVED = 64
"""Bound on a column's error in one segment, in tolerances: a plan with so much is rejected anyway."""

_FLOOR = 1e-30
"""Mass of a target that no candidate reaches: quotients stay finite."""

_RATIO = 8.0
"""Bound on the factor that a kept plan's columns are corrected by."""

ColumnSums = Callable[[np.ndarray, int, How], np.ndarray]
"""(g (m,), stride, arithmetic) -> (m,) int64 grid sums over all shards."""


@dataclass(frozen=True)
class Level:
    """What a pass runs over."""

    stride: int
    """Every so many segments; 1 is all candidates."""

    rows: int
    """Candidates of positive weight."""

    kept: bool = False
    """Whether the plan over them is kept."""


def ladder(
    rows_at: Callable[[int], int],
    target_rows: int,
    segments: int,
    room: int,
    held_at: Callable[[int], int] | None = None,
) -> list[Level]:
    """The levels of a fit, from the smallest sample to all candidates.

    Segments are random samples, so the potentials of some are close to those of all: the closer, the more rows there
    are for each target. The largest sample is every 16th segment if that has 4 rows a target, else every 8th if that
    has 4, else every 4th if that has 2; below it stands each 4th part of the last with a row a target.

    Args:
        rows_at: stride -> candidates of positive weight in every stride-th segment.
        target_rows: m.
        segments: of the whole corpus.
        room: bytes for kept plans over all shards; a plan that is larger is not kept.
        held_at: as ``rows_at`` of all candidates, where some have weight 0: their rows are kept too.
    """
    held_at = held_at or rows_at
    most = segments // 2
    strides = [s for s, least in ((16, 4), (8, 4), (4, 2)) if s <= most and rows_at(s) >= least * target_rows][:1]
    while strides and strides[-1] * 4 <= most and rows_at(strides[-1] * 4) >= target_rows:
        strides.append(strides[-1] * 4)
    return [
        Level(stride, rows_at(stride), kept=kept.BYTES * held_at(stride) * target_rows <= room)
        for stride in (*reversed(strides), 1)
    ]


@dataclass(frozen=True)
class Base:
    """The exact pass whose plan is kept."""

    g: np.ndarray
    """(m,), where it was made."""

    columns: np.ndarray
    """(m,), what it saw."""

    scale: np.ndarray
    """(m,), ``columns`` over what the kept plan gives there: its passes are multiplied by it."""


@dataclass
class State:
    """All that a fit knows between two passes over all candidates: resumed from here it ends in the same bits."""

    iterate: Iterate
    base: Base | None = None
    """None: no plan is kept."""

    passes: float = 0.0
    """Exact passes made so far on all levels, in shares of all candidates; ``kept_passes`` those by a kept plan."""

    kept_passes: float = 0.0

    drift: float | None = None
    """Residual of the g that the fit began with, if any, over all candidates."""

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        arrays = {f"iterate.{name}": getattr(self.iterate, name) for name in ("x", "images", "errors", "fallback")}
        if self.base is not None:
            arrays |= {f"base.{name}": array for name, array in vars(self.base).items()}
        arrays["numbers"] = np.array([self.passes, self.kept_passes, self.iterate.best, *self.iterate.residuals])
        if self.drift is not None:
            arrays["drift"] = np.array(self.drift)
        return save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            ValueError: it is something else, cut short or damaged.
        """
        try:
            arrays = load_tensors(data)
            passes, kept_passes, best, *residuals = arrays.pop("numbers").tolist()
            drift = float(arrays.pop("drift")) if "drift" in arrays else None
            parts: dict[str, dict[str, np.ndarray]] = {"iterate": {}, "base": {}}
            for name, array in arrays.items():
                part, _, field = name.partition(".")
                parts[part][field] = array
            iterate = Iterate(**parts["iterate"], best=best, residuals=residuals)
            found = cls(iterate, Base(**parts["base"]) if parts["base"] else None, passes, kept_passes, drift)
            if found._holds_together():
                return found
        except (SafetensorError, KeyError, TypeError, ValueError):
            pass
        raise ValueError("it is no state of a solve, or it is broken")

    def _holds_together(self) -> bool:
        """Whether all shapes fit to g's, and all numbers that a step takes are finite."""
        iterate, m, k = self.iterate, len(self.iterate.x), len(self.iterate.images)
        vectors = [iterate.x, iterate.fallback, *(vars(self.base).values() if self.base else ())]
        arrays = [*vectors, iterate.images, iterate.errors]
        return (
            all(vector.shape == (m,) for vector in vectors)
            and iterate.images.shape == iterate.errors.shape == (k, m)
            and all(array.dtype == np.float64 and bool(np.isfinite(array).all()) for array in arrays)
            and bool(np.isfinite([self.passes, self.kept_passes]).all())
            and not np.isnan(iterate.best)
        )


def fit(
    column_sums: ColumnSums,
    levels: list[Level],
    b: np.ndarray,
    *,
    epsilon: float,
    tolerance: float,
    max_passes: int,
    start: np.ndarray | None = None,
    enough: float = 0.0,
    resume: State | None = None,
    on_pass: Callable[[State], None] = lambda _: None,
) -> Solution:
    """Solve on each level in turn, each from the last one's g; the last level decides.

    Args:
        levels: see :func:`ladder`.
        start: (m,) a guess of g, such as an earlier run's. Where one pass over all candidates finds it as good as a
            sample's g, the samples are left out.
        enough: residual up to which ``start`` itself is the solution: that one pass is then all.
        resume: the state of an earlier call, as ``on_pass`` gave it.
        max_passes: on each level.
        on_pass: called after passes over all candidates only.

    Raises:
        FloatingPointError: as :func:`gotd_ray.ot.sinkhorn.solve`.
    """
    *samples, whole = levels
    state = resume or State(Iterate.at(np.zeros_like(b) if start is None else start))
    passes = _Passes(column_sums, state, whole.rows, epsilon)
    run = partial(solve, b=b, epsilon=epsilon, max_passes=max_passes)
    known = passes.columns(whole, start) if start is not None and not resume else None
    if known is not None:
        state.drift = float(np.abs(known - b).sum())
        if state.drift <= enough:
            found = run(partial(passes.columns, whole), tolerance=enough, iterate=state.iterate, known=known)
            found = replace(found, passes=state.passes, kept_passes=state.kept_passes)
            return replace(found, reason="kept", drift=state.drift)
    if not resume and (state.drift is None or state.drift > SAMPLE_TOLERANCE):
        state.base = known = None
        for level in samples:
            near = max(tolerance, SAMPLE_TOLERANCE)
            found = run(partial(passes.columns, level), tolerance=near, iterate=state.iterate, leap=True)
            state.iterate, state.base = Iterate.at(found.g), None
    while True:
        found = run(
            partial(passes.columns, whole),
            tolerance=tolerance * _KEPT_SHARE if whole.kept else tolerance,
            iterate=state.iterate,
            known=known,
            on_pass=lambda: on_pass(state),
        )
        error = passes.rounding((samples or levels)[-1], b, tolerance) if found.converged else 0.0
        if not found.converged or found.residual + error <= tolerance:
            found = replace(found, passes=state.passes, kept_passes=state.kept_passes)
            return replace(found, residual_error=error, drift=state.drift)
        state.base = known = None  # the rounding of the kept plan may count: an exact pass looks


class _Passes:
    """The passes of one fit, counted in its state."""

    def __init__(self, sums: ColumnSums, state: State, rows: int, epsilon: float):
        self._sums, self._state, self._rows, self._epsilon = sums, state, rows, epsilon

    def columns(self, level: Level, g: np.ndarray) -> np.ndarray:
        """(m,) the columns of the plan over a level at g: by the kept plan where there is one that reaches so far."""
        state, share = self._state, level.rows / self._rows
        if level.kept:
            state.kept_passes += share
            base = state.base
            if base is not None and kept.in_reach((g - base.g) * (LOG2_E / self._epsilon)):
                columns = from_grid(self._sums(g, level.stride, How(base=base.g))) * base.scale
                return columns / columns.sum()
        state.passes += share
        columns = from_grid(self._sums(g, level.stride, How(keep=level.kept)))
        if level.kept:
            by_kept = from_grid(self._sums(g, level.stride, How(base=g)))
            scale = np.maximum(columns, _FLOOR) / np.maximum(by_kept, _FLOOR)
            state.base = Base(g, columns, np.clip(scale, 1 / _RATIO, _RATIO))
        return columns

    def rounding(self, level: Level, b: np.ndarray, tolerance: float) -> float:
        """What the kept plan gets wrong at the last g (L1), with two standard deviations for each column.

        Their squares are measured on a level, and fall as the rows grow in number. 0 where the last pass was exact.
        """
        g, base = self._state.iterate.x, self._state.base
        if base is None or np.array_equal(g, base.g):
            return 0.0
        share = level.rows / self._rows
        self._state.kept_passes += share
        most = min(MOST_VARIANCE, (_UNBELIEVED * tolerance) ** 2)
        how = How(base=base.g, grown=b / np.maximum(base.columns, _FLOOR), most=most)
        variance = from_grid(self._sums(g, level.stride, how), most * MOST_SEGMENTS) * share
        return 2 * float(np.sqrt(variance).sum())


def mean_cost(moments: np.ndarray, target: np.ndarray, b: np.ndarray) -> float:
    """The mean of C_ij under a x b, exactly: E|x|^2 + E|y|^2 - 2 E[x].E[y], from the shards' moments (d + 1,)."""
    y = target.astype(np.float64)
    mean = np.array([from_units(total) for total in moments[:-1]])
    return float(mean_square(moments) + b @ (y * y).sum(1) - 2 * mean @ (b @ y))


def mean_square(moments: np.ndarray) -> float:
    """The mean of |x|^2 over the candidates, from the shards' moments (d + 1,)."""
    return from_units(moments[-1])
