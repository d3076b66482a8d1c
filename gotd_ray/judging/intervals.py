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


def interval(metric: Metric, runs: Sequence[Examples], seed: int, resamples: int = RESAMPLES) -> Interval:
    """The mean of a metric over runs, one or several that differ by their seeds, with its 95% interval.

    Of one run it is over the examples: of one example the interval is the value, as nothing is known of its spread. Of
    several it is over seeds and examples, in two levels (Davison and Hinkley, 1997, section 3.8): runs are drawn with
    replacement, and the examples within them, the same ones in each. Few runs say little of their own spread: of 3, the
    interval is too narrow by about a fifth where runs differ more than examples.

    Args:
        metric: whose terms the examples have.
        runs: the examples of each run, on the same set.
        seed: of the draws; they depend on it and the number of examples alone.
        resamples: draws of n examples with replacement.

    Raises:
        UserError: there is no example.
    """
    return _over_runs([_resampled(metric, [run], seed, resamples)[0] for run in runs], seed)


def difference(
    metric: Metric, pairs: Sequence[tuple[Examples, Examples]], seed: int, resamples: int = RESAMPLES
) -> Interval:
    """The mean difference of two models, or of two arms over runs paired by their seed, on the same examples.

    Args:
        metric, seed, resamples: as of :func:`interval`.
        pairs: columns of both, of which the first minus the second is told.

    Raises:
        UserError: the examples of a pair are not the same.
    """
    found = []
    for a, b in pairs:
        sizes = [len(next(iter(examples.values()))) for examples in (a, b)]
        one, other = (examples.get("example", np.arange(n)) for examples, n in zip((a, b), sizes, strict=True))
        if not np.array_equal(one, other):
            raise UserError(
                f"the {metric.name} of two models cannot be compared: their examples are not the same ({sizes[0]:,} "
                f"and {sizes[1]:,}). Evaluate both on the same files."
            )
        (drawn_a, value_a), (drawn_b, value_b) = _resampled(metric, [a, b], seed, resamples)
        found.append((drawn_a - drawn_b, value_a - value_b))
    return _over_runs(found, seed)


def _resampled(metric: Metric, models: list[Examples], seed: int, resamples: int) -> list[tuple[np.ndarray, float]]:
    """(resamples,) values of each model by the same draws, and its value on the examples as they are."""
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
    return [
        (metric.value(np.concatenate(found)), float(metric.value(x.sum(axis=0, keepdims=True))[0]))
        for found, x in zip(sums, terms, strict=True)
    ]


def _over_runs(found: Sequence[tuple[np.ndarray, float]], seed: int) -> Interval:
    """The mean over runs, with its bounds, of resampled values (resamples,) and the value of each."""
    drawn, values = np.array([one for one, _ in found]), np.array([value for _, value in found])
    runs, resamples = drawn.shape
    chosen = np.random.default_rng([seed, runs]).integers(runs, size=(runs, resamples))
    means = np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values.mean()), float(low), float(high)
