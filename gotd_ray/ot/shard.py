"""A part of the candidates, and the sums it contributes to one solve.

Candidates are cut into *segments* by their id alone. Ids are content hashes, so segments are uniform random samples,
of nearly equal size, and the same ones however files are ordered and work is split. A shard is a run of segments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gotd_ray.ot.exact import to_grid
from gotd_ray.ot.kernel import Side, Workspace, column_marginal

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


def make_segments(ids: np.ndarray, vectors: np.ndarray, count: int, wanted: range) -> list[Segment]:
    """Sort, drop repeated ids (equal text has equal vectors) and cut into the wanted segments.

    Args:
        ids: (n,) S32, in any order, all within the wanted segments; vectors: (n, d).
        count: segments of the whole corpus.
    """
    ids, first = np.unique(ids, return_index=True)
    bounds = segment_bounds(count)
    cuts = np.searchsorted(ids, bounds[wanted.start : wanted.stop + 1]) if len(wanted) else np.zeros(1, int)
    assert not len(ids) or (cuts[0] == 0 and cuts[-1] == len(ids)), "an id lies outside this shard"
    return [
        Segment(index, ids[lo:hi], vectors[first[lo:hi]])
        for index, lo, hi in zip(wanted, cuts[:-1], cuts[1:], strict=True)
    ]


class Shard:
    """Segments held in memory, and the pass over them.

    On CPU, segments are dealt to ``threads`` Python threads and every torch operation runs on one: products and sums
    have the same bits however many cores there are, no operation waits for the slower core, and a tile stays in one
    core's cache. The caller sets torch to one thread.
    """

    def __init__(self, segments: list[Segment], device: str = "cpu", threads: int = 1):
        self.segments = segments
        self._vectors: dict[int, Tensor] = {
            s.index: torch.from_numpy(np.ascontiguousarray(s.vectors)).to(device) for s in segments
        }
        self._pool = ThreadPoolExecutor(threads)
        self._own = threading.local()

    def rows(self, stride: int = 1) -> int:
        """Candidates in every stride-th segment."""
        return sum(len(s.ids) for s in self.segments if s.index % stride == 0)

    def each(self, function: Callable[[Segment], np.ndarray], stride: int = 1) -> list[np.ndarray]:
        """``function`` of every stride-th segment, in their order, several at once."""
        return list(self._pool.map(function, [s for s in self.segments if s.index % stride == 0]))

    def moments(self, total_rows: int) -> np.ndarray:
        """(d + 1,) int64 grid sums of x and of |x|^2, which give the mean cost exactly."""

        def sums(segment: Segment) -> np.ndarray:
            x = segment.vectors.astype(np.float64)
            return to_grid(np.append(x.sum(0), (x * x).sum()), MOMENT_LIMIT * total_rows)

        return np.sum(self.each(sums), axis=0)

    def columns(self, target: Side, g: np.ndarray, total_rows: int, stride: int = 1) -> np.ndarray:
        """(m,) int64 grid sums of the plan's columns over every stride-th segment, for unit weights.

        ``total_rows`` is the count of all shards at this stride: the sums of all shards, read with
        :func:`gotd_ray.ot.exact.from_grid`, are the column marginal for weights ``1 / total_rows``.
        """
        potential = torch.from_numpy(np.ascontiguousarray(g)).to(target.scaled.device)

        def sums(segment: Segment) -> np.ndarray:
            if not hasattr(self._own, "work"):
                self._own.work = Workspace()
            columns = column_marginal(self._vectors[segment.index], None, target, potential, self._own.work)
            return to_grid(columns.cpu().numpy(), float(total_rows))

        return np.sum(self.each(sums, stride) or [np.zeros(target.size, np.int64)], axis=0)


MOMENT_LIMIT = 2.0**20
"""Bound on |x|^2 in the moments: unit vectors need 1, unnormalised encoders some hundreds."""
