"""Candidates in memory for one pass, and the bare arithmetic that a pass cannot do without.

Only what ``gotd_ray.ot`` needs is imported, so that this runs on a bare machine with a GPU too (benchmarks/gpu).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch

from gotd_ray.ot.kernel import Side, one_thread_each, side, tiles, working_precision
from gotd_ray.ot.shard import Segment, Shard, segment_count

NOISE = 0.02
"""Standard deviation per component: a drawn vector keeps a cosine of about 0.93 with its original."""


def in_memory(x: np.ndarray, ids: np.ndarray | None = None, device: str = "cpu") -> Shard:
    """Candidates (n, d) cut into segments without a copy; on CPU they are dealt to all cores, as in the stages."""
    count = segment_count(len(x))
    ids = np.zeros(len(x), "S32") if ids is None else ids
    cuts = pairwise(len(x) * i // count for i in range(count + 1))
    segments = [Segment(i, ids[low:high], x[low:high]) for i, (low, high) in enumerate(cuts)]
    return Shard(segments, device, threads=(os.cpu_count() or 1) if device == "cpu" else 1)


@contextmanager
def as_in_a_fit(device: str = "cpu") -> Iterator[None]:
    """One thread each, and the precision of products that a fit in float32 has."""
    with one_thread_each(), working_precision("float32", device):
        yield


def uniform_side(y: np.ndarray, epsilon: float, device: str = "cpu") -> Side:
    """Targets (m, d) of equal weight."""
    weights = torch.full((len(y),), 1.0 / len(y), dtype=torch.float64)
    return side(torch.from_numpy(y), weights, epsilon, device=device)


def bare_pass(shard: Shard, target: Side) -> Callable[[], object]:
    """The matmul and the exponential of every tile of the shard, and nothing else."""
    device = target.scaled.device
    ready = {part.index: torch.from_numpy(part.vectors.astype(np.float32)).to(device) for part in shard.segments}
    # Shifted as a whole, so that the exponentials are of ordinary numbers: none overflows.
    bias = target.scaled.new_full((target.size,), -max(float((x @ target.scaled).amax()) for x in ready.values()))
    own = threading.local()

    def of_segment(part: Segment) -> np.ndarray:
        if not hasattr(own, "buffer"):
            own.buffer = target.scaled.new_empty((target.tile_rows(), target.size))
        x = ready[part.index]
        for rows in tiles(len(x), target.tile_rows()):
            torch.addmm(bias, x[rows], target.scaled, out=own.buffer[: rows.stop - rows.start]).exp2_()
        return np.empty(0)

    return lambda: shard.each(of_segment)


def grown(real: np.ndarray, rows: int) -> np.ndarray:
    """(rows, d) float16 vectors of length 1, real ones drawn again and again with noise; made block by block."""
    x = np.empty((rows, real.shape[1]), np.float16)
    rng = np.random.default_rng(0)
    for start in range(0, rows, 50_000):
        block = x[start : start + 50_000]
        drawn = real[rng.integers(len(real), size=len(block))].astype(np.float32)
        drawn += NOISE * rng.standard_normal(drawn.shape, np.float32)
        block[:] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return x
