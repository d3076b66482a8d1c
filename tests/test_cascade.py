"""A cascade through the whole pipeline: the best of a corpus by cheap vectors, encoded in full."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import documents, write_corpus

from gotd_ray import config, pipeline
from gotd_ray.choosing import recall
from gotd_ray.config.run import Run
from gotd_ray.earlier import own_potentials
from gotd_ray.progress import Progress

BUDGET = 400


def make(folder: Path, library: Path, bert: Path, cascade: object, **sections: dict[str, Any]) -> config.Run:
    encoder = {"model": str(bert), "cascade": cascade}
    select = {"budget": BUDGET, "near_duplicate": None}  # the tiny model's vectors are all near each other
    solve = {"landmarks": 50} | sections.pop("solve", {})
    return make_run(folder, library, encoder=encoder, select=select, solve=solve, **sections)


def chosen(plan: pipeline.Plan) -> list[str]:
    return pq.read_table(plan.artifacts["select"].path("subset.parquet"))["doc_id"].to_pylist()


def scores(plan: pipeline.Plan) -> dict[str, float]:
    table = pq.read_table(plan.artifacts["select"].path("scores"))
    return dict(zip(table["doc_id"].to_pylist(), table["score"].to_pylist(), strict=True))


def kept(plan: pipeline.Plan) -> set[str]:
    return set(pq.read_table(plan.artifacts["sieve"].path(plan.ran["sieve"]["file"]))["doc_id"].to_pylist())


def potentials(plan: pipeline.Plan, stage: str) -> Any:
    return own_potentials(plan.artifacts[stage].path("potentials.safetensors"), config.Storage())


def by_cheap_score(plan: pipeline.Plan) -> list[str]:
    """All documents, the best first, scored here."""
    found = plan.sketches.read().candidates.documents(plan.sketches.width)
    order = np.lexsort((found.ids, potentials(plan, "coarse").scorer()(found.ids, found.vectors)))
    return found.ids[order].astype(str).tolist()


@pytest.fixture(scope="module", autouse=True)
def small_sample() -> Any:
    """The corpus of the tests has some hundreds of documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "FITTED", 60)
        yield


@pytest.fixture(scope="module")
def whole(library: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> pipeline.Plan:
    return pipeline.execute(make(tmp_path_factory.mktemp("whole") / "out", library, bert, 1), Progress())


@pytest.fixture(scope="module")
def plan(library: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory, whole: pipeline.Plan) -> pipeline.Plan:
    return pipeline.execute(make(tmp_path_factory.mktemp("auto") / "out", library, bert, "auto"), Progress())


@pytest.mark.ray
def test_the_best_of_the_whole_corpus_are_found(whole: pipeline.Plan, plan: pipeline.Plan) -> None:
    assert "sieve" not in whole.steps  # a share of 1 is none
    sieve, selected = plan.ran["sieve"], plan.ran["select"]
    every, left = scores(whole), kept(plan)
    best = sorted(every, key=lambda one: (every[one], one))[:BUDGET]
    assert len(left.intersection(best)) >= 0.97 * BUDGET
    assert len(left) < len(every) == sieve["candidates"] == selected["candidates"]
    assert set(scores(plan)) == left
    assert selected["scored"] == len(left) == sieve["kept"] == plan.ran["refine"]["corpus"]["documents"]
    assert selected["sources"].keys() == whole.ran["select"]["sources"].keys()
    assert [many for many, _ in selected["sources"].values()] == [
        many for many, _ in whole.ran["select"]["sources"].values()
    ]


@pytest.mark.ray
def test_what_is_kept_is_the_best_by_the_cheap_score_and_the_sample(plan: pipeline.Plan) -> None:
    facts, ranked, left = plan.ran["sieve"], by_cheap_score(plan), kept(plan)
    below = math.floor(min(recall.AMONG_THE_BEST / BUDGET, 1) * 16**15)
    sample = {one for one in ranked if int(one[:15], 16) < below}
    assert facts["sample"] == len(sample)
    assert facts["best"] == math.floor(BUDGET / len(ranked) * len(sample))
    count = next(k for k in range(len(ranked), 0, -1) if ranked[k - 1] in left - sample)
    assert left == sample.union(ranked[:count])


@pytest.mark.ray
def test_a_score_means_what_it_means_without(whole: pipeline.Plan, plan: pipeline.Plan) -> None:
    ours, theirs = potentials(plan, "solve"), potentials(whole, "solve")
    assert ours.landmark_ids.tolist() == theirs.landmark_ids.tolist()
    assert plan.ran["solve"]["over"] == "reference"
    every, some = scores(whole), scores(plan)
    pairs = np.array([(every[one], score) for one, score in some.items()])
    assert np.corrcoef(pairs.T)[0, 1] > 0.95


@pytest.mark.ray
def test_shards_and_files_change_nothing(library: Path, bert: Path, tmp_path: Path, plan: pipeline.Plan) -> None:
    write_corpus(tmp_path / "corpus", documents()[0][::-1], files=3)
    corpus = {"paths": f"{tmp_path}/corpus", "source_column": "source"}
    settings = make(tmp_path / "out", library, bert, "auto", corpus=corpus, solve={"shards": 3})
    settings = settings.model_copy(update={"index": str(tmp_path / "index")})
    half = pipeline.execute(settings, Progress(), ("sketch", "coarse", "embed", "solve", "sieve"))
    assert half.manifests["refine"] is None
    again = pipeline.execute(settings, Progress())
    assert again.did[:1] == ("refine",)  # what was done is taken up
    assert kept(again) == kept(plan)
    assert chosen(again) == chosen(plan)
    assert scores(again) == scores(plan)
    encoded = [again.ran[stage][name]["embedded_now"] for stage, name in (("embed", "reference"), ("refine", "corpus"))]
    assert sum(encoded) == again.ran["sieve"]["kept"]  # each once, and no other
    # a share of one's own, by the same cheap vectors
    fixed = settings.model_copy(update={"encoder": settings.encoder.model_copy(update={"cascade": 0.3})})
    third = pipeline.execute(fixed, Progress(), ("sketch", "coarse", "embed", "solve", "sieve"))
    assert third.did == ("embed", "solve", "sieve")
    ranked = by_cheap_score(third)
    wanted, sample = math.ceil(0.3 * len(ranked)), third.ran["sieve"]["sample"]
    assert kept(third).issuperset(ranked[:wanted])
    assert wanted <= len(kept(third)) <= wanted + sample


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"encoder": {"cascade": 0.2, "kind": "static"}}, "encoder.kind is static"),
        ({"select": {"method": "random"}}, "select.method is random"),
        ({"select": {"rounds": 2}}, "select.rounds above 1"),
        ({"reference": {"paths": "r"}}, "cannot go with reference"),
        ({"curve": {"subset": [100, 200, 400, 800]}}, "cannot go with curve"),
        ({"select": {"budget_unit": "tokens"}, "encoder": {"cascade": "auto"}}, "a budget in documents"),
    ],
)
def test_what_does_not_go_with_it_is_refused(sections: dict[str, Any], said: str) -> None:
    given = {"out": "o", "corpus": {"paths": "c"}, "target": {"paths": "t"}, "encoder": {"cascade": 0.2}}
    with pytest.raises(ValueError, match=said):
        Run.model_validate(given | sections)
    assert Run.model_validate(given).cascade == 0.2
