"""What `gotd compare` prints: the documents that were chosen, and a line for each arm. Plain text of 80 columns."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from gotd_ray import storage
from gotd_ray.arms import Cell
from gotd_ray.index import table_of
from gotd_ray.report.comparison import first_places, tables
from gotd_ray.results import COMPARISON_PAGE, NUMBERS, PAGE, SUBSET
from gotd_ray.stage import Plan

WIDTH = 80
SOURCES = 3
DOCUMENTS = 5


def chosen(cell: Cell, plan: Plan) -> Iterator[str]:
    """Which sources a selection took most from, its first documents and what pulls them, where a report says it; and
    where the files lie. Of a selection without a report a line alone.

    Args:
        plan: whose selection is done.
    """
    facts, subset = plan.ran["select"], plan.artifacts["select"].path(SUBSET)
    yield f"{cell.arm}: {facts['documents']:,} of {facts['candidates']:,} documents chosen"
    if "report" in plan.ran:
        yield from _sources(facts)
        yield from _first(plan, subset)
        yield f"  the report so far: {plan.artifacts['report'].path(PAGE)}"
    yield f"  the documents: {subset}"


def _sources(facts: dict[str, Any]) -> Iterator[str]:
    """Those that have grown most, each with its share of the corpus and of the subset."""
    total, taken = facts["candidates"], max(facts["documents"], 1)
    shares = {source: (there / total, some / taken) for source, (there, some) in facts["sources"].items()}
    grown = sorted(shares, key=lambda source: (shares[source][0] - shares[source][1], source))[:SOURCES]
    parts = [f"{source} {shares[source][0]:.0%} and {shares[source][1]:.0%}" for source in grown]
    yield from _wrapped("of the corpus and of the subset, what grew most: " + "; ".join(parts))


def _first(plan: Plan, subset: str) -> Iterator[str]:
    data = storage.read_if_there(subset, plan.run.storage)
    if data is None:
        return
    numbers = json.loads(storage.read_bytes(plan.artifacts["report"].path(NUMBERS), plan.run.storage))
    pulls = {one["doc_id"]: one["pulls"] for one in numbers["samples"]["top"]}
    yield f"  the first {DOCUMENTS}, their scores (lower is better), the target text that pulls most:"
    for row in table_of(data).slice(0, DOCUMENTS).to_pylist():
        yield _cut(f"  {row['rank']:>3} {row['score']:>8.4f}  {row['source']}: {_line(row['text'])}")
        if found := pulls.get(row["doc_id"]):
            yield _cut(f"        pulled by: {_line(found[0]['text'] or '(its text is not there any more)')}")


def comparison(found: dict[str, Any]) -> Iterator[str]:
    """By each judge's first metric, and its mean and worst over modes, a line for each arm; all else stands in the
    page, whose path is the last line.

    Args:
        found: what ``compare.compare`` returns.
    """
    told = [one for one in tables(found) if one["place"] in first_places(found)]
    costs = {(row["arm"], row["budget"]): row for row in found["costs"]}
    currency = (found["settings"].get("costs") or {}).get("currency")
    for alike in _alike(told):
        metric, better = alike[0]["place"][2].replace("_", " "), alike[0]["better"]
        yield ""
        yield from _wrapped(
            f"{metric} ({better} is better), and minus {found['against']}: called better or worse where the 95% "
            "interval of the difference does not hold 0",
            "",
        )
        yield from _lines(alike, costs, currency)
    if own := found.get("tuned"):
        yield ""
        yield from _wrapped(
            f"tuned arms are held against {found['against']} as tuned, and this against itself as it was:", ""
        )
        for one in own:
            setting = ", ".join(f"{name} {value:g}" for name, value in one["setting"].items())
            yield from _wrapped(f"{one['arm']}: {setting}")
    if found["cells"] < found["cells_in_all"]:
        yield f"{found['cells']} of {found['cells_in_all']} cells are done."
    if max((row["seeds"] for row in found["rows"]), default=3) < 3:
        yield from _wrapped("With so few seeds the intervals show next to none of the spread between seeds.", "")
    yield "more metrics, intervals and reports:"
    yield storage.join(found["settings"]["out"], COMPARISON_PAGE)


def _alike(told: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Tables of one metric, two by two: so many stand beside each other."""
    by: dict[Any, list[dict[str, Any]]] = {}
    for one in told:
        by.setdefault((one["place"][0], one["place"][2]), []).append(one)
    return [every[i : i + 2] for every in by.values() for i in range(0, len(every), 2)]


def _lines(alike: Sequence[dict[str, Any]], costs: dict[Any, dict[str, Any]], currency: str | None) -> Iterator[str]:
    """Arms in the order of the first table, the best first, and below it those that it lacks."""
    arms = list(dict.fromkeys((row["arm"], row["budget"]) for one in alike for row in one["rows"]))
    rows = [["arm", *(one["place"][1] for one in alike), "seconds", *([currency] if currency else [])]]
    for arm, budget in arms:
        name = arm if len({b for a, b in arms if a == arm}) == 1 else f"{arm} {budget:,}"
        cells = [next((_value(row) for row in one["rows"] if (row["arm"], row["budget"]) == (arm, budget)), "")
                 for one in alike]  # fmt: skip
        paid = [f"{costs[arm, budget]['money']:,.2f}"] if currency else []
        rows.append([name, *cells, f"{costs[arm, budget]['seconds']:,.0f}", *paid])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _value(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return f"{row['value']:.4g}"
    return f"{row['value']:.4g} {row['difference'][0]:+.3g} {row['verdict']}"


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def _line(text: str) -> str:
    """A text on one line, without what a terminal would act on."""
    return " ".join("".join(one if one.isprintable() else " " for one in text[: 4 * WIDTH]).split())


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
