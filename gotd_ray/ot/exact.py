"""Sums that do not depend on their order.

Floating-point addition is not associative, so a sum over shards changes in its last bits with the number of shards.
Integers do not: each term is rounded once to a fixed grid and added as int64. Every split of the candidates then
gives the same g to the last bit, and so the same subset.
"""

from __future__ import annotations

import math

import numpy as np

_BITS = 61  # a sum of at most 1 stays below 2^61, and int64 holds 2^63: room for two bits of overshoot


def to_grid(values: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Round float64 values to multiples of ``limit / 2^61``, as int64.

    Args:
        values: any shape; the absolute values of all terms of one sum add up to at most ``limit``.
        limit: a bound known before summing, the same for every term.

    Raises:
        FloatingPointError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise FloatingPointError(
            "a sum over candidates is not finite: raise solve.epsilon or set solve.precision to float64; if that does "
            "not help, vectors are broken: set encoder.precision to float32"
        )
    return np.rint(np.asarray(values, np.float64) * (2.0**_BITS / limit)).astype(np.int64)


def from_grid(total: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """The float64 value of a sum of :func:`to_grid` terms."""
    return total.astype(np.float64) * (limit / 2.0**_BITS)


_SMALLEST = 149  # the smallest positive float32 is 2^-149, so sums of float32 weights lose nothing


def to_units(value: float) -> int:
    """A weight or a sum of weights in units of 2^-149: an integer of any size, whose sums are exact and unbounded."""
    return round(math.ldexp(value, _SMALLEST))


def from_units(total: int) -> float:
    """The float64 value of a sum of :func:`to_units` terms."""
    return math.ldexp(float(total), -_SMALLEST)
