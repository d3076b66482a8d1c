"""Passes close to a potential where the plan is known: no product of vectors, no exponential.

The plan of (f(g), g) with rows that sum to 1 is P_ij(g) = K_ij u_j / sum_k K_ik u_k for the plan K of some g0 and
u = exp((g - g0) / epsilon): the kernel of g0 *absorbs* its potential (Schmitzer 2019, "Stabilized sparse scaling
algorithms", section 3.1). So with K kept, a pass is two products of a matrix with a vector, a tenth to a thirtieth of
the work of one from the vectors.

An entry that is p times its row's largest is kept in 8 bits, as c = 255 p^(1/4), rounded: it changes by up to 2 / c of
itself, by 1% of it at p = 1 and by 4% at p = 1/1024. What that does to the columns at g0 is known and taken out; how
much is left at another g is known from the variance of rounding, see :func:`variance`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BYTES = 1
"""Of an entry that is kept."""

_LEAST_VECTORS = 512 * 10**6


def room(kept_memory: float, rows: int, width: int) -> int:
    """Bytes for the plans that are kept, over all shards.

    It depends on nothing but the problem: which plans are kept decides the last bits of g, and those must not depend
    on a machine's memory or on the number of shards.

    Args:
        kept_memory: a multiple of the bytes of the candidates' vectors, which count as 512 MB at least.
        rows: candidates, those of weight 0 too; width: numbers of a vector.
    """
    return int(kept_memory * max(2 * rows * width, _LEAST_VECTORS))


REACH = 12.0
"""Largest spread of the factors u, in powers of 2, for which the kept plan is trusted. Entries are kept down to 2^-36
of their row's largest, and those near it with few digits; beyond the spread they could dominate their row."""


def in_reach(powers: np.ndarray) -> bool:
    """Whether the kept plan is trusted where the factors are 2^powers (m,)."""
    return bool(powers.max() - powers.min() <= REACH)


_CODES = 255
"""The code of a row's largest entry, or a little less."""

_GOLDEN = (math.sqrt(5) - 1) / 2


def store(scores: Tensor, plan: Tensor, codes: Tensor, first: int) -> Tensor:
    """Keep rows of a plan.

    Each row is scaled by another factor, down to 0.92: where rows are alike, their errors are not.

    Args:
        scores: (r, m), base-2 logarithms of the plan up to a term for each row; overwritten.
        plan: (r, m) uint8, overwritten.
        codes: (r, m) int16, room for the work: torch makes integers of floats fast, but bytes only of integers.
        first: number of the first row, among all of the corpus.

    Returns:
        (r, m) the entries as exponentials of the scores, up to a factor for each row, in the memory of ``scores``.
    """
    rows = torch.arange(first, first + len(scores), dtype=torch.float64, device=scores.device)
    largest = (rows * _GOLDEN).frac_().mul_(-0.125).exp2_().mul_(_CODES).to(scores)
    roots = scores.sub_(scores.amax(1, keepdim=True)).mul_(0.25).exp2_().mul_(largest[:, None])
    plan.copy_(codes.copy_(roots.add_(0.5)))
    return roots.sub_(0.5).square_().square_()


def column_marginal(plan: Tensor, a: Tensor | None, factors: Tensor, buffers: Iterator[tuple[slice, Tensor]]) -> Tensor:
    """Column sums of the plan at g over these rows, as :func:`gotd_ray.ot.kernel.column_marginal` gives them.

    Args:
        plan: (r, m) uint8, that at g0.
        a: (r,) weights, or None for ones.
        factors: (m,) float32 or float64, u of the module's text, up to one factor for all.
        buffers: the rows of each tile, and room for them (rows, m) in the type of ``factors``.

    Returns:
        (m,) float64.
    """
    total = torch.zeros(len(factors), dtype=torch.float64, device=factors.device)
    for rows, buffer in buffers:
        buffer.copy_(plan[rows]).square_().square_()
        sums = torch.mm(buffer, factors[:, None])[:, 0]
        weights = sums.reciprocal() if a is None else a[rows].to(sums) / sums
        total += torch.mm(weights[None], buffer)[0]
    return total * factors.double()


def variance(
    plan: Tensor, a: Tensor | None, factors: Tensor, grown: Tensor, buffers: Iterator[tuple[slice, Tensor]]
) -> Tensor:
    """Variance of the rounding error of the column sums at g over these rows, the known error at g0 taken out.

    Rounding changes a code c evenly within half a step and so an entry by a share of variance (4 / c)^2 / 12. In
    column j the entry of row i counts a_i P_ij(g), less a_i P_ij(g0) times the growth of the column, for which its sum
    at g0 has been set right:

        sum_i a_i^2 (P_ij(g) - P_ij(g0) grown_j)^2 (4 / c_ij)^2 / 12

    That its error also changes the row's sum is left out: the two have opposite signs where a row has one large entry.

    Args:
        plan, a, factors: as for :func:`column_marginal`.
        grown: (m,) in the type of ``factors``, column sums at g over those at g0.
        buffers: the rows of each tile, and room for twice as many.

    Returns:
        (m,) float64.
    """
    at = torch.stack([factors, torch.ones_like(factors)], 1)
    products = torch.zeros((3, len(factors)), dtype=torch.float64, device=factors.device)
    for rows, both in buffers:
        squares, buffer = both.chunk(2)
        squares.copy_(plan[rows]).square_()
        torch.mul(squares, squares, out=buffer)
        moved, still = torch.mm(buffer, at).reciprocal_().unbind(1)
        if a is not None:
            moved, still = moved * a[rows].to(moved), still * a[rows].to(still)
        buffer.mul_(squares)
        products += torch.mm(torch.stack([moved * moved, moved * still, still * still]), buffer)
    u, r = factors.double(), grown.double()
    return (u * u * products[0] - 2 * u * r * products[1] + r * r * products[2]).clamp_min_(0) * (16 / 12)
