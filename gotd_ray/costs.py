"""What runs have cost: the seconds of their stages, and money where it is known what an hour costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gotd_ray import config

KINDS = {
    "selection": ("survey", "embed", "solve", "dsir", "select"),
    "training": ("pretune", "finetune"),
    "judging": ("evaluate",),
}
"""The stages of each kind of work, the kinds in the order of a table."""


def spent(manifests: Iterable[Mapping[str, Mapping[str, Any] | None]]) -> dict[str, float]:
    """Seconds by kind, of all runs together.

    Args:
        manifests: of each run those of the stages that count, by stage; None where one is not done.
    """
    every = list(manifests)
    return {
        kind: sum(float((facts.get(stage) or {}).get("seconds", 0.0)) for facts in every for stage in stages)
        for kind, stages in KINDS.items()
    }


def money(seconds: float, costs: config.Costs | None) -> float | None:
    """What so many seconds of all machines cost; None where nobody has said."""
    return None if costs is None else seconds / 3600 * costs.per_hour


def in_words(seconds: Mapping[str, float], costs: config.Costs | None) -> str:
    """Such as ``selection 12 s, training 340 s, judging 8 s: 0.20 USD``."""
    said = ", ".join(f"{kind} {value:,.0f} s" for kind, value in seconds.items())
    paid = money(sum(seconds.values()), costs)
    return said if paid is None or costs is None else f"{said}: {paid:,.2f} {costs.currency}"
