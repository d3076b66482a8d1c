"""What `gotd tune` prints: the best trials, how far the early look can be trusted, and the settings to go on with."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from gotd_ray import storage
from gotd_ray.report.tuning import names, opening, ranked
from gotd_ray.results import TUNED_PAGE
from gotd_ray.tune import snippet

WIDTH = 80
SHOWN = 12
"""Trials at the most."""


def search(found: dict[str, Any]) -> Iterator[str]:
    """Lines of plain text.

    Args:
        found: what ``tune.tune`` returns.
    """
    for sentence in opening(found):
        yield from textwrap.wrap(sentence, WIDTH)
    yield ""
    yield from _table(found)
    yield ""
    yield "the best settings, for the run's YAML, or as words of a command:"
    yield from textwrap.indent(snippet(found), "  ").splitlines()
    stage, best = found["stage"], found["best"]["setting"]
    yield "  " + " ".join(f"--set {stage}.{name}={value:g}" for name, value in best.items())
    yield "all trials and pictures:"
    yield storage.join(found["settings"]["out"], TUNED_PAGE)


def _table(found: dict[str, Any]) -> Iterator[str]:
    searched, trials = names(found), ranked(found)
    rows = [["trial", "early", "rank", "at the end", "seconds", *searched]]
    for row in trials[:SHOWN]:
        early, late = ("" if row[look] is None else f"{row[look]:.4g}" for look in ("early", "late"))
        seconds = row["seconds"] + (row["late_seconds"] or 0.0)
        own = [f"{row['setting'][name]:g}" for name in searched]
        rows.append([str(row["number"]), early or "broke", str(row["rank"]), late, f"{seconds:,.0f}", *own])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    if len(trials) > SHOWN:
        yield f"and {len(trials) - SHOWN} more."
