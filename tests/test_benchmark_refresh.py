"""The benchmark of a month of refreshes at toy size."""

from __future__ import annotations

from pathlib import Path

import bench_refresh
import pytest
from corpora import documents, write_parquet
from test_benchmarks import tables


@pytest.mark.ray
@pytest.mark.slow
def test_a_day_encodes_what_has_come_and_the_last_is_a_run_from_nothing(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, target = documents()
    write_parquet(tmp_path / "data" / "corpus" / "a.parquet", corpus[:500])
    write_parquet(tmp_path / "data" / "corpus" / "b.parquet", corpus[500:600])
    write_parquet(tmp_path / "data" / "tasks" / "chemprot" / "train.parquet", target)
    monkeypatch.setenv("GOTD_DATA", str(tmp_path / "data"))
    sizes = ["--documents", "400", "--days", "2", "--budget", "30", "--late", "b", "--max-tokens", "32"]
    bench_refresh.main([str(tmp_path / "month"), *sizes])
    days, end = tables(capsys.readouterr().out)
    assert [row["day"] for row in days] == ["0", "1", "2"]
    for row in days:
        assert row["encoded"] == row["came"]
    assert [row["came"] for row in days] == ["400", "48", "9"]
    unchanged, nothing, _ = end
    assert unchanged["encoded"] == "0" and nothing["encoded"] == days[-1]["documents"]
    common, near = nothing["documents in common with"].split()[0], nothing["near the cut"]
    assert int(common) >= 30 - int(near)
