"""A run over files of any format gives what it gives over those of another: the same texts are the same documents."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import Row, documents, write_parquet

from gotd_ray import pipeline
from gotd_ray.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def write_csv(path: Path, rows: list[Row]) -> None:
    with gzip.open(path, "wt", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("source", "text"), *((source, text) for text, source in rows)])


def write_arrow(path: Path, rows: list[Row]) -> None:
    table = pa.table({"text": [text for text, _ in rows], "source": [source for _, source in rows]})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=50)


def subset(out: Path, name: str, write: Callable[[Path, list[Row]], None]) -> pa.Table:
    corpus, target = documents()
    for folder, rows in (("corpus", corpus), ("target", target)):
        (out / folder).mkdir(parents=True)
        write(out / folder / f"a{name}", rows[::2])
        write(out / folder / f"b{name}", rows[1::2])
    run = make_run(out / "run", out, select={"method": "nearest"})
    plan = pipeline.execute(run, Progress())
    facts = plan.manifests["embed"]
    assert facts is not None and facts["corpus"]["skipped"].keys() <= {"too_short"}
    found = pq.read_table(plan.artifacts["select"].path("subset.parquet"))
    assert {Path(path).name for path in found["path"].to_pylist()} == {f"a{name}", f"b{name}"}
    return found.select(["doc_id", "text", "source", "score", "row", "chunk"])


def test_csv_and_arrow_files_give_the_subset_of_parquet_files(tmp_path: Path) -> None:
    expected = subset(tmp_path / "parquet", ".parquet", write_parquet)
    assert expected.num_rows == 40
    assert subset(tmp_path / "csv", ".csv.gz", write_csv) == expected
    assert subset(tmp_path / "arrow", ".arrow", write_arrow) == expected
