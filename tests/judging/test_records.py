"""Each judge's record: what the rest of the program takes for granted, and that a new one needs no other place."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gotd_ray.config import Judges
from gotd_ray.judging import JUDGES, cases
from gotd_ray.judging.intervals import Metric, columns, ratio
from gotd_ray.judging.judge import Case, Judge
from gotd_ray.judging.measure import SCHEMA, measure, table_of_rows
from gotd_ray.models.objectives import OBJECTIVES

VALUES: dict[pa.DataType, Any] = {
    pa.float64(): [0.25, 0.75], pa.int64(): [3, 4], pa.bool_(): [True, False], pa.string(): ["a", "b"],
}  # fmt: skip


def rows(judge: Judge) -> dict[str, np.ndarray]:
    found = {name: np.array(VALUES[kind], object) for name, kind in judge.columns.items()}
    return found | {"example": np.array(["x", "y"], object)}


def unit(judge: str, model: str) -> cases.Unit:
    return cases.Unit(cases.Judged(model, None, None), Case(judge, "set", {}, ()), "", "")  # type: ignore[arg-type]


def test_the_config_and_the_files_name_the_same_judges_and_no_two_metrics_share_a_name() -> None:
    assert list(JUDGES) == list(Judges.model_fields)
    assert all(judge.kind in OBJECTIVES for judge in JUDGES.values())
    assert set(Counter(metric.name for judge in JUDGES.values() for metric in judge.metrics).values()) == {1}


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_s_metrics_are_told_of_its_own_columns(name: str) -> None:
    judge = JUDGES[name]
    tables = [table_of_rows(unit(name, model), "set", rows(judge)) for model in ("base", "finetune")]
    assert all(table.schema == SCHEMA for table in tables)
    facts = measure(pa.concat_tables(tables), 0, 100)
    assert [(row["metric"], row["better"]) for row in facts["results"]] == 2 * [
        (metric.name, metric.better) for metric in judge.metrics
    ]
    assert all(row["low"] == row["value"] == row["high"] == 0 for row in facts["differences"])
    assert len(facts["differences"]) == len(judge.metrics)
    assert [row["texts"] for row in facts["cut"]] == ([1, 1] if "cut" in judge.columns else [])


def test_a_judge_of_one_s_own_is_a_record_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = Metric("mean_nll", "lower", columns("nll", "tokens"), ratio)
    own = Judge(1, "causal", (mean,), {"nll": pa.float64(), "tokens": pa.int64()}, lambda *_: iter(()), lambda *_: {})
    monkeypatch.setitem(JUDGES, "own", own)
    facts = measure(table_of_rows(unit("own", "base"), "set", rows(own)), 0, 100)
    assert [row["value"] for row in facts["results"]] == [pytest.approx(1 / 7)]
