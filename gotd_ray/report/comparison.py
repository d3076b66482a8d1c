"""The page of `gotd compare`: its opening words, and each metric's arms, the best first."""

from __future__ import annotations

from typing import Any

from gotd_ray.report.plots import Scale


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One for each judge, set and metric, with the places of its bars on a picture 100 wide.

    Args:
        found: what stands in ``compare.json``.
    """
    places = dict.fromkeys((row["judge"], row["set"], row["metric"]) for row in found["rows"])
    return [_table(found, place) for place in places]


def _table(found: dict[str, Any], place: tuple[str, str, str]) -> dict[str, Any]:
    rows = [row for row in found["rows"] if (row["judge"], row["set"], row["metric"]) == place]
    better = rows[0]["better"]
    rows.sort(key=lambda row: row["value"], reverse=better == "higher")
    scale = Scale(min(row["low"] for row in rows), max(row["high"] for row in rows), 3.0, 97.0)
    line = next((scale.at(row["value"]) for row in rows if row["arm"] == found["against"]), None)
    drawn = [
        row | {"from": scale.at(row["low"]), "to": scale.at(row["high"]), "at": scale.at(row["value"]), "line": line}
        for row in rows
    ]
    return {
        "place": place,
        "title": f"{place[2].replace('_', ' ')} on {place[1]}".capitalize(),
        "better": better,
        "rows": drawn,
    }


def first_places(found: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Judge, set and metric of each judge's first metric, and of its mean and worst over modes."""
    first = {(row["judge"], row["set"]): row["metric"] for row in reversed(found["rows"])}
    whose = ("", "_mean_mode", "_worst_mode")
    return {(judge, name, metric + which) for (judge, name), metric in first.items() for which in whose}


def opening(found: dict[str, Any]) -> list[str]:
    """What was compared, and by each judge's first metric which arms differ from the one they are held against."""
    arms = dict.fromkeys(row["arm"] for row in found["rows"])
    seeds = max(row["seeds"] for row in found["rows"])
    said = [
        f"{len(arms)} arms with the same filters, steps and start, {seeds} {'seed' if seeds == 1 else 'seeds'} each, "
        f"held against {found['against']}."
    ]
    if found["cells"] < found["cells_in_all"]:
        said.append(f"Only {found['cells']} of {found['cells_in_all']} runs are done.")
    places = first_places(found)
    for table in (table for table in tables(found) if table["place"] in places):
        by: dict[str, list[str]] = {}
        for row in table["rows"]:
            if "verdict" in row:
                budget = "" if row["budget"] is None else f" ({row['budget']:,})"
                by.setdefault(row["verdict"], []).append(row["arm"] + budget)
        parts = [
            f"{verdict}: {', '.join(by[verdict])}" for verdict in ("better", "worse", "within noise") if verdict in by
        ]
        said.append(f"{table['title']}: " + "; ".join(parts) + ".")
    if seeds < 3:
        said.append("With so few seeds the intervals show the spread of the examples and next to none of the seeds.")
    return said
