"""How sure a measured number is: bootstrap intervals of one model, and of the difference of two on the same examples.

A judge leaves one row per example. Every metric here is a function of column sums over the examples, so a resample is
a vector of counts w (how often each example was drawn) and costs one product w X. Ratios, such as perplexity, are so
resampled by document, and two models by the same draws (Efron and Tibshirani, 1993, chapters 13 and 16; Koehn, 2004,
for pairs). Intervals are the percentiles of the resampled values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gotd_ray.errors import UserError

Examples = Mapping[str, np.ndarray]
"""Columns of the examples of one model, judge and set, each (n,); ``example`` names the rows where it is there."""

Interval = tuple[float, float, float]
"""Value on the examples as they are, and the lower and upper bound of the interval."""

RESAMPLES = 1000
LEVEL = 0.95

_DRAWN_AT_ONCE = 1 << 22  # counts in memory: 32 MB


@dataclass(frozen=True)
class Metric:
    """A function of sums over examples.

    Attributes:
        name: such as ``bits_per_byte``.
        better: ``lower`` or ``higher``.
        terms: examples -> (n, k) float64, what is summed.
        value: (r, k) sums of r resamples -> (r,).
    """

    name: str
    better: str
    terms: Callable[[Examples], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]


def columns(*names: str) -> Callable[[Examples], np.ndarray]:
    """Terms: the columns as they are."""
    return lambda examples: np.stack([np.asarray(examples[name], np.float64) for name in names], axis=1)


def with_count(term: Callable[[Examples], np.ndarray]) -> Callable[[Examples], np.ndarray]:
    """Terms: a number for each example, and 1; their ratio is the mean."""
    return lambda examples: np.stack([(x := term(examples)).astype(np.float64), np.ones(len(x))], axis=1)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def interval(metric: Metric, examples: Examples, seed: int, resamples: int = RESAMPLES) -> Interval:
    """A metric with its 95% interval. Of one example the interval is the value: nothing is known of its spread.

    Args:
        metric: whose terms the examples have.
        examples: its columns, each (n,).
        seed: of the draws; they depend on it and n alone.
        resamples: draws of n examples with replacement.

    Raises:
        UserError: there is no example.
    """
    (drawn,), (value,) = _resampled(metric, [examples], seed, resamples)
    return (value, *_bounds(drawn))


def difference(metric: Metric, a: Examples, b: Examples, seed: int, resamples: int = RESAMPLES) -> Interval:
    """The metric of ``a`` minus that of ``b``, on the same examples in the same order, with its paired 95% interval.

    Args:
        metric, seed, resamples: as of :func:`interval`.
        a, b: columns of two models.

    Raises:
        UserError: the examples are not the same.
    """
    sizes = [len(next(iter(examples.values()))) for examples in (a, b)]
    one, other = (examples.get("example", np.arange(n)) for examples, n in zip((a, b), sizes, strict=True))
    if not np.array_equal(one, other):
        raise UserError(
            f"the {metric.name} of two models cannot be compared: their examples are not the same ({sizes[0]:,} and "
            f"{sizes[1]:,}). Evaluate both on the same files."
        )
    (drawn_a, drawn_b), (value_a, value_b) = _resampled(metric, [a, b], seed, resamples)
    return (value_a - value_b, *_bounds(drawn_a - drawn_b))


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(
    metric: Metric, models: list[Examples], seed: int, resamples: int
) -> tuple[list[np.ndarray], list[float]]:
    """(resamples,) values of each model by the same draws, and their values on the examples as they are."""
    terms = [metric.terms(examples) for examples in models]
    n = len(terms[0])
    if not n:
        raise UserError(f"the {metric.name} of no example is not known. Give the evaluation a set that is not empty.")
    rng = np.random.default_rng(seed)
    sums: list[list[np.ndarray]] = [[] for _ in models]
    step = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=rows * n).reshape(rows, n).astype(np.float64)
        for found, x in zip(sums, terms, strict=True):
            found.append(counts @ x)
    values = [metric.value(np.concatenate(found)) for found in sums]
    return values, [float(metric.value(x.sum(axis=0, keepdims=True))[0]) for x in terms]


def mean_interval(metric: Metric, runs: Sequence[Examples], seed: int, resamples: int = RESAMPLES) -> Interval:
    """The mean of a metric over runs of several seeds, with the interval over seeds and examples.

    Two levels (Davison and Hinkley, 1997, section 3.8): runs are drawn with replacement, and the examples within them,
    the same ones in each. Few runs say little of their own spread: of 3, the interval is too narrow by about a fifth
    where runs differ more than examples.

    Args:
        runs: the examples of each run, on the same set.
        metric, seed, resamples: as of :func:`interval`.
    """
    drawn, values = zip(*(_alone(_resampled(metric, [run], seed, resamples)) for run in runs), strict=True)
    return _over_runs(np.array(drawn), np.array(values), seed)


def mean_difference(
    metric: Metric, pairs: Sequence[tuple[Examples, Examples]], seed: int, resamples: int = RESAMPLES
) -> Interval:
    """The mean difference of two arms over runs paired by their seed; see :func:`mean_interval`."""
    drawn, values = [], []
    for a, b in pairs:
        (drawn_a, drawn_b), (value_a, value_b) = _resampled(metric, [a, b], seed, resamples)
        drawn.append(drawn_a - drawn_b)
        values.append(value_a - value_b)
    return _over_runs(np.array(drawn), np.array(values), seed)


def _alone(found: tuple[list[np.ndarray], list[float]]) -> tuple[np.ndarray, float]:
    return found[0][0], found[1][0]


def _over_runs(drawn: np.ndarray, values: np.ndarray, seed: int) -> Interval:
    """(runs, resamples) resampled values and (runs,) values: the mean over runs with its bounds."""
    runs, resamples = drawn.shape
    chosen = np.random.default_rng([seed, runs]).integers(runs, size=(runs, resamples))
    return (float(values.mean()), *_bounds(np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)))
