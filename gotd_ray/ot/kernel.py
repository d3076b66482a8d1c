"""One pass over candidates: a matmul and an exponential per entry, in tiles, with no n x m array."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

CPU_TILE_ENTRIES = 512 * 1024
"""Entries of a tile on CPU: 2 MB of float32, which stay in a core's second-level cache between matmul and exp."""

GPU_TILE_ENTRIES = 64 * 1024 * 1024
"""Entries of a tile on GPU: 256 MB of float32, enough to fill the device and small beside its memory."""


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Allow ("medium") or forbid ("highest") bfloat16 inside float32 matmuls, and put the old setting back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Side:
    """A weighted point set that candidates are matched with, laid out for passes at one epsilon.

    ``offset_j = log b_j - |y_j|^2 / epsilon``, so that ``log b_j + (g_j - C_ij) / epsilon`` is
    ``2 x_i.y_j / epsilon + offset_j + g_j / epsilon - |x_i|^2 / epsilon``: the last term leaves the sum over j.
    """

    scaled: Tensor
    """(d, m), 2 y^T / epsilon, in the precision of the work."""

    offset: Tensor
    """(m,) float64."""

    epsilon: float

    @property
    def size(self) -> int:
        return self.scaled.shape[1]

    def tile_rows(self) -> int:
        entries = GPU_TILE_ENTRIES if self.scaled.is_cuda else CPU_TILE_ENTRIES
        return max(64, entries // self.size)

    def bias(self, potential: Tensor) -> Tensor:
        """(m,) in the precision of the work, for g of shape (m,) float64."""
        return (self.offset + potential / self.epsilon).to(self.scaled.dtype)


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
    return Side(
        scaled=(y.T * (2.0 / epsilon)).to(dtype).contiguous(),
        offset=b.log() - (y * y).sum(1) / epsilon,
        epsilon=epsilon,
    )


class Workspace:
    """The tile's buffer, made once and used for every tile of one process."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def rows(self, rows: int, like: Side) -> Tensor:
        held = self._buffer
        if held is None or held.shape[0] < rows or held.shape[1] != like.size or held.dtype != like.scaled.dtype:
            held = like.scaled.new_empty((max(rows, like.tile_rows()), like.size))
            self._buffer = held
        return held[:rows]


def tiles(rows: int, tile_rows: int) -> Iterator[slice]:
    """Slices of nearly equal length, none above tile_rows: no small last tile."""
    count = -(-rows // tile_rows)
    for i in range(count):
        yield slice(rows * i // count, rows * (i + 1) // count)


def _exponentials(x: Tensor, to: Side, bias: Tensor, work: Workspace) -> tuple[Tensor, Tensor, Tensor]:
    """exp(S - top) (r, m) in the workspace, its row sums (r,) and f (r,) for one tile x (r, d)."""
    scores = torch.addmm(bias, x, to.scaled, out=work.rows(x.shape[0], to))
    top = scores.amax(1, keepdim=True)
    exponentials = scores.sub_(top).exp_()
    sums = exponentials.sum(1)
    f = (x * x).sum(1).double() - to.epsilon * (top[:, 0].double() + sums.double().log())
    return exponentials, sums, f


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
    parts = [_exponentials(_tile(x, rows, to), to, bias, work)[2] for rows in tiles(x.shape[0], to.tile_rows())]
    return torch.cat(parts).cpu().numpy() if parts else np.empty(0)


def column_marginal(x: Tensor, a: Tensor | None, to: Side, g: Tensor, work: Workspace | None = None) -> Tensor:
    """Column sums of the plan of (f(g), g) over these rows, whose row sums are then exactly a.

    sum_i a_i P_ij / (sum_k P_ik): the exponentials of the row sums serve the columns too, so that a whole Sinkhorn
    iteration is one matmul and one exponential per entry.

    Args:
        x: (r, d); a: (r,) weights, or None for ones; to: the target; g: (m,) float64.

    Returns:
        (m,) float64.
    """
    work = work or Workspace()
    bias = to.bias(g)
    total = torch.zeros(to.size, dtype=torch.float64, device=to.scaled.device)
    for rows in tiles(x.shape[0], to.tile_rows()):
        exponentials, sums, _ = _exponentials(_tile(x, rows, to), to, bias, work)
        weights = sums.reciprocal() if a is None else a[rows].to(sums) / sums
        total += torch.mv(exponentials.T, weights)
    return total


def _tile(x: Tensor, rows: slice, to: Side) -> Tensor:
    return x[rows].to(device=to.scaled.device, dtype=to.scaled.dtype)


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
