"""Metrics by the modes of a held-out set: the mean over them, and the worst. A mode is a value of ``evaluate.modes``.

A set of many modes is judged by its mean over examples as its largest modes are. The mean over modes counts each alike;
the worst is that of which a model knows least. Both are functions of sums over examples, a sum for each mode, so their
intervals and paired differences are those of every metric.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gotd_ray.judging.intervals import Examples, Metric


def modes_of(examples: Examples) -> list[str]:
    """The modes that examples name, in order; none where they name none."""
    return sorted({mode for mode in examples.get("mode", ()) if mode is not None})


def of_mode(examples: Examples, mode: str) -> Examples:
    """The examples of one mode."""
    own = np.asarray(examples["mode"]) == mode
    return {name: column[own] for name, column in examples.items()}


def over_modes(metric: Metric, modes: list[str]) -> list[Metric]:
    """The mean of a metric over these modes, and the worst. A mode that a resample has not drawn counts in neither."""
    worst = np.nanmax if metric.better == "lower" else np.nanmin
    return [_over(metric, modes, "mean", np.nanmean), _over(metric, modes, "worst", worst)]


def _over(metric: Metric, modes: list[str], name: str, summary: Callable[..., np.ndarray]) -> Metric:
    def terms(examples: Examples) -> np.ndarray:
        """(n, modes * (k + 1)): of its own mode each example's terms and 1."""
        own = np.asarray(examples["mode"])[:, None] == np.array(modes, object)
        found = np.pad(metric.terms(examples), ((0, 0), (0, 1)), constant_values=1.0)
        return (own[:, :, None] * found[:, None, :]).reshape(len(found), -1)

    def value(sums: np.ndarray) -> np.ndarray:
        by_mode = sums.reshape(len(sums) * len(modes), -1)
        drawn = by_mode[:, -1] > 0
        values = np.full(len(by_mode), np.nan)
        values[drawn] = metric.value(by_mode[drawn, :-1])
        return summary(values.reshape(len(sums), len(modes)), axis=1)

    return Metric(f"{metric.name}_{name}_mode", metric.better, terms, value)
