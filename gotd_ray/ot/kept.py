"""Passes close to a potential where the plan is known: no product of vectors, no exponential.

The plan of (f(g), g) with rows that sum to 1 is P_ij(g) = K_ij u_j / sum_k K_ik u_k for the plan K of some g0 and
u = exp((g - g0) / epsilon): the kernel of g0 *absorbs* its potential (Schmitzer 2019, "Stabilized sparse scaling
algorithms", section 3.1). So with K kept, a pass is two products of a matrix with a vector, a tenth to a thirtieth of
the work of one from the vectors. K is kept in float16: see :data:`ERROR`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BYTES = 2
"""Of an entry that is kept."""

ERROR = 2.0**-10
"""About what a pass with a kept plan gets wrong at the most, as a share of the residual at g0.

Rounding changes an entry by 2^-11 of itself, one over its row's sum by twice that. What it does to the columns at g0 is
known and taken out; at g it counts for the part of the plan that has moved since. That part can be more than the
residual, which is what the columns moved; but errors of many rows average out: a tenth of this, or less, was seen.
"""

REACH = 16.0
"""How far apart the factors u may be, in powers of 2, before the plan is computed anew: entries are kept down to 2^-39
of a row, and below 2^-29 with fewer digits. Where the column falls that holds a row's mass, all other entries of the
row rise."""


def in_reach(powers: np.ndarray) -> bool:
    """Whether the plan serves where the factors are 2^powers (m,)."""
    return bool(powers.max() - powers.min() <= REACH)


_UNIT = 2.0**15
"""Rows are kept times this: float16 ends at 65,504 and has its full precision from 2^-14 on."""


def store(exponentials: Tensor, sums: Tensor, plan: Tensor) -> Tensor:
    """Keep rows of a plan.

    Args:
        exponentials: (r, m), up to a factor for each row; scaled here.
        sums: (r,), of its rows.
        plan: (r, m) float16, overwritten.

    Returns:
        (r,) the sums of the rows as they are scaled now.
    """
    plan.copy_(exponentials.mul_((_UNIT / sums)[:, None]))
    return torch.full_like(sums, _UNIT)


def column_marginal(plan: Tensor, a: Tensor | None, factors: Tensor, buffers: Iterator[tuple[slice, Tensor]]) -> Tensor:
    """Column sums of the plan at g over these rows, as :func:`gotd_ray.ot.kernel.column_marginal` gives them.

    Args:
        plan: (r, m) float16, that at g0.
        a: (r,) weights, or None for ones.
        factors: (m,) float32 or float64, u of the module's text, up to one factor for all.
        buffers: the rows of each tile, and room for them (rows, m) in the type of ``factors``.

    Returns:
        (m,) float64.
    """
    total = torch.zeros(len(factors), dtype=torch.float64, device=factors.device)
    for rows, buffer in buffers:
        buffer.copy_(plan[rows])
        sums = torch.mm(buffer, factors[:, None])[:, 0]
        weights = sums.reciprocal() if a is None else a[rows].to(sums) / sums
        total += torch.mm(weights[None], buffer)[0]
    return total * factors.double()
