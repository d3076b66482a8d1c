"""A run with select.method dsir: its weights are those of the texts, whatever the files, and the stage is done once."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import documents, write_parquet
from rich.console import Console

from gotd_ray import config, pipeline, results, show
from gotd_ray.choosing.dsir import dsir_scores, features, log_ratio
from gotd_ray.progress import Progress
from gotd_ray.stages import dsir
from gotd_ray.text.documents import read_documents
from gotd_ray.text.tally import Tally

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

MIN_WORDS = 60


def settings(out: Path, library: Path, **select: object) -> config.Run:
    return make_run(out, library, select={"method": "dsir", "dsir_min_words": MIN_WORDS, "budget": 40} | select)


def table(plan: pipeline.Plan, stage: str, name: str) -> dict[str, list[object]]:
    return pq.read_table(plan.artifacts[stage].path(name)).to_pydict()


def distinct_texts(run: config.Run, section: config.Text) -> dict[str, str]:
    """By id, read one file after another."""
    files = sorted(Path(section.paths[0]).iterdir())
    found = (read_documents(str(file), section, run.chunks, run.storage, Tally()) for file in files)
    return dict(sorted((document.doc_id, document.text) for documents in found for document in documents))


@pytest.fixture(scope="module")
def reference(library: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> pipeline.Plan:
    return pipeline.execute(settings(tmp_path_factory.mktemp("dsir") / "out", library), Progress())


def test_the_scores_are_those_of_the_distinct_texts_with_noise_by_id(reference: pipeline.Plan) -> None:
    run = reference.run
    corpus, target = distinct_texts(run, run.corpus), distinct_texts(run, run.target)
    found = features(list(corpus.values()))
    weights = found.log_weights(log_ratio(features(list(target.values())).counts(), found.counts()))
    ids = np.array(list(corpus), "S32")
    scores = dsir_scores(ids, weights, found.words(), min_words=MIN_WORDS, seed=run.seed)
    written = table(reference, "select", "scores")
    assert written["doc_id"] == list(corpus)
    assert written["score"] == scores.tolist()
    subset = table(reference, "select", "subset.parquet")
    assert set(subset["doc_id"]) <= {name for name, count in zip(corpus, found.words(), strict=True) if count >= 60}
    assert len(subset["doc_id"]) == 40
    facts = reference.manifests["dsir"]
    assert facts is not None
    assert facts["corpus"]["documents"] == len(corpus)
    assert facts["target"]["ngrams"] == features(list(target.values())).counts().sum()
    for name in ("corpus", "target"):
        assert facts[name]["documents_read"] == facts[name]["documents_embedded"] >= facts[name]["documents"]


def test_repeats_and_other_files_and_shards_change_nothing_and_later_runs_share_the_weights(
    library: Path, tmp_path: Path, reference: pipeline.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dsir, "RANGE_NGRAMS", 5000)
    rows = list(documents()[0])
    random.Random(1).shuffle(rows)
    for i in range(3):
        write_parquet(tmp_path / "corpus" / f"{'zyx'[i]}.parquet", rows[i::3] + rows[: 20 * i])
    (tmp_path / "corpus" / "broken.parquet").write_bytes(b"PAR1 and no more")
    shutil.copytree(library / "target", tmp_path / "target")
    again = settings(tmp_path / "out", tmp_path)
    again = again.model_copy(
        update={
            "solve": config.Solve(shards=3),
            "corpus": again.corpus.model_copy(update={"max_bad_files": 0.5}),
        }
    )
    plan = pipeline.execute(again, Progress())
    assert table(plan, "select", "subset.parquet")["doc_id"] == table(reference, "select", "subset.parquet")["doc_id"]
    facts = plan.manifests["dsir"]
    assert facts is not None
    assert [bad["reason"] for bad in facts["corpus"]["bad_files"]] == ["unreadable"]
    assert facts["corpus"]["documents_read"] == facts["corpus"]["documents_embedded"] >= len(rows) + 60
    assert not (tmp_path / "out" / "dsir" / "ngrams").exists()
    assert len(list((tmp_path / "out" / "dsir" / "weights").iterdir())) >= 8
    weights = table(reference, "dsir", "weights")
    assert weights == table(plan, "dsir", "weights")

    largest = again.model_copy(update={"select": again.select.model_copy(update={"dsir_sample": False})})
    before = pipeline.plan(pipeline.resolve_paths(largest))
    assert (before.done("dsir"), before.done("select"), "solve" in before.steps) == (True, False, False)
    scores = table(pipeline.execute(largest, Progress()), "select", "scores")["score"]
    assert scores != table(reference, "select", "scores")["score"]


def test_too_few_long_documents_leave_the_budget_unspent_and_show_says_why(
    library: Path, tmp_path: Path, reference: pipeline.Plan
) -> None:
    shutil.copytree(Path(reference.run.out), tmp_path / "out")
    long_only = settings(tmp_path / "out", library, dsir_min_words=220, budget=400)
    plan = pipeline.execute(long_only, Progress())
    facts = plan.manifests["select"]
    assert facts is not None
    assert not facts["budget_reached"]
    assert facts["documents"] + sum(facts["set_aside"].values()) + facts["left_out"] == facts["candidates"]
    console = Console(record=True, width=200)
    show.results(results.read(plan.run), console)
    shown = console.export_text()
    assert f"{facts['left_out']:,} are shorter than select.dsir_min_words" in shown
    assert "n-grams of" in shown
