"""The benchmark of curves at toy size."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_curve
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_benchmarks import numbers, tables

from gotd_ray import config, curve


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gotd_ray.curves.advice.DRAWS", 50)


def test_the_coverage_of_the_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    bench_curve.main(["--coverage", "--trials", "2"])
    (table,) = tables(capsys.readouterr().out)
    assert [row["law"] for row in table[::2]] == list(bench_curve.LAWS)
    assert all(0 <= numbers(row[name])[0] <= 1 for row in table for name in ("next 1,000", "doubling"))


def test_a_curve_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The cells are not run: 15 trainings on Ray would take minutes; tests/test_curve.py runs one."""
    rows = pa.table({"text": [f"text {n}" for n in range(20)], "label": ["a", "b"] * 10})
    for name in ("corpus/one", "tasks/toy/train", "tasks/toy/test"):
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
    monkeypatch.setenv("GOTD_DATA", str(tmp_path / "data"))

    def ran(run: config.Run, _progress: object) -> dict[str, Any]:
        assert run.curve and run.curve.target and run.finetune and run.finetune.steps == 3
        place = {"judge": "classification", "set": "test", "metric": "accuracy", "better": "higher"}
        cells: dict[Any, Any] = {}
        for cell in curve.cells(run):
            row = place | {"value": 0.9 - 1.5 / cell.size**0.5 + 0.001 * cell.seed}
            cells[cell] = SimpleNamespace(manifests={"evaluate": {"results": [row]}})
        return curve.tell(run, cells)

    monkeypatch.setattr(bench_curve, "curve", ran)
    out, sizes = tmp_path / "out", ["--sizes", "25", "50", "100", "200", "400"]
    bench_curve.main([str(out), "--task", "toy", "--steps", "3", "--test", "9", *sizes])
    printed = capsys.readouterr().out
    (table,) = tables(printed)
    laws = {row["accuracy at 400"]: row for row in table}
    assert list(laws) == ["flat", "power", "rectified"]
    measured = 0.9 - 1.5 / 20 + 0.001
    for row in table:
        predicted, error = float(row["predicted without it"]), float(row["measured minus predicted"])
        assert predicted + error == pytest.approx(measured, abs=2e-4)
    assert abs(float(laws["power"]["measured minus predicted"])) < 0.01
    found = re.search(r"advised a gain of (\S+) \((\S+) to (\S+)\); it was (\S+)\.\n", printed)
    assert found and float(found[4]) == pytest.approx(1.5 / 200**0.5 - 1.5 / 20, abs=1e-3)
    assert len(pq.read_table(out / "test.parquet")) == 9
