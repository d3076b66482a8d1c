"""How far the early look can be trusted: the same trials, judged early and at the end.

Of the trials that were finished, the best by the early look and as many from the other ranks. What the latter would
have become is so known of some, not of all: the overlap and the regret are those among the finished trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
TOP = 5
"""The best trials whose overlap is told, or half of the finished ones where these are fewer than twice as many."""


def order(values: Sequence[float | None], better: str) -> list[int]:
    """Numbers of the values, the best first; None last, equal ones by their number."""
    sign = 1.0 if better == "lower" else -1.0
    return sorted(range(len(values)), key=lambda n: (np.inf if (v := values[n]) is None else sign * v, n))


def to_finish(values: Sequence[float | None], count: int, better: str) -> list[int]:
    """The best ``count`` trials, and after them as many spread evenly over the other ranks; none that broke down."""
    ranked = [n for n in order(values, better) if values[n] is not None]
    best, rest = ranked[:count], ranked[count:]
    places = np.linspace(0, len(rest) - 1, min(count, len(rest))).round().astype(int)
    return best + [rest[place] for place in np.unique(places)]


def agreement(early: Sequence[float], late: Sequence[float], better: str, seed: int) -> dict[str, Any] | None:
    """Early against late values of the finished trials; None of fewer than three, of which no order can be told.

    Returns:
        ``top``: how many count as the best; ``overlap``: how many of these by the early look are so at the end, and
        ``by_chance``: how many would be by a draw; ``tau``: Kendall's tau-b with the bounds of its 95% interval by
        bootstrap over the trials, None where all values of a side are equal; ``regret``: how much better the best at
        the end is than what the early look called the best.
    """
    n = len(early)
    if n < 3:
        return None
    top = min(TOP, n // 2)
    first, last = order(early, better), order(late, better)
    sign = 1.0 if better == "lower" else -1.0
    return {
        "finished": n,
        "top": top,
        "overlap": len({*first[:top]} & {*last[:top]}),
        "by_chance": top * top / n,
        "tau": _tau(np.asarray(early), np.asarray(late), seed),
        "regret": sign * (late[first[0]] - late[last[0]]),
    }


def _tau(early: np.ndarray, late: np.ndarray, seed: int) -> list[float] | None:
    """Value, low, high of tau-b (Kendall, 1945). Draws in which a side has one value alone say nothing, and are left
    out."""
    n = len(early)
    one, other = (np.sign(x[:, None] - x[None, :]) for x in (early, late))

    def of(counts: np.ndarray) -> np.ndarray:
        agree, first, second = (
            np.einsum("ri,ij,rj->r", counts, signs, counts) for signs in (one * other, one**2, other**2)
        )
        told = (first > 0) & (second > 0)
        return agree[told] / np.sqrt(first[told] * second[told])

    value = of(np.ones((1, n)))
    if not len(value):
        return None
    drawn = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    low, high = np.quantile(of(drawn.astype(np.float64)), [0.025, 0.975])
    return [float(value[0]), float(low), float(high)]


def saved(early: Sequence[float], late: Sequence[tuple[float, float]], finish: int) -> dict[str, float]:
    """What the early look has saved, in seconds of training.

    Args:
        early: of every trial, of the early look.
        late: of the finished ones, early and to the end, in the order in which they were finished.
        finish: of these, the first are those that a search needs; the others measure how far it can be trusted.

    Returns:
        ``spent``: all early looks and the trainings to the end that the choice needs; ``in_full``: all trials to the
        end, an estimate by the ratio of the finished ones; ``measuring``: the other trainings to the end.
    """
    ratio = sum(full for _, full in late) / max(sum(part for part, _ in late), 1e-9) if late else 1.0
    return {
        "spent": sum(early) + sum(full for _, full in late[:finish]),
        "in_full": sum(early) * ratio,
        "measuring": sum(full for _, full in late[finish:]),
    }
