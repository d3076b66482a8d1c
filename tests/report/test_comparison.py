"""The page of a comparison: every arm in its place, and nothing said that the numbers do not say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gotd_ray.report.comparison import opening, tables
from gotd_ray.report.render import comparison_page


def row(arm: str, value: float, **more: Any) -> dict[str, Any]:
    place = {"judge": "perplexity", "set": "held", "metric": "perplexity", "better": "lower"}
    place |= {"arm": arm, "budget": None, "seeds": 3}
    return place | {"value": value, "low": value - 1, "high": value + 2} | more


def versus(verdict: str, *difference: float) -> dict[str, Any]:
    return {"verdict": verdict, "difference": list(difference), "wins": 2, "pairs": 3}


@pytest.fixture
def found() -> dict[str, Any]:
    return {
        "run": "<script>alert(1)</script>",
        "against": "target_only",
        "cells": 5,
        "cells_in_all": 7,
        "rows": [
            row("target_only", 20.0),
            row("random", 21.0, budget=500, **versus("within noise", 1.0, -0.5, 2.5)),
            row("gotd_debiased", 18.0, budget=500, **versus("better", -2.0, -3.0, -1.0)),
            row("base", 30.0, **versus("worse", 10.0, 8.0, 12.0)),
        ],
        "costs": [
            {"arm": "random", "budget": 500, "seconds": 61.0, "report": "arms/random-b500-s0/report/report.html"}
        ],
        "versions": {"gotd_ray": "0"},
        "settings": {"name": "</pre><img src=x onerror=alert(2)>"},
    }


def test_the_best_arm_comes_first_whatever_better_means(found: dict[str, Any]) -> None:
    (table,) = tables(found)
    assert [one["arm"] for one in table["rows"]] == ["gotd_debiased", "target_only", "random", "base"]
    for one in found["rows"]:
        one |= {"metric": "accuracy", "better": "higher"}
    (table,) = tables(found)
    assert [one["arm"] for one in table["rows"]] == ["base", "random", "target_only", "gotd_debiased"]


def test_bars_keep_the_order_of_the_numbers_and_stay_on_the_picture(found: dict[str, Any]) -> None:
    (table,) = tables(found)
    for one in table["rows"]:
        assert 0 <= one["from"] < one["at"] < one["to"] <= 100
        assert one["line"] == next(other["at"] for other in table["rows"] if other["arm"] == "target_only")
    assert [one["at"] for one in table["rows"]] == sorted(one["at"] for one in table["rows"])


def test_the_opening_words_say_what_is_noise_and_what_is_missing(found: dict[str, Any]) -> None:
    said = " ".join(opening(found))
    assert "better: gotd_debiased (500); worse: base; within noise: random (500)" in said
    assert "Only 5 of 7 runs are done." in said
    assert "few seeds" not in said
    for one in found["rows"]:
        one["seeds"] = 1
    assert "few seeds" in " ".join(opening(found))


def test_the_page_holds_no_markup_of_others_and_loads_nothing(found: dict[str, Any]) -> None:
    page = comparison_page(found)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=[\"'](?!data:,|arms/)", page)
    assert "within noise" in page


def test_the_cost_is_told_by_kind_and_in_money_where_it_is_known(found: dict[str, Any]) -> None:
    assert "EUR" not in comparison_page(found) and ">61 s<" in comparison_page(found)
    found["costs"] = [one | {"selection": 600.0, "training": 3.0, "money": 7.125} for one in found["costs"]]
    found["settings"]["costs"] = {"per_hour": 1.0, "currency": "EUR"}
    page = comparison_page(found)
    assert ">10 min<" in page and ">3.0 s<" in page and ">7.12<" in page and ">EUR<" in page
