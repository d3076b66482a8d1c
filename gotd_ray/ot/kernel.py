"""One pass over candidates: a matmul and an exponential per entry, in tiles, with no n x m array."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from gotd_ray.ot.kept import store

CPU_TILE_ENTRIES = 512 * 1024
"""Entries of a tile on CPU: 2 MB of float32, which stay in a core's second-level cache between matmul and exp."""

GPU_TILE_ENTRIES = 64 * 1024 * 1024
"""Entries of a tile on GPU: 256 MB of float32, enough to fill the device and small beside its memory."""


Precision = Literal["float64", "float32", "bfloat16"]
"""Of the tiles; sums are float64 in each. bfloat16 rounds what is multiplied."""


def dtype_of(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "float64" else torch.float32


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Allow ("medium") or forbid ("highest") bfloat16 inside float32 matmuls, and put the old setting back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Every operation of torch and of BLAS on one thread; the old numbers come back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


LOG2_E = 1 / math.log(2)
"""Scores are kept in base 2: torch's exp2 takes a quarter of the time of its exp (AVX-512, float32)."""


@dataclass(frozen=True)
class Side:
    """A weighted point set that candidates are matched with, laid out for passes at one epsilon.

    With s = log2(e) / epsilon and ``offset_j = log2 b_j - s |y_j|^2``, the base-2 logarithm of
    ``b_j exp((g_j - C_ij) / epsilon)`` is ``2 s x_i.y_j + offset_j + s g_j - s |x_i|^2``: the last term leaves the
    sum over j.
    """

    scaled: Tensor
    """(d, m), 2 s y^T, in the precision of the work."""

    offset: Tensor
    """(m,) float64."""

    epsilon: float

    @property
    def size(self) -> int:
        return self.scaled.shape[1]

    def tile_rows(self) -> int:
        """Rows of candidates that are worked on at once."""
        entries = GPU_TILE_ENTRIES if self.scaled.is_cuda else CPU_TILE_ENTRIES
        return max(64, entries // self.size)

    def bias(self, potential: Tensor) -> Tensor:
        """(m,) in the precision of the work, for g of shape (m,) float64."""
        return (self.offset + potential * (LOG2_E / self.epsilon)).to(self.scaled.dtype)


def side(
    points: Tensor, weights: Tensor, epsilon: float, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Side:
    """Lay out points (m, d) with positive weights (m,) that sum to 1.

    Raises:
        ValueError: a weight is not positive, or epsilon is not.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}: it must be positive")
    y = points.to(device=device, dtype=torch.float64)
    b = weights.to(device=device, dtype=torch.float64)
    if not bool((b > 0).all()):
        raise ValueError("a weight is not positive: leave the points of no weight out")
    factor = 2 * LOG2_E / epsilon
    offset = b.log2() - torch.einsum("md,md->m", y, y) * (LOG2_E / epsilon)
    scaled = torch.mul(y, factor, out=None if y is points else y)  # where y is our own, no more memory is taken
    return Side(scaled=scaled.T.to(dtype).contiguous(), offset=offset, epsilon=epsilon)


class Workspace:
    """The tile's buffers, made once and used for every tile of one thread."""

    def __init__(self) -> None:
        self._held: dict[torch.dtype, Tensor] = {}

    def rows(self, rows: int, like: Side, dtype: torch.dtype) -> Tensor:
        """(rows, m) of any content."""
        held = self._held.get(dtype)
        if held is None or held.shape[0] < rows or held.shape[1] != like.size:
            held = like.scaled.new_empty((max(rows, like.tile_rows()), like.size), dtype=dtype)
            self._held[dtype] = held
        return held[:rows]


def tiles(rows: int, tile_rows: int) -> Iterator[slice]:
    """Slices of nearly equal length, none above tile_rows: no small last tile."""
    count = -(-rows // tile_rows)
    for i in range(count):
        yield slice(rows * i // count, rows * (i + 1) // count)


def _scores(x: Tensor, to: Side, bias: Tensor, work: Workspace) -> Tensor:
    """The base-2 scores (r, m) of one tile x (r, d), in the workspace."""
    x = x.to(device=to.scaled.device, dtype=to.scaled.dtype)
    return torch.addmm(bias, x, to.scaled, out=work.rows(x.shape[0], to, to.scaled.dtype))


def _exponentials(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """2^(scores - top) (r, m) in place, its row sums (r,) and the tops (r,)."""
    top = scores.amax(1, keepdim=True)
    exponentials = scores.sub_(top).exp2_()
    return exponentials, exponentials.sum(1), top[:, 0]


def soft_minimum(x: Tensor, to: Side, g: Tensor, work: Workspace | None = None) -> np.ndarray:
    """The c-transform f_i = -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon).

    Args:
        x: (r, d) points of any float type.
        to: the other side, m points.
        g: (m,) float64, its potential.

    Returns:
        (r,) float64.
    """
    work = work or Workspace()
    bias = to.bias(g)
    parts = []
    for rows in tiles(x.shape[0], to.tile_rows()):
        _, sums, top = _exponentials(_scores(x[rows], to, bias, work))
        square = x[rows].to(top).square().sum(1).double()
        parts.append(square - (top.double() + sums.double().log2()) * (to.epsilon / LOG2_E))
    return torch.cat(parts).cpu().numpy() if parts else np.empty(0)


def column_marginal(
    x: Tensor,
    a: Tensor | None,
    to: Side,
    g: Tensor,
    work: Workspace | None = None,
    *,
    keep: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """Column sums of the plan of (f(g), g) over these rows, whose row sums are then exactly a.

    sum_i a_i P_ij / (sum_k P_ik): the exponentials of the row sums are used for the columns too, so that a whole
    Sinkhorn iteration is one matmul and one exponential per entry.

    Args:
        x: (r, d).
        a: (r,) weights, or None for ones.
        to: the target.
        g: (m,) float64.
        keep: (r, m) uint8, overwritten with the plan's rows for :mod:`gotd_ray.ot.kept`.
        first: number of the first row, among all of the corpus.

    Returns:
        (m,) float64.
    """
    work = work or Workspace()
    bias = to.bias(g)
    total = torch.zeros(to.size, dtype=torch.float64, device=to.scaled.device)
    for rows in tiles(x.shape[0], to.tile_rows()):
        tile = _scores(x[rows], to, bias, work)
        if keep is None:
            exponentials, sums, _ = _exponentials(tile)
        else:
            exponentials = store(tile, keep[rows], work.rows(len(tile), to, torch.int16), first + rows.start)
            sums = exponentials.sum(1)
        weights = sums.reciprocal() if a is None else a[rows].to(sums) / sums
        # Twice as fast as a product with the transposed tile, and the same bits for any number of threads.
        total += exponentials.mul_(weights[:, None]).sum(0)
    return total


@lru_cache(maxsize=1)
def fast_matmul_is_exact() -> bool:
    """Whether "medium" float32 matmuls are as exact as "highest" ones on this CPU.

    On CPUs without bfloat16 tiles, "medium" only changes the library (oneDNN for MKL, 2.4 times faster on AMD) and
    keeps the error; with such tiles it rounds the inputs. Decided by error, not by time, so that a machine always
    decides alike.
    """
    x = torch.nn.functional.normalize(torch.randn(512, 256, generator=torch.Generator().manual_seed(0)), dim=1)
    with matmul_precision("medium"):
        error = (x @ x.T).double() - x.double() @ x.double().T
    return float(error.abs().max()) < 1e-6


def working_precision(precision: Precision, device: str) -> contextlib.AbstractContextManager[None]:
    """The matmuls of a solve: "medium" where that is asked for, or is exact."""
    fast = precision == "bfloat16" or (device == "cpu" and fast_matmul_is_exact())
    return matmul_precision("medium" if fast else "highest")
