"""The page of `gotd curve`, and its words: points, the law, its interval, the knee."""

from __future__ import annotations

import math
from typing import Any

from gotd_ray.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Mark, Picture, Scale

LAWS = {
    "flat": "more documents change nothing that the noise would not hide: {E:.4g}",
    "power": "{B:.4g} / n^{beta:.3g} + {E:.4g}, a power law",
    "rectified": "{B:.4g} / ({D0:.4g} + n^{beta:.3g}) + {E:.4g}, the rectified law",
}


SOURCES = 5
"""Named in a sentence, and the last one."""


def title(curve: dict[str, Any]) -> str:
    return f"{curve['metric'].replace('_', ' ')} on {curve['set']} by documents of the {curve['grows']}".capitalize()


def shown(curve: dict[str, Any], loss: float) -> float:
    """A loss as the metric has it: of a share the loss is what it lacks to 1."""
    return 1 - loss if curve["better"] == "higher" else loss


def points(curve: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each size the mean over the seeds, its interval, and the value of each."""
    found = []
    for number, size in enumerate(curve["sizes"]):
        ends = sorted(shown(curve, curve[name][number]) for name in ("low", "high"))
        mean = shown(curve, curve["mean"][number])
        found.append({"size": size, "mean": mean, "low": ends[0], "high": ends[1], "values": curve["values"][number]})
    return found


def advice(curve: dict[str, Any]) -> list[str]:
    """What a curve says, in sentences."""
    if curve["refused"]:
        return [f"No law is told: {curve['refused']}."]
    name = curve["metric"].replace("_", " ")
    loss = f"1 - {name}" if curve["better"] == "higher" else name
    law = LAWS[curve["form"]].format(**curve["parameters"])
    said = [f"{loss} = {law}." if curve["form"] != "flat" else f"{loss}: {law}."]
    others = "; ".join(
        f"{one['form']} {shown(curve, one['predicted']):.4g}{' (refuted by the other sizes)' if one['refuted'] else ''}"
        for one in curve["tried"]
    )
    largest = curve["sizes"][-1]
    measured = shown(curve, curve["mean"][-1])
    said.append(f"Without the {largest:,}, where {measured:.4g} was measured, the laws predict: {others}.")
    knee = curve["saturation"]
    if knee["refused"]:
        said.append(f"No saturation is told: {knee['refused']}.")
    else:
        where = "at or below the smallest size" if knee["below"] else f"at about {knee['size']:,} documents"
        said.append(
            f"It saturates {where} ({_interval(knee)}): from there on doubling gains less than the noise of a training "
            f"({curve['noise']:.2g})."
        )
    for key, what in (
        ("next", "The next {:,} documents"),
        ("doubling", "Twice the largest size, {:,} documents more,"),
    ):
        one = curve[key]
        said.append(
            f"{what.format(one['documents'])} would {'raise' if curve['better'] == 'higher' else 'lower'} it by "
            f"{one['gain']:.2g} ({one['low']:.2g} to {one['high']:.2g})."
        )
    if budget := curve["budget"]:
        wanted = f"{name} {curve['wanted']:.4g}"
        if budget["refused"]:
            said.append(f"{wanted}: {budget['refused']}.")
        else:
            said.append(
                f"{wanted} needs about {budget['size']:,} documents ({_interval(budget)}), {budget['times']:.2g} times "
                "the largest size."
            )
    return said


def theory(curve: dict[str, Any]) -> list[str]:
    """What the linear theory says of a curve of the subset, in sentences."""
    found = curve["theory"]
    if found is None:
        return []
    name = curve["metric"].replace("_", " ")
    said = [
        f"The linear theory, {name} by the sum of the documents' scores, predicts "
        f"{shown(curve, found['predicted']):.4g} at the largest size by the others."
    ]
    if found["refused"]:
        return [*said, f"Nothing is told of the sources: {found['refused']}."]
    gains = [f"{row['source']} {row['gain']:.2g}" for row in found["sources"]]
    shortened = [*gains[:SOURCES], "...", *gains[-1:]] if len(gains) > SOURCES + 1 else gains
    return [*said, f"So 1,000 more documents would gain, by source: {', '.join(shortened)}."]


def _interval(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return "it may as well lie beyond the data"
    return f"{found['low']:,} to {found['high']:,}" if found["high"] is not None else f"{found['low']:,} or more"


def opening(found: dict[str, Any]) -> list[str]:
    """What was run, and what it cost."""
    grown = ", ".join(
        f"the {grows} at {len(sizes)} sizes from {sizes[0]:,} to {sizes[-1]:,}"
        for grows, sizes in {curve["grows"]: curve["sizes"] for curve in found["curves"]}.items()
    )
    seconds = ", ".join(f"{kind} {found['total'][kind]:,.0f} s" for kind in ("selection", "training", "judging"))
    paid = found["total"]["money"]
    cost = "" if paid is None else f", {paid:,.2f} {found['currency']}"
    untold = [f"Nothing is told of the sources: {found['theory_refused']}."] if found["theory_refused"] else []
    return [f"{grown}, {len(found['seeds'])} seeds each.", f"It took {seconds}{cost}.", *untold]


def picture(curve: dict[str, Any]) -> Picture:
    """Documents on a logarithmic scale: the interval, the law, each training, and the knee."""
    line = curve["line"] or []
    sizes = [*curve["sizes"], *(one["size"] for one in line)]
    values = [value for row in curve["values"] for value in row]
    values += [shown(curve, one[name]) for one in line for name in ("low", "high")]
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    x = Scale(math.log(min(sizes)), math.log(max(sizes)), LEFT, WIDTH - RIGHT)
    y = Scale(low - pad, high + pad, HEIGHT - BOTTOM, TOP)

    def place(size: float, value: float) -> str:
        return f"{x.at(math.log(size))} {y.at(value)}"

    def path(name: str) -> list[str]:
        return [place(one["size"], shown(curve, one[name])) for one in line]

    marks = []
    if line:
        band = "M" + "L".join([*path("low"), *reversed(path("high"))]) + "z"
        marks = [
            Mark(band, "fill corpus faint", "95% interval"),
            Mark("M" + "L".join(path("value")), "line chosen", "law"),
        ]
    dots = "".join(
        f"M{place(size, value)}h0" for size, row in zip(curve["sizes"], curve["values"], strict=True) for value in row
    )
    marks.append(Mark(dots, "dots chosen", "a training"))
    knee = (curve["saturation"] or {}).get("size")
    ends = f"from {shown(curve, curve['mean'][0]):.4g} to {shown(curve, curve['mean'][-1]):.4g}"
    return Picture(
        title(curve),
        f"{len(curve['sizes'])} sizes from {curve['sizes'][0]:,} to {curve['sizes'][-1]:,} documents, {ends}.",
        marks,
        x_ticks=[(x.at(math.log(size)), f"{size:,}") for size in curve["sizes"]],
        y_ticks=y.ticks(4),
        x_label="documents",
        y_label=curve["metric"].replace("_", " "),
        lines=[(x.at(math.log(knee)), "the knee")] if knee else [],
    )
