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
TOXIC = 0.5
"""The score from which a continuation counts as toxic (Gehman et al., 2020)."""

_DRAWN_AT_ONCE = 1 << 22  # counts in memory: 32 MB


@dataclass(frozen=True)
class Metric:
    """A function of sums over examples.

    Attributes:
        terms: examples -> (n, k) float64, what is summed.
        value: (r, k) sums of r resamples -> (r,).
        columns: what ``terms`` reads.
        better: ``lower`` or ``higher``.
    """

    terms: Callable[[Examples], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]
    columns: tuple[str, ...]
    better: str


def _columns(*names: str) -> Callable[[Examples], np.ndarray]:
    return lambda examples: np.stack([np.asarray(examples[name], np.float64) for name in names], axis=1)


def _with_count(term: Callable[[Examples], np.ndarray]) -> Callable[[Examples], np.ndarray]:
    return lambda examples: np.stack([(x := term(examples)).astype(np.float64), np.ones(len(x))], axis=1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def _per_class(examples: Examples) -> np.ndarray:
    """(n, 3 c): for each of the c classes seen whether it was hit, predicted, and true."""
    both = np.concatenate([np.asarray(examples["label"]), np.asarray(examples["predicted"])])
    codes = np.unique(both, return_inverse=True)[1].reshape(2, -1)
    true, predicted = (row[:, None] == np.arange(codes.max() + 1) for row in codes)
    return np.concatenate([true & predicted, predicted, true], axis=1).astype(np.float64)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    """Mean over the classes that are true or predicted somewhere of 2 hit / (predicted + true)."""
    hit, predicted, true = np.split(sums, 3, axis=1)
    seen = predicted + true
    f1 = np.divide(2 * hit, seen, out=np.zeros_like(hit), where=seen > 0)
    return f1.sum(axis=1) / (seen > 0).sum(axis=1)


def _micro_f1(sums: np.ndarray) -> np.ndarray:
    """2 hits / (predictions + truths), over all classes; with one label an example this is the accuracy."""
    hit, predicted, true = (part.sum(axis=1) for part in np.split(sums, 3, axis=1))
    return 2 * hit / (predicted + true)


def _mcc(sums: np.ndarray) -> np.ndarray:
    """Matthews's correlation for c classes (Gorodkin, 2004); 0 where labels or predictions are all the same."""
    hit, predicted, true = np.split(sums, 3, axis=1)
    count = true.sum(axis=1)
    covariance = hit.sum(axis=1) * count - (predicted * true).sum(axis=1)
    spread = (count**2 - (predicted**2).sum(axis=1)) * (count**2 - (true**2).sum(axis=1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=spread > 0)


_LABELS = ("label", "predicted")
METRICS: dict[str, Metric] = {
    "perplexity": Metric(
        _columns("nll", "tokens"), lambda sums: np.exp(_ratio(sums)), ("nll", "tokens"), better="lower"
    ),
    "bits_per_byte": Metric(
        _columns("nll", "bytes"), lambda sums: _ratio(sums) / np.log(2), ("nll", "bytes"), better="lower"
    ),
    "accuracy": Metric(
        _with_count(lambda e: np.asarray(e["label"]) == np.asarray(e["predicted"])), _ratio, _LABELS, better="higher"
    ),
    "macro_f1": Metric(_per_class, _macro_f1, _LABELS, better="higher"),
    "micro_f1": Metric(_per_class, _micro_f1, _LABELS, better="higher"),
    "mcc": Metric(_per_class, _mcc, _LABELS, better="higher"),
    "expected_maximum_toxicity": Metric(
        _with_count(lambda e: np.asarray(e["score"])), _ratio, ("score",), better="lower"
    ),
    "toxicity_probability": Metric(
        _with_count(lambda e: np.asarray(e["score"]) >= TOXIC), _ratio, ("score",), better="lower"
    ),
    "mean": Metric(_with_count(lambda e: np.asarray(e["score"])), _ratio, ("score",), better="higher"),
}

METRICS_OF: dict[str, tuple[str, ...]] = {
    "perplexity": ("perplexity", "bits_per_byte"),
    "classification": ("accuracy", "macro_f1", "micro_f1", "mcc"),
    "toxicity": ("expected_maximum_toxicity", "toxicity_probability"),
    "zero_shot": ("mean",),
}
"""The metrics of each judge."""


def interval(metric: str, examples: Examples, seed: int, resamples: int = RESAMPLES) -> Interval:
    """A metric with its 95% interval. Of one example the interval is the value: nothing is known of its spread.

    Args:
        metric: one of ``METRICS``.
        examples: its columns, each (n,).
        seed: of the draws; they depend on it and n alone.
        resamples: draws of n examples with replacement.

    Raises:
        UserError: there is no example.
    """
    (drawn,), (value,) = _resampled(metric, [examples], seed, resamples)
    return (value, *_bounds(drawn))


def difference(metric: str, a: Examples, b: Examples, seed: int, resamples: int = RESAMPLES) -> Interval:
    """The metric of ``a`` minus that of ``b``, on the same examples in the same order, with its paired 95% interval.

    Args:
        metric, seed, resamples: as of :func:`interval`.
        a, b: columns of two models.

    Raises:
        UserError: the examples are not the same.
    """
    one, other = (examples.get("example", np.arange(len(_first(metric, examples)))) for examples in (a, b))
    if not np.array_equal(one, other):
        raise UserError(
            f"the {metric} of two models cannot be compared: their examples are not the same "
            f"({len(_first(metric, a)):,} and {len(_first(metric, b)):,}). Evaluate both on the same files."
        )
    (drawn_a, drawn_b), (value_a, value_b) = _resampled(metric, [a, b], seed, resamples)
    return (value_a - value_b, *_bounds(drawn_a - drawn_b))


def _first(metric: str, examples: Examples) -> np.ndarray:
    return np.asarray(examples[METRICS[metric].columns[0]])


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(metric: str, models: list[Examples], seed: int, resamples: int) -> tuple[list[np.ndarray], list[float]]:
    """(resamples,) values of each model by the same draws, and their values on the examples as they are."""
    chosen = METRICS[metric]
    terms = [chosen.terms(examples) for examples in models]
    n = len(terms[0])
    if not n:
        raise UserError(f"the {metric} of no example cannot be told. Give the evaluation a set that is not empty.")
    rng = np.random.default_rng(seed)
    sums: list[list[np.ndarray]] = [[] for _ in models]
    step = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=rows * n).reshape(rows, n).astype(np.float64)
        for found, x in zip(sums, terms, strict=True):
            found.append(counts @ x)
    values = [chosen.value(np.concatenate(found)) for found in sums]
    return values, [float(chosen.value(x.sum(axis=0, keepdims=True))[0]) for x in terms]


def mean_interval(metric: str, runs: Sequence[Examples], seed: int, resamples: int = RESAMPLES) -> Interval:
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
    metric: str, pairs: Sequence[tuple[Examples, Examples]], seed: int, resamples: int = RESAMPLES
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
