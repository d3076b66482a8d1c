"""The benchmark of tuning: its files and its intervals; its trainings are those of tests/training."""

from __future__ import annotations

from pathlib import Path

import bench_tune
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def test_without_data_it_is_said_that_there_is_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("GOTD_DATA", raising=False)
    with pytest.raises(SystemExit) as end:
        bench_tune.main([str(tmp_path / "out")])
    assert end.value.code == 0 and not list(tmp_path.iterdir())
    assert capsys.readouterr().out.startswith("skipped: set GOTD_DATA to a folder with corpus/")


def test_no_text_is_in_two_splits_and_all_classes_are_learnt(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    for split, label in (("train", "a"), ("dev", "a"), ("test", "b")):
        own = [{"text": f"A text that {split} has alone, number {n}", "label": label} for n in range(30)]
        shared = [{"text": f"A text that all of the splits have, {n}", "label": "ab"[n % 2]} for n in range(30)]
        rare = [{"text": f"A text of {split} with a rare class", "label": "c"}]
        pq.write_table(pa.Table.from_pylist(own + shared + rare), tmp_path / "task" / f"{split}.parquet")
    found = bench_tune.files(tmp_path / "task", tmp_path, 20, 25)
    rows = {split: pq.read_table(path).to_pylist() for split, path in found.items()}
    texts = {split: {row["text"] for row in some} for split, some in rows.items()}
    assert (len(rows["test"]), len(rows["dev"])) == (25, 20) and len(rows["train"]) >= 20
    assert not texts["train"] & texts["test"] and not texts["dev"] & (texts["train"] | texts["test"])
    assert {row["label"] for row in rows["train"]} == {"a", "b", "c"}


def test_the_interval_is_students() -> None:
    # Mean 2, spread 1, of three: 4.303 / sqrt(3) = 2.4843.
    assert bench_tune.interval([1.0, 2.0, 3.0]) == "+2.0000 (-0.4843 to +4.4843)"
