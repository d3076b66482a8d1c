"""What the benchmarks share: seconds of calls in turn, intervals over seeds, and lines of a Markdown table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch


def seconds_of(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each call, after one to warm up; in turn, so that ratios hold on a busy machine."""
    taken: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for call, seconds in zip(calls, taken, strict=True):
            _wait()
            started = time.perf_counter()
            call()
            _wait()
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in taken]


def _wait() -> None:
    """For what is queued on a GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95% bootstrap interval of the mean."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def heading(*columns: str) -> None:
    """The first two lines of a table."""
    row(*columns)
    row(*["---"] * len(columns))


def row(*cells: object) -> None:
    """One line of a table, shown at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
