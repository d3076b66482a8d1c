"""Fit once, score anything: contrast, reference and given potentials through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import documents, write_parquet

from gotd_ray import config, pipeline
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def run(settings: config.Run) -> pipeline.Plan:
    return pipeline.execute(settings, Progress())


def scores(plan: pipeline.Plan) -> dict[str, float]:
    table = pq.read_table(plan.artifacts["select"].path("scores"))
    return dict(zip(table["doc_id"].to_pylist(), table["score"].to_pylist(), strict=True))


def chosen(plan: pipeline.Plan) -> list[str]:
    return pq.read_table(plan.artifacts["select"].path("subset.parquet"))["doc_id"].to_pylist()


@pytest.fixture(scope="module")
def first(library: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> pipeline.Plan:
    return run(make_run(tmp_path_factory.mktemp("first") / "out", library))


def test_a_reference_that_is_the_corpus_changes_nothing(library: Path, tmp_path: Path, first: pipeline.Plan) -> None:
    same = {"paths": f"{library}/corpus", "source_column": "source"}
    plan = run(make_run(tmp_path / "out", library, reference=same, solve={"sample": 10**6}))
    assert scores(plan) == scores(first)
    assert chosen(plan) == chosen(first)
    manifest = plan.manifests["solve"]
    assert manifest is not None
    assert manifest["over"] == "reference"


def test_given_potentials_score_as_the_run_that_made_them_and_score_new_documents(
    library: Path, tmp_path: Path, first: pipeline.Plan
) -> None:
    write_parquet(tmp_path / "new" / "new.parquet", documents()[1][:20])
    potentials = first.artifacts["solve"].path("potentials.safetensors")
    plan = run(
        make_run(
            tmp_path / "out",
            library,
            corpus={"paths": [f"{library}/corpus", f"{tmp_path}/new"]},
            solve={"potentials": potentials},
        )
    )
    before, after = scores(first), scores(plan)
    assert len(after) > len(before)
    # Twenty more documents leave the number of segments, and so every product's shape in all but their own segments.
    assert all(after[doc_id] == pytest.approx(score, abs=1e-5) for doc_id, score in before.items())
    again = run(make_run(tmp_path / "again", library, solve={"potentials": potentials}))
    assert scores(again) == before
    assert chosen(again) == chosen(first)
    with pytest.raises(UserError, match=r"max_tokens: 32.*max_tokens: 64"):
        run(make_run(tmp_path / "other", library, solve={"potentials": potentials}, encoder={"max_tokens": 64}))
    assert not (tmp_path / "other").exists()


def test_a_changed_contrast_redoes_solve_and_select_and_embeds_itself_alone(
    library: Path, tmp_path: Path, first: pipeline.Plan
) -> None:
    def with_contrast(module: str) -> config.Run:
        write_parquet(tmp_path / module / "rows.parquet", [row for row in documents()[0] if row[1] == module])
        return make_run(tmp_path / "out", library, contrast={"paths": f"{tmp_path}/{module}"})

    plan = run(with_contrast("argparse"))
    embedded = plan.manifests["embed"]
    assert embedded is not None
    assert embedded["corpus"]["embedded_now"] == embedded["target"]["embedded_now"] == 0
    assert embedded["contrast"]["documents"] == embedded["contrast"]["embedded_now"] > 0
    assert scores(plan).keys() == scores(first).keys()
    assert chosen(plan) != chosen(first)
    other = pipeline.plan(with_contrast("subprocess"))
    missing = {name: len(c.index.snapshot(c.files)[1]) for name, c in other.collections.items()}
    assert missing == {"corpus": 0, "target": 0, "contrast": 1}
    assert not other.done("solve")
    assert not other.done("select")


def test_a_run_does_not_start_from_the_potentials_that_it_writes(library: Path, tmp_path: Path) -> None:
    own = f"{tmp_path}/out/solve/potentials.safetensors"
    with pytest.raises(UserError, match=r"which this run itself writes"):
        run(make_run(tmp_path / "out", library, solve={"warm_start": own}))
