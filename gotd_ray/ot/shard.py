"""A part of the candidates, and the sums it contributes to one solve.

Candidates are cut into *segments* by their id alone. Ids are content hashes, so segments are uniform random samples,
of nearly equal size, and the same ones however files are ordered and work is split. A shard is a run of segments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gotd_ray.ot import kept
from gotd_ray.ot.exact import to_grid, to_units
from gotd_ray.ot.kernel import LOG2_E, Side, Workspace, column_marginal, matmul_precision, tiles
from gotd_ray.ot.weights import distinct, priorities

T = TypeVar("T")

_FOLDED = 8  # segments whose answers wait to be put together

SEGMENT_ROWS = 2048
"""Rows a segment holds on average at the most: a few tiles."""

MIN_SEGMENTS = 64
"""Even small problems can be split over this many shards and sampled at this grain."""


def segment_count(rows: int) -> int:
    """How many segments a corpus of so many rows is cut into: a power of two that depends on nothing else."""
    count = MIN_SEGMENTS
    while rows > count * SEGMENT_ROWS:
        count *= 2
    return count


def segment_bounds(count: int) -> np.ndarray:
    """The first id of each segment and one past the last: (count + 1,) bytes, S32 hexadecimal."""
    bits = count.bit_length() - 1
    starts = [format(i << (128 - bits), "032x") for i in range(count)] + ["g"]  # 'g' sorts behind every hex digit
    return np.array(starts, dtype="S32")


def shard_segments(count: int, shards: int) -> list[range]:
    """Segments of each shard: contiguous, nearly equal, empty where there are more shards than segments."""
    return [range(count * i // shards, count * (i + 1) // shards) for i in range(shards)]


@dataclass(frozen=True)
class Segment:
    """Candidates whose ids share a prefix, sorted by id, each id once."""

    index: int
    ids: np.ndarray
    """(r,) S32."""

    vectors: np.ndarray
    """(r, d) float16 (or wider)."""

    weights: np.ndarray | None = None
    """(r,) float64, at least 0, of any scale; None is ones."""


def make_segments(
    ids: np.ndarray, vectors: np.ndarray, count: int, wanted: range, weights: np.ndarray | None = None
) -> list[Segment]:
    """Sort, drop repeated ids (equal text has equal vectors) and cut into the wanted segments.

    Args:
        ids: (n,) S32, in any order, all within the wanted segments; vectors: (n, d).
        count: segments of the whole corpus.
        weights: (n,), at least 0; of a repeated id the largest counts, whatever the order. None is ones.
    """
    ids, first, weights = distinct(ids, weights)
    bounds = segment_bounds(count)
    cuts = np.searchsorted(ids, bounds[wanted.start : wanted.stop + 1]) if len(wanted) else np.zeros(1, int)
    assert not len(ids) or (cuts[0] == 0 and cuts[-1] == len(ids)), "an id lies outside this shard"
    return [
        Segment(index, ids[lo:hi], vectors[first[lo:hi]], _unless_ones(weights, lo, hi))
        for index, lo, hi in zip(wanted, cuts[:-1], cuts[1:], strict=True)
    ]


def _unless_ones(weights: np.ndarray | None, low: int, high: int) -> np.ndarray | None:
    return None if weights is None or (weights[low:high] == 1).all() else weights[low:high]


MOST_SEGMENTS = 2**20
"""Whose sums of variances fit the grid."""

MOST_VARIANCE = 1 / MOST_SEGMENTS
"""Of a column in one segment. It stands for an error of 1e-3 in one column: a plan with so much is rejected anyway."""


@dataclass(frozen=True)
class How:
    """The arithmetic of a pass: exact, unless something else is said."""

    keep: bool = False
    """Exact, and the plan at this g is kept for the passes that name it as their base."""

    base: np.ndarray | None = None
    """(m,), an earlier g of the same segments: by the plan that is kept of it (see :mod:`gotd_ray.ot.kept`). A shard
    that does not have it makes it first."""

    grown: np.ndarray | None = None
    """(m,), with a base: not the columns are asked for, but the variance of what rounding the kept plan does to them,
    where they have grown by so much since the base. See :func:`gotd_ray.ot.kept.variance`."""

    most: float = MOST_VARIANCE
    """With ``grown``, a bound on a column's variance in one segment: what is above it counts as it. The sums are read
    with ``from_grid(..., most * MOST_SEGMENTS)``: the smaller it is, the finer they are."""


PLAIN = How()


class Shard:
    """Segments held in memory, and the pass over them.

    On CPU, segments are dealt to ``threads`` Python threads and every torch operation runs on one: products and sums
    have the same bits however many cores there are, no operation waits for the slower core, and a tile stays in one
    core's cache. The caller sets torch to one thread besides.
    """

    def __init__(self, segments: list[Segment], device: str = "cpu", threads: int = 1):
        self.segments = segments
        self._vectors: dict[int, Tensor] = {s.index: torch.from_numpy(s.vectors).to(device) for s in segments}
        self._device = device
        # Each of these begins with all cores, whatever the caller has, and keeps them for its first product.
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._own = threading.local()
        self._kept = _Kept()
        self.reset()

    def reset(self) -> None:
        """Weights as the segments have them."""
        self._weights = {s.index: _Weights.of(len(s.ids), s.weights, self._device) for s in self.segments}

    def reweigh(self, ids: np.ndarray, share: float, total: float) -> None:
        """Mix the segments' own weights with a uniform measure: (1 - share) a_i / sum(a) + share [i in ids] / |ids|.

        Calls do not add up: each starts from the segments' own weights. A shard that is made anew has those again.

        Args:
            ids: (k,) S32, distinct, those of other shards too; share: 0 to 1.
            total: sum(a) over all shards, of the segments' own weights.
        """
        chosen = np.sort(ids)

        def mixed(segment: Segment) -> np.ndarray:
            own = np.ones(len(segment.ids)) if segment.weights is None else segment.weights
            place = np.minimum(np.searchsorted(chosen, segment.ids), len(chosen) - 1)
            return own * ((1 - share) / total) + (chosen[place] == segment.ids) * (share / len(chosen))

        found = self.each(mixed)
        self._weights = {
            s.index: _Weights.of(len(s.ids), w, self._device) for s, w in zip(self.segments, found, strict=True)
        }

    def rows(self, stride: int = 1) -> int:
        """Candidates in every stride-th segment."""
        return sum(len(s.ids) for s in self._every(stride))

    def each(self, function: Callable[[Segment], np.ndarray], stride: int = 1) -> list[np.ndarray]:
        """``function`` of every stride-th segment, in their order, several at once."""
        return list(self._pool.map(function, self._every(stride)))

    def fold(self, function: Callable[[Segment], T], together: Callable[[list[T]], T]) -> T:
        """``function`` of all segments, a few at a time put together with what came before them, in their order."""
        found: list[T] = []
        for start in range(0, len(self.segments), _FOLDED):
            found = [together([*found, *self._pool.map(function, self.segments[start : start + _FOLDED])])]
        return found[0]

    def _every(self, stride: int) -> list[Segment]:
        return [s for s in self.segments if s.index % stride == 0]

    def support(self, stride: int = 1) -> int:
        """Candidates of positive weight in every stride-th segment: those that take part in a fit."""
        return sum(self._weights[s.index].support for s in self._every(stride))

    def mass(self, stride: int = 1) -> int:
        """Sum of the weights in every stride-th segment, exact; read sums of it with ``ot.exact.from_units``."""
        return sum(to_units(self._weights[s.index].sum) for s in self._every(stride))

    def draw(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, vectors and weights of the k candidates of largest priority, or few more: this shard's part of
        :func:`gotd_ray.ot.weights.thin`."""
        if all(a.own is None for a in self._weights.values()):  # then by id, and so stand the segments
            before = np.cumsum([0, *(len(s.ids) for s in self.segments)])
            taken = [np.arange(min(max(k - n, 0), len(s.ids))) for n, s in zip(before[:-1], self.segments, strict=True)]
        else:
            found = self.each(lambda s: priorities(s.ids, self._weights[s.index].values))
            every = np.concatenate(found)
            least = np.partition(every, -k)[-k] if k < len(every) else 0.0
            taken = [np.flatnonzero(part >= least) for part in found]
        pairs = list(zip(self.segments, taken, strict=True))
        return (
            np.concatenate([s.ids[rows] for s, rows in pairs]),
            np.concatenate([s.vectors[rows] for s, rows in pairs]),
            np.concatenate([self._weights[s.index].values[rows] for s, rows in pairs]),
        )

    def moments(self, total: float) -> np.ndarray:
        """(d + 1,) sums of a x and of a |x|^2 over ``total``, which give the mean cost exactly.

        As Python's integers of :func:`gotd_ray.ot.exact.to_units`: vectors of any length have their place in them.

        Args:
            total: the mass of all shards.

        Raises:
            FloatingPointError: a vector is not finite.
        """

        def sums(segment: Segment) -> np.ndarray:
            x, a = segment.vectors.astype(np.float64), self._weights[segment.index].own
            squares = x * x
            if a is None:
                found = np.append(x.sum(0), squares.sum())
            else:
                found = np.append((x * a[:, None]).sum(0), (squares.sum(1) * a).sum())
            return np.array([to_units(value) for value in (found / total).tolist()], object)

        return reduce(np.add, self._pool.map(sums, self.segments), np.array(0, object))

    def columns(
        self,
        target: Side,
        g: np.ndarray,
        total: float,
        stride: int = 1,
        how: How = PLAIN,
    ) -> np.ndarray:
        """(m,) int64 grid sums of the plan's columns over every stride-th segment, for weights as they are held.

        Args:
            total: the mass of all shards at this stride: the sums of all shards, read with
                :func:`gotd_ray.ot.exact.from_grid`, are the column marginal for weights ``a_i / total``.
            how: which arithmetic.
        """
        base = how.base
        if base is not None and not self._kept.is_of(target, base, stride):
            self.columns(target, base, total, stride, How(keep=True))
        if how.keep:
            self._kept.begin(target, g, stride)
        if base is None:
            potential = torch.from_numpy(np.ascontiguousarray(g)).to(target.scaled.device)
            sums = partial(self._by_vectors, target, potential, total, how)
        else:
            sums = partial(self._by_plan, target, _factors(g - base, target), total, how)
        found = np.zeros(target.size, np.int64)
        # Products with a vector are twice as fast in MKL as in oneDNN, which "medium" takes for all products.
        with nullcontext() if base is None else matmul_precision("highest"):
            for part in self._pool.map(sums, self._every(stride)):  # added as they come: memory does not grow with n
                found += part
        return found

    def _by_vectors(self, target: Side, potential: Tensor, total: float, how: How, segment: Segment) -> np.ndarray:
        a, x = self._weights[segment.index], self._vectors[segment.index]
        keep = self._kept.room(segment.index, len(x), target) if how.keep else None
        first = segment.index * SEGMENT_ROWS
        columns = column_marginal(x, a.scaled, target, potential, self._work(), keep=keep, first=first)
        return to_grid(columns.cpu().numpy() * a.scale, total, a.sum)

    def _by_plan(self, target: Side, factors: Tensor, total: float, how: How, segment: Segment) -> np.ndarray:
        a, plan, work = self._weights[segment.index], self._kept.plan(segment.index), self._work()
        parts = list(tiles(len(plan), target.tile_rows() // (1 if how.grown is None else 2)))
        if how.grown is None:
            buffers = (work.rows(rows.stop - rows.start, target, factors.dtype) for rows in parts)
            columns = kept.column_marginal(plan, a.scaled, factors, zip(parts, buffers, strict=True))
            return to_grid(columns.cpu().numpy() * a.scale, total, a.sum)
        grown = torch.from_numpy(how.grown).to(factors)
        both = (work.rows(2 * (rows.stop - rows.start), target, factors.dtype) for rows in parts)
        found = kept.variance(plan, a.scaled, factors, grown, zip(parts, both, strict=True))
        variance = np.minimum(found.cpu().numpy() * (a.scale / total) ** 2, how.most)
        return to_grid(variance, how.most * MOST_SEGMENTS)

    def _work(self) -> Workspace:
        """That of this thread."""
        if not hasattr(self._own, "work"):
            self._own.work = Workspace()
        return self._own.work


def _factors(moved: np.ndarray, target: Side) -> Tensor:
    """(m,) exp(moved / epsilon), the largest 1."""
    powers = torch.from_numpy((moved - moved.max()) * (LOG2_E / target.epsilon))
    return powers.exp2().to(target.scaled)


class _Kept:
    """The plan at one g over some segments of a shard. Its memory is used again for the next one."""

    def __init__(self) -> None:
        self._of: tuple[Side, bytes, int] | None = None
        self._plans: dict[int, Tensor] = {}

    def is_of(self, target: Side, g: np.ndarray, stride: int) -> bool:
        if self._of is None or stride % self._of[2]:
            return False
        return self._of[0] is target and self._of[1] == g.tobytes()

    def begin(self, target: Side, g: np.ndarray, stride: int) -> None:
        if self._of is None or self._of[0].size != target.size or self._of[2] < stride:
            self._plans = {}
        self._of = target, g.tobytes(), stride

    def room(self, segment: int, rows: int, target: Side) -> Tensor:
        if segment not in self._plans:
            self._plans[segment] = target.scaled.new_empty((rows, target.size), dtype=torch.uint8)
        return self._plans[segment]

    def plan(self, segment: int) -> Tensor:
        return self._plans[segment]


@dataclass(frozen=True)
class _Weights:
    """The weights of one segment. A pass sees them divided by the largest, so that any scale fits float32."""

    rows: int
    own: np.ndarray | None
    """None is ones."""

    scale: float = 1.0
    scaled: Tensor | None = None

    @classmethod
    def of(cls, rows: int, weights: np.ndarray | None, device: str) -> _Weights:
        if weights is None:
            return cls(rows, None)
        scale = float(weights.max(initial=0.0)) or 1.0
        return cls(rows, weights, scale, torch.from_numpy(weights / scale).to(device))

    @property
    def values(self) -> np.ndarray:
        return np.ones(self.rows) if self.own is None else self.own

    @property
    def support(self) -> int:
        return self.rows if self.own is None else int(np.count_nonzero(self.own))

    @property
    def sum(self) -> float:
        return float(self.rows if self.own is None else self.own.sum())
