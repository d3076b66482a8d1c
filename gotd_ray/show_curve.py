"""What `gotd curve` prints: a table of each curve, and what it says. Plain text of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from gotd_ray import storage
from gotd_ray.report.curve import advice, opening, points, theory, title
from gotd_ray.results import CURVE_PAGE

WIDTH = 80


def curves(found: dict[str, Any]) -> Iterator[str]:
    """Line by line.

    Args:
        found: what stands in ``curve.json``.
    """
    for sentence in opening(found):
        yield from textwrap.wrap(sentence, WIDTH)
    for curve in found["curves"]:
        yield ""
        yield f"{title(curve)} ({curve['better']} is better)"
        yield f"{'documents':>10}  {'mean':>8}  {'95% interval':<20}  seeds"
        for row in points(curve):
            values = ", ".join(f"{value:.4g}" for value in row["values"])
            yield f"{row['size']:>10,}  {row['mean']:>8.4g}  {row['low']:.4g} to {row['high']:.4g}".ljust(44) + values
        for sentence in [*advice(curve), *theory(curve)]:
            yield from textwrap.wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ")
    yield ""
    yield f"the page: {storage.join(found['settings']['out'], CURVE_PAGE)}"
