"""Passes close to a potential where the plan is known: no product of vectors, no exponential.

The plan of (f(g), g) with rows that sum to 1 is P_ij(g) = K_ij u_j / sum_k K_ik u_k for the plan K of some g0 and
u = exp((g - g0) / epsilon): the kernel of g0 *absorbs* its potential (Schmitzer 2019, "Stabilized sparse scaling
algorithms", section 3.1). So with K kept, a pass is two products of a matrix with a vector, a tenth to a thirtieth of
the work of one from the vectors.

An entry that is p times its row's largest is kept in 8 bits, as c = 255 p^(1/4), rounded: it changes by up to 2 / c of
itself, by 1% of it at p = 1 and by 4% at p = 1/1024. What that does to the columns at g0 is known and taken out; what
is left is estimated by :func:`error`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BYTES = 1
"""Of an entry that is kept."""

REACH = 12.0
"""How far apart the factors u may be, in powers of 2, before the plan is computed anew: entries are kept down to 2^-36
of their row's largest, and those near it with few digits. Where the column falls that holds a row's mass, all other
entries of the row rise."""


def in_reach(powers: np.ndarray) -> bool:
    """Whether the plan serves where the factors are 2^powers (m,)."""
    return bool(powers.max() - powers.min() <= REACH)


def error(columns: np.ndarray, by_kept: np.ndarray, b: np.ndarray, moved: np.ndarray) -> float:
    """About what the columns by a kept plan get wrong at g (L1), once what they get wrong at g0 is taken out.

    The sum over j of |columns_j - by_kept_j| at g0, times the standard deviation of ln u under b: rounding counts for
    the part of the plan that has moved. Columns that have to grow to reach b count for as much more. An estimate, no
    bound: the true error was 0.3 of it in the median of 218 problems, 0.55 at the most where the vectors had no pattern
    (real ones, clusters, one column that holds all mass) and 1.4 where they were the axes of the space.

    Args:
        columns, by_kept: (m,) at g0, exact and by the plan; b: (m,) what the columns are to become.
        moved: (m,) ln u.
    """
    if len(b) < _FEW and np.ptp(moved) > _STILL:
        return math.inf  # of few columns all can happen to be right at g0: an exact pass looks
    wrong = np.abs(columns - by_kept) * np.maximum(b / np.maximum(columns, 1e-30), 1)
    return float(wrong.sum() * np.sqrt(b @ (moved - b @ moved) ** 2))


_FEW = 32
_STILL = 1e-6

_CODES = 255
"""The code of a row's largest entry, or a little less."""

_GOLDEN = (math.sqrt(5) - 1) / 2


def store(scores: Tensor, plan: Tensor, codes: Tensor, first: int) -> Tensor:
    """Keep rows of a plan.

    Each row is scaled by another factor, down to 0.92: where rows are alike, their errors are not, and average out too.

    Args:
        scores: (r, m), base-2 logarithms of the plan up to a term for each row; overwritten.
        plan: (r, m) uint8, overwritten.
        codes: (r, m) int16, room for the work: torch makes integers of floats fast, but bytes only of integers.
        first: number of the first row.

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
