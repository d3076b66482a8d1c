"""Sums that do not depend on their order.

Floating-point addition is not associative, so a sum over shards changes in its last bits with the number of shards.
Integers do not: each term is rounded once to an integer, and integers are added. Every split of the candidates then
gives the same g to the last bit, and so the same subset. Sums of every pass are int64, on a grid of known extent; the
few that are formed once are Python's integers, which have no extent.
"""

from __future__ import annotations

import math

import numpy as np

_BITS = 61  # a sum of at most 1 stays below 2^61, and int64 holds 2^63: room for two bits of overshoot
_ROUNDING = 1e-3  # by how much float32 arithmetic may take a term above its share


def to_grid(values: np.ndarray, limit: float = 1.0, share: float | None = None) -> np.ndarray:
    """Round float64 values to multiples of ``limit / 2^61``, as int64.

    Args:
        values: any shape; the absolute values of all terms of one sum add up to at most ``limit``.
        limit: a bound known before summing, the same for every term.
        share: a bound on these terms; the shares of all terms of a sum add up to at most ``limit``. None is all of it.

    Raises:
        FloatingPointError: a value is not finite, or above its share: the sum could wrap around.
    """
    values = np.asarray(values, np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        raise FloatingPointError("a sum over candidates is not finite")
    bound = limit if share is None else share
    if largest > bound * (1 + _ROUNDING):
        raise FloatingPointError(f"a sum over candidates is {largest:.6g}, above its bound of {bound:.6g}")
    return np.rint(values * (2.0**_BITS / limit)).astype(np.int64)


def from_grid(total: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """The float64 value of a sum of :func:`to_grid` terms."""
    return total.astype(np.float64) * (limit / 2.0**_BITS)


_SMALLEST = 149  # the smallest positive float32 is 2^-149, so sums of float32 weights lose nothing


def to_units(value: float) -> int:
    """A number in units of 2^-149, such as a weight: an integer of any size, whose sums are exact and unbounded.

    Raises:
        FloatingPointError: it is not finite.
    """
    if not math.isfinite(value):
        raise FloatingPointError("a sum over candidates is not finite")
    return round(math.ldexp(value, _SMALLEST))


def from_units(total: int) -> float:
    """The float64 value of a sum of :func:`to_units` terms."""
    return math.ldexp(float(total), -_SMALLEST)
