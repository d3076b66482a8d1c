"""A search space as Optuna's distributions, and back to settings that a YAML file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from gotd_ray.config.tune import WHOLE, Range

Setting = dict[str, float | int]
"""One point of a space, by setting."""

DIGITS = 3
"""Digits of a value that is proposed: it can be written down and means the same."""

Space = Mapping[Any, Range]
"""What is searched, by setting."""


def distribution(name: str, limits: Range) -> BaseDistribution:
    """Where Optuna draws from; of powers of two their exponents."""
    if limits.scale == "powers":
        return IntDistribution(int(limits.low).bit_length() - 1, int(limits.high).bit_length() - 1)
    if name in WHOLE:
        return IntDistribution(int(limits.low), int(limits.high), log=limits.scale == "log")
    return FloatDistribution(limits.low, limits.high, log=limits.scale == "log")


def value_of(name: str, limits: Range, drawn: Any) -> float | int:
    """The setting that a draw stands for, within the limits."""
    if limits.scale == "powers":
        return int(2 ** int(drawn))
    if name in WHOLE:
        return int(drawn)
    return min(max(float(f"{drawn:.{DIGITS}g}"), limits.low), limits.high)


def drawn_of(limits: Range, value: float | int) -> float | int:
    """The draw that stands for a setting; see ``value_of``."""
    return int(value).bit_length() - 1 if limits.scale == "powers" else value


def outside(space: Space, setting: Mapping[str, Any]) -> list[str]:
    """The names of a space whose value in a setting lies outside of it, or is none."""
    return [name for name, limits in space.items() if not _holds(limits, setting.get(name))]


def _holds(limits: Range, value: Any) -> bool:
    if value is None or not limits.low <= value <= limits.high:
        return False
    return limits.scale != "powers" or not int(value) & (int(value) - 1)
