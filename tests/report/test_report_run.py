"""The report of real runs: its numbers against the files that the other stages left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_run

from gotd_ray import config, pipeline
from gotd_ray.errors import UserError
from gotd_ray.ot.potentials import Potentials
from gotd_ray.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def report_of(settings: config.Run) -> tuple[dict[str, Any], str]:
    folder = Path(settings.out) / "report"
    return json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


def table(run: config.Run, name: str) -> list[dict[str, Any]]:
    return pq.read_table(Path(run.out) / "select" / name).to_pylist()


def test_the_numbers_are_those_of_the_files(finished: config.Run) -> None:
    facts, _ = report_of(finished)
    subset, scores, aside = (
        table(finished, "subset.parquet"),
        table(finished, "scores"),
        table(finished, "set_aside.parquet"),
    )
    assert facts["selection"]["documents"] == len(subset) == 40
    assert {row["source"]: row["subset"] for row in facts["sources"] if row["subset"]} == {
        source: sum(row["source"] == source for row in subset) for source in {row["source"] for row in subset}
    }
    assert sum(row["corpus"] for row in facts["sources"]) == len(scores) == sum(facts["scores"]["counts"])
    assert sum(facts["scores"]["taken"]) == 40
    assert facts["scores"]["cut"] == subset[-1]["score"]
    assert facts["set_aside"]["counts"] == {
        r: sum(row["reason"] == r for row in aside) for r in {row["reason"] for row in aside}
    }
    top, cut = facts["samples"]["top"], facts["samples"]["cut"]
    assert [one["rank"] for one in top + cut] == [1, 2, 3, 4, 5, 36, 37, 38, 39, 40]
    assert [one["text"] for one in top] == [row["text"] for row in subset[:5]]
    done = {row["doc_id"] for row in subset + aside}
    rest = sorted((row["score"], row["doc_id"]) for row in scores if row["doc_id"] not in done)
    assert [(one["score"], one["doc_id"]) for one in facts["samples"]["below"]] == rest[:5]
    assert [step["stage"] for step in facts["flow"]] == ["embed", "solve", "select"]
    assert all(step["seconds"] > 0 for step in facts["flow"])


def test_pulls_and_what_is_lacking_are_the_transports(finished: config.Run) -> None:
    facts, page = report_of(finished)
    solved = Potentials.from_bytes((Path(finished.out) / "solve" / "potentials.safetensors").read_bytes())
    assert solved.target_ids is not None
    ids = [name.decode() for name in solved.target_ids]
    assert [one["doc_id"] for one in facts["worst_served"]] == [ids[j] for j in np.argsort(-solved.g)[:8]]
    vectors = {}
    for path in Path(str(finished.index)).glob("*/*/vectors/parts/*.parquet"):
        vectors |= {
            row["doc_id"]: row["vector"] for row in pq.read_table(path, columns=["doc_id", "vector"]).to_pylist()
        }
    for one in facts["samples"]["top"] + facts["samples"]["below"]:
        x = np.asarray(vectors[one["doc_id"]], np.float64)
        mass = solved.b * np.exp((solved.g - ((x - solved.target) ** 2).sum(1)) / solved.epsilon)
        best = np.argsort(-mass)[:3]
        assert [pull["doc_id"] for pull in one["pulls"]] == [ids[j] for j in best]
        assert [pull["share"] for pull in one["pulls"]] == pytest.approx(list(mass[best] / mass.sum()), rel=1e-6)
        assert all(len(pull["text"]) >= 40 for pull in one["pulls"])
    assert "What the corpus lacks" in page


def test_the_report_written_anew_is_the_same_but_for_times(finished: config.Run) -> None:
    facts, page = report_of(finished)
    path = pipeline.write_report(finished, Progress())
    again, page_again = report_of(finished)
    assert Path(path).read_text() == page_again
    for one in (facts, again):
        one.pop("hardware")  # a cluster is known to a run only
    assert again == facts
    start = page.index("<h2>Where the subset")
    assert page[start : page.index("<h2>How it was made")] in page_again


@pytest.mark.parametrize("method", ["random", "mmd", "nearest", "dsir"])
def test_without_a_solve_its_sections_fall_away(
    small_library: Path, tmp_path: Path, method: str, finished: config.Run
) -> None:
    settings = make_run(
        tmp_path / "out", small_library, select={"method": method, "export_scores": method != "nearest"}
    )
    pipeline.execute(settings, Progress())
    facts, page = report_of(settings)
    assert facts["solve"] is None and facts["worst_served"] == [] and "What the corpus lacks" not in page
    assert ("Scores and the cut" in page) == (method != "nearest")
    assert bool(facts["samples"]["below"]) == (method in ("random", "mmd")), "of dsir all others are too short"
    assert all(pull["share"] is None and -1 <= pull["cosine"] <= 1 for pull in facts["samples"]["top"][0]["pulls"])
    assert facts["divergence"]["corpus"] > 0
    assert "Sinkhorn divergence to the target" in page


def test_a_report_of_nothing_says_what_to_do(small_library: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no selection is done under .* Run gotd run first"):
        pipeline.write_report(make_run(tmp_path / "out", small_library), Progress())
