"""A run over files of any format gives what it gives over those of another: the same texts are the same documents."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import Row, documents

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


def test_csv_and_arrow_files_give_the_subset_of_parquet_and_json_lines(library: Path, tmp_path: Path) -> None:
    corpus, target = documents()
    for folder, rows in (("corpus", corpus), ("target", target)):
        (tmp_path / folder).mkdir()
        write_csv(tmp_path / folder / "a.csv.gz", rows[::2])
        write_arrow(tmp_path / folder / "b.arrow", rows[1::2])
    found = [
        pipeline.execute(make_run(tmp_path / f"run{number}", folder, select={"method": "nearest"}), Progress())
        for number, folder in enumerate((library, tmp_path))
    ]
    facts = found[1].manifests["embed"]
    assert facts is not None and facts["corpus"]["skipped"].keys() <= {"too_short"}
    subsets = [pq.read_table(plan.artifacts["select"].path("subset.parquet")) for plan in found]
    assert subsets[1].num_rows == 40
    assert {Path(path).name for path in subsets[1]["path"].to_pylist()} == {"a.csv.gz", "b.arrow"}
    columns = ["doc_id", "text", "source", "score", "chunk"]
    assert subsets[0].select(columns) == subsets[1].select(columns)
