"""What `gotd compare` prints: a line for each arm, in 80 columns, with what differs from noise called so."""

from __future__ import annotations

from typing import Any

from gotd_ray.show_arms import WIDTH, comparison


def row(arm: str, value: float, **given: Any) -> dict[str, Any]:
    place = {"judge": "perplexity", "set": "target", "metric": "perplexity", "better": "lower"}
    return place | {"arm": arm, "budget": 200, "seeds": 3, "value": value, "low": value - 1, "high": value + 1} | given


def against(value: float, verdict: str) -> dict[str, Any]:
    return {"difference": [value, value - 0.1, value + 0.1], "wins": 1, "pairs": 1, "verdict": verdict}


def found(*rows: dict[str, Any], **given: Any) -> dict[str, Any]:
    arms = dict.fromkeys((one["arm"], one["budget"]) for one in rows)
    costs = [{"arm": arm, "budget": budget, "seconds": 12.4, "report": None} for arm, budget in arms]
    state = {"against": "target_only", "cells": 9, "cells_in_all": 9, "settings": {"out": "runs/x"}}
    return state | {"rows": list(rows), "costs": costs} | given


def test_a_line_for_each_arm_the_best_first() -> None:
    rows = [row("base", 15.3, budget=None, **against(1.29, "worse")), row("target_only", 14.02, budget=None),
            row("gotd_debiased", 13.42, **against(-0.6, "better"))]  # fmt: skip
    rows += [row("base", 20.0, set="general", budget=None, **against(-1.0, "better")),
             row("target_only", 21.0, set="general", budget=None),
             row("gotd_debiased", 21.04, set="general", **against(0.04, "within noise"))]  # fmt: skip
    lines = list(comparison(found(*rows)))
    assert lines[-6:] == [
        "arm            target             general                   seconds",
        "gotd_debiased  13.42 -0.6 better  21.04 +0.04 within noise  12",
        "target_only    14.02              21                        12",
        "base           15.3 +1.29 worse   20 -1 better              12",
        "more metrics, intervals and reports:",
        "runs/x/compare.html",
    ]
    assert max(map(len, lines)) <= WIDTH and not any("few seeds" in line for line in lines)


def test_budgets_metrics_and_what_is_not_done() -> None:
    rows = [row("nearest", 2.0, budget=budget, seeds=1) for budget in (100, 2000)]
    rows += [row("nearest", 0.5, budget=100, metric="bits_per_byte", seeds=1)]
    rows += [row("nearest", 0.9, budget=100, judge="classification", metric="accuracy", better="higher", seeds=1)]
    lines = list(comparison(found(*rows, cells=2)))
    assert "nearest 100    2       12" in lines and "nearest 2,000  2       12" in lines
    assert not any("bits" in line for line in lines), "the page has them"
    assert any(line.startswith("accuracy (higher is better)") for line in lines) and "nearest  0.9     12" in lines
    assert "2 of 9 cells are done." in lines and any("few seeds" in line for line in lines)


def test_money_stands_beside_seconds_where_an_hour_has_a_price() -> None:
    told = found(row("target_only", 2.0, budget=None))
    told["settings"] |= {"costs": {"per_hour": 360.0, "currency": "EUR"}}
    told["costs"] = [one | {"money": 1.24} for one in told["costs"]]
    lines = list(comparison(told))
    assert "arm          target  seconds  EUR" in lines and "target_only  2       12       1.24" in lines


def test_a_comparison_of_which_nothing_is_judged_yet() -> None:
    assert next(comparison(found(cells=1))) == "1 of 9 cells are done."
