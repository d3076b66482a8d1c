"""What `gotd tune` prints: the best trials, how far the early look can be trusted, and the settings to go on with."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from gotd_ray import storage
from gotd_ray.report.tuning import names, opening, ranked, snippet
from gotd_ray.results import TUNED_PAGE

WIDTH = 80
SHOWN = 12
"""Trials at the most."""


def search(found: dict[str, Any]) -> Iterator[str]:
    """Lines of plain text.

    Args:
        found: what stands in ``tune.json``.
    """
    for sentence in opening(found):
        yield from textwrap.wrap(sentence, WIDTH)
    yield ""
    yield from _table(found)
    if found["best"]:
        yield ""
        yield "the best settings, for the run's YAML, or as words of a command:"
        yield from textwrap.indent(snippet(found), "  ").splitlines()
        best = found["best"]["setting"]
        yield "  " + " ".join(f"--set {found['stage']}.{name}={value:g}" for name, value in best.items())
    yield "all trials and pictures:"
    yield storage.join(found["settings"]["out"], TUNED_PAGE)


def _table(found: dict[str, Any]) -> Iterator[str]:
    searched, trials = names(found), ranked(found)
    currency = (found["settings"].get("costs") or {}).get("currency")
    rows = [["trial", "early", "rank", "at the end", "seconds", *([currency] if currency else []), *searched]]
    for row in trials[:SHOWN]:
        early, late = ("" if row[look] is None else f"{row[look]:.4g}" for look in ("early", "late"))
        seconds = row["seconds"] + (row["late_seconds"] or 0.0)
        own = [f"{row['setting'][name]:g}" for name in searched]
        paid = [f"{row['money']:,.3f}"] if currency else []
        rows.append([str(row["number"]), early or "broke", str(row["rank"]), late, f"{seconds:,.0f}", *paid, *own])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    if len(trials) > SHOWN:
        yield f"and {len(trials) - SHOWN} more."
