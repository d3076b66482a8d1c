"""The benchmark of scale at toy size."""

from __future__ import annotations

from pathlib import Path

import bench_scale
import pytest
from corpora import documents, write_parquet
from test_benchmarks import tables


@pytest.mark.ray
@pytest.mark.slow
def test_the_same_ids_and_each_part_opened_as_often_as_the_formula_says(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, target = documents()
    write_parquet(tmp_path / "data" / "corpus" / "a.parquet", corpus)
    write_parquet(tmp_path / "data" / "tasks" / "chemprot" / "train.parquet", target)
    monkeypatch.setenv("GOTD_DATA", str(tmp_path / "data"))
    sizes = ["--documents", "700", "--shards", "1", "3", "--budget", "40"]
    bench_scale.main([str(tmp_path / "scale"), *sizes, "--encoder", str(bert)])
    (table,) = tables(capsys.readouterr().out)
    assert [row["shards"] for row in table] == ["1", "3"]
    for row in table:
        assert row["the same ids"] == "yes"
        assert int(row["documents"]) > 600
        opened, foretold = row["opened / foretold"].split(" / ")
        assert opened == foretold
        assert 1 <= int(row["a corpus file read again, at most"]) <= 2
