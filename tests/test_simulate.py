"""The model of large runs against the rows of RESULTS.md that it was not made from, and against the program."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import simulate
from corpora import write_index
from test_benchmarks import tables

from gotd_ray import config
from gotd_ray.ot.shard import How, segment_count, shard_segments
from gotd_ray.shards.work import Holding, Problem, Work

RESULTS = Path(simulate.__file__).with_name("RESULTS.md").read_text(encoding="utf-8").replace(",", "")


@pytest.mark.parametrize("one", simulate.RECORDED, ids=lambda one: one.what)
def test_it_meets_what_was_measured_within_a_fifth(one: simulate.Recorded) -> None:
    assert abs(one.off) < 0.2
    assert re.search(rf"\b{one.measured:g}\b", RESULTS), "a number that RESULTS.md does not have"


def test_by_hand() -> None:
    """Of 10^9 documents, as RESULTS.md has them since the index was built."""
    assert simulate.parts(1e9) == 13_352 and simulate.opens(1e9, 250) == 13_601
    assert simulate.opens(1e8, 25) == 1_360
    assert simulate.traffic(5000, 100) == 100 * 5000 * 16


@pytest.mark.parametrize("kept", [False, True])
def test_the_traffic_of_a_pass_is_what_travels(tmp_path: Path, kept: bool) -> None:
    """Question and answers of two shards, as they are pickled for Ray."""
    rng, m, d = np.random.default_rng(0), 2000, 8
    y = rng.normal(size=(m, d)).astype(np.float32)
    embedded = write_index(tmp_path, rng.normal(size=(500, d)), y)
    count, g = segment_count(500), np.zeros(m)
    problem = Problem("p", y, np.full(m, 1 / m), 1.0, "float32")
    travelled = 0
    for shard, part in enumerate(shard_segments(count, 2)):
        work = Work(Holding(embedded, config.Storage(), part, count, "cpu", 1, shard))
        question = (g, 500.0, 1, How(base=np.full(m, 1e-3)) if kept else How(keep=True))
        travelled += len(pickle.dumps(question, 5)) + len(pickle.dumps(work.columns(problem, *question), 5))
    assert travelled == pytest.approx(simulate.traffic(m, 2, kept=kept), rel=0.02)


def test_it_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    simulate.main(["--documents", "1e6", "--gpus", "2"])
    recorded, large = tables(capsys.readouterr().out)
    assert (
        len(recorded) == len(simulate.RECORDED)
        and {row["what"]: row["value"] for row in large}["parts of vectors (objects)"] == "14"
    )
