"""Pictures as geometry: scales, ticks and SVG paths. The templates draw them, so that text is escaped in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 720.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 14.0, 42.0
"""Margins of a picture, in its own units; the page scales it."""


@dataclass(frozen=True)
class Scale:
    """From a number to a place on the picture.

    Attributes:
        low, high: numbers at the two ends.
        start, end: places of the two ends.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, wanted: int = 5) -> list[tuple[float, str]]:
        """Places and names of about so many round numbers."""
        span = self.high - self.low
        if not span > 0:
            return [(self.at(self.low), f"{self.low:.3g}")]
        raw = span / wanted
        power = 10 ** math.floor(math.log10(raw))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
        digits = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if round(step / power, 6) == 2.5 else 0))
        first = math.ceil(self.low / step - 1e-9)
        found = [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(self.at(value), _name(value, digits)) for value in found]


def _name(value: float, digits: int) -> str:
    """With so many digits behind the point; very small numbers as powers of ten."""
    if digits > 3:
        return f"{value:.3g}".replace("e-0", "e-") if abs(value) > 1e-15 else "0"
    return f"{value + 0.0 if round(value, digits) else 0.0:,.{digits}f}"


@dataclass(frozen=True)
class Mark:
    """Something drawn: a path, the CSS class that colours it, and its name in the legend."""

    path: str
    style: str
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with its axes; an axis without ticks is not drawn."""

    title: str
    described: str
    """In words, for those who do not see it."""

    marks: list[Mark]
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    """Places and names."""

    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    x_label: str = ""
    y_label: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    lines: list[tuple[float, str]] = field(default_factory=list)
    """Upright lines: place and what stands beside it."""


def histogram(
    edges: Sequence[float], counts: Sequence[int], taken: Sequence[int], cut: float | None, title: str, described: str
) -> Picture:
    """Candidates by score, those taken over them. Heights go by the square root: few taken among many are seen."""
    x = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = Scale(0.0, math.sqrt(max(*counts, 1)), HEIGHT - BOTTOM, TOP)

    def bars(heights: Sequence[int]) -> str:
        return "".join(
            f"M{x.at(left)} {y.start}V{y.at(math.sqrt(count))}H{x.at(right)}V{y.start}z"
            for left, right, count in zip(edges, edges[1:], heights, strict=False)
            if count
        )

    marks = [Mark(bars(counts), "fill corpus", "all candidates"), Mark(bars(taken), "fill chosen", "taken")]
    lines = [(x.at(min(max(cut, edges[0]), edges[-1])), "the cut")] if cut is not None else []
    heights = sorted({_round(max(counts) * share) for share in (0.04, 0.25, 1.0)})
    return Picture(
        title,
        described,
        marks,
        x_ticks=x.ticks(6),
        y_ticks=[(y.at(math.sqrt(count)), f"{count:,}") for count in heights],
        x_label="score: the lowest are taken",
        y_label="documents",
        lines=lines,
    )


def _round(count: float) -> int:
    """Down to one digit that is not 0."""
    unit = 10 ** math.floor(math.log10(max(count, 1)))
    return int(count // unit * unit)


def scatter(
    points: dict[str, list[list[float]]], styles: dict[str, tuple[str, str]], title: str, words: str
) -> Picture:
    """Groups of points; one unit is as long on either axis.

    Args:
        points: (k, 2) of each group, drawn in this order.
        styles: CSS class and legend of each group.
    """
    every = [place for group in points.values() for place in group]
    (left, right), (low, high) = ((min(p[i] for p in every), max(p[i] for p in every)) for i in (0, 1))
    room = WIDTH - 2 * RIGHT
    height = min(max((high - low) / max(right - left, 1e-9) * room, 240.0), 560.0)
    unit = min(room / max(right - left, 1e-9), height / max(high - low, 1e-9))
    x0 = (WIDTH - unit * (right - left)) / 2
    y0 = TOP + (height + unit * (high - low)) / 2

    def place(point: list[float]) -> str:
        return f"M{x0 + unit * (point[0] - left):.1f} {y0 - unit * (point[1] - low):.1f}h0"

    marks = [
        Mark("".join(map(place, group)), f"dots {styles[name][0]}", styles[name][1]) for name, group in points.items()
    ]
    return Picture(title, words, marks, height=round(height + 2 * TOP, 1))


def lines(
    series: dict[str, list[tuple[float, float]]],
    styles: dict[str, tuple[str, str]],
    title: str,
    words: str,
    y_label: str,
) -> Picture:
    """Curves over steps; a curve of one point is a dot."""
    every = [point for curve in series.values() for point in curve]
    low, high = min(p[1] for p in every), max(p[1] for p in every)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    x = Scale(min(p[0] for p in every), max(p[0] for p in every), LEFT, WIDTH - RIGHT)
    y = Scale(max(low - pad, 0.0) if low >= 0 else low - pad, high + pad, HEIGHT - BOTTOM, TOP)
    marks = []
    for name, curve in series.items():
        places = [f"{x.at(step)} {y.at(value)}" for step, value in curve]
        path = "M" + "L".join(places) if len(places) > 1 else f"M{places[0]}h0"
        marks.append(Mark(path, f"{'line' if len(places) > 1 else 'dots'} {styles[name][0]}", styles[name][1]))
    return Picture(title, words, marks, x.ticks(6), y.ticks(4), x_label="step", y_label=y_label)


def cloud(
    points: dict[str, list[tuple[float, float]]],
    styles: dict[str, tuple[str, str]],
    title: str,
    words: str,
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
) -> Picture:
    """Groups of points over two axes, each with its own unit.

    Args:
        styles: CSS class and legend of each group.
        log: each factor on the x axis is as wide; all of its numbers are above 0.
    """
    every = [place for group in points.values() for place in group]
    across = [math.log10(p[0]) if log else p[0] for p in every]
    pads = [(max(v) - min(v)) * 0.04 or abs(v[0]) * 0.05 or 1.0 for v in (across, [p[1] for p in every])]
    x = Scale(min(across) - pads[0], max(across) + pads[0], LEFT, WIDTH - RIGHT)
    y = Scale(min(p[1] for p in every) - pads[1], max(p[1] for p in every) + pads[1], HEIGHT - BOTTOM, TOP)

    def place(point: tuple[float, float]) -> str:
        return f"M{x.at(math.log10(point[0]) if log else point[0])} {y.at(point[1])}h0"

    marks = [
        Mark("".join(map(place, group)), f"dots large {styles[name][0]}", styles[name][1])
        for name, group in points.items()
        if group
    ]
    ticks = [(x.at(math.log10(v)), _short(v)) for v in _round_factors(x.low, x.high)] if log else x.ticks(6)
    return Picture(title, words, marks, ticks, y.ticks(4), x_label=x_label, y_label=y_label)


def _round_factors(low: float, high: float) -> list[float]:
    """Powers of ten between two of their exponents; of less than two tens also their doubles and halves."""
    steps = (1,) if high - low > 2 else (1, 2, 5)
    found = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    return [value for value in found if low <= math.log10(value) <= high]


def _short(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-")
