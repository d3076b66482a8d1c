"""The main job on small real input: what comes out, what is skipped, and that the split of the work does not matter."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import documents, write_parquet

from gotd_ray import config, pipeline
from gotd_ray.errors import UserError
from gotd_ray.ot.potentials import Potentials
from gotd_ray.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def run(settings: config.Run) -> pipeline.Plan:
    return pipeline.execute(settings, Progress())


def chosen(plan: pipeline.Plan) -> list[str]:
    return pq.read_table(plan.artifacts["select"].path("subset.parquet"))["doc_id"].to_pylist()


def facts(plan: pipeline.Plan, stage: str) -> dict[str, Any]:
    manifest = plan.manifests[stage]
    assert manifest is not None
    return manifest


@pytest.fixture(scope="module")
def reference(library: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> pipeline.Plan:
    """The library's run in one shard."""
    return run(make_run(tmp_path_factory.mktemp("reference") / "out", library, solve={"shards": 1}))


def test_the_subset_holds_the_budget_in_rank_order_with_its_text(reference: pipeline.Plan) -> None:
    table = pq.read_table(reference.artifacts["select"].path("subset.parquet"))
    texts = {text for text, _ in documents()[0]}
    assert table["rank"].to_pylist() == list(range(1, 41))
    assert table["score"].to_pylist() == sorted(table["score"].to_pylist())
    assert len(set(table["doc_id"].to_pylist())) == 40
    joined = "\n".join(" ".join(text.split()) for text in texts)
    assert all(" ".join(text.split()) in joined for text in table["text"].to_pylist())
    assert table.column_names == [
        *("doc_id", "text", "source", "path", "row", "chunk", "chars", "tokens", "score", "rank", "round"),
    ]


def test_the_subset_leans_towards_the_target(reference: pipeline.Plan) -> None:
    """The target is documentation about numbers; the module about numbers must be taken beyond its share."""
    sources = facts(reference, "select")["sources"]
    available, taken = sources["numbers"]
    share = taken / 40
    assert share > 3 * available / facts(reference, "select")["candidates"]


def test_scores_of_all_candidates_are_exported_and_agree_with_the_potentials_file(reference: pipeline.Plan) -> None:
    scores = pq.read_table(reference.artifacts["select"].path("scores")).to_pandas().set_index("doc_id")["score"]
    subset = pq.read_table(reference.artifacts["select"].path("subset.parquet")).to_pandas()
    aside = pq.read_table(reference.artifacts["select"].path("set_aside.parquet")).to_pandas()
    assert len(scores) == facts(reference, "select")["candidates"]
    assert (scores[subset.doc_id].to_numpy() == subset.score.to_numpy()).all()
    best = scores.reset_index().sort_values(["score", "doc_id"]).head(len(subset) + len(aside)).doc_id
    assert set(best) == set(subset.doc_id) | set(aside.doc_id)
    potentials = Potentials.from_bytes(Path(reference.artifacts["solve"].path("potentials.safetensors")).read_bytes())
    assert potentials.facts["residual"] == facts(reference, "solve")["residual"] <= 1e-3


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_the_same_ids_for_any_number_of_shards(
    library: Path, tmp_path: Path, reference: pipeline.Plan, shards: int
) -> None:
    plan = run(make_run(tmp_path / "out", library, solve={"shards": shards}))
    assert chosen(plan) == chosen(reference)


@pytest.mark.slow
def test_the_same_ids_for_files_in_another_order_and_cut(
    library: Path, tmp_path: Path, reference: pipeline.Plan
) -> None:
    """Rows shuffled over differently named files, and embedded anew."""
    rows = list(documents()[0])
    random.Random(1).shuffle(rows)
    for i in range(3):
        write_parquet(tmp_path / "corpus" / f"{'zyx'[i]}.parquet", rows[i::3])
    settings = make_run(tmp_path / "out", library, corpus={"paths": f"{tmp_path}/corpus"})
    plan = run(settings.model_copy(update={"index": str(tmp_path / "index")}))
    assert chosen(plan) == chosen(reference)


def test_a_second_run_does_nothing(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_run(tmp_path / "out", library)
    run(settings)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    run(settings)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert capsys.readouterr().err.count("skipped") == 4


def test_a_changed_setting_redoes_only_what_depends_on_it(library: Path, tmp_path: Path) -> None:
    first = run(make_run(tmp_path / "out", library))
    larger = pipeline.plan(make_run(tmp_path / "out", library, select={"budget": 50}))
    assert [larger.done(stage) for stage in ("embed", "solve", "select")] == [True, True, False]
    paper = pipeline.plan(make_run(tmp_path / "out", library, solve={"preset": "paper"}))
    assert [paper.done(stage) for stage in ("embed", "solve", "select")] == [True, False, False]
    assert first.artifacts["solve"].key != paper.artifacts["solve"].key


def test_a_new_file_is_embedded_alone_and_a_removed_one_leaves(library: Path, tmp_path: Path) -> None:
    shutil.copytree(library / "corpus", tmp_path / "corpus")
    settings = make_run(tmp_path / "out", library, corpus={"paths": f"{tmp_path}/corpus"})
    settings = settings.model_copy(update={"index": str(tmp_path / "index")})
    first = facts(run(settings), "embed")["corpus"]
    write_parquet(tmp_path / "corpus" / "new.parquet", documents()[1][:20])
    second = facts(run(settings), "embed")["corpus"]
    assert second["embedded_now"] == second["documents"] - first["documents"] > 0
    (tmp_path / "corpus" / "part-0.parquet").unlink()
    third = facts(run(settings), "embed")["corpus"]
    assert third["embedded_now"] == 0
    assert third["documents"] < first["documents"]


def test_files_that_arrive_during_a_run_are_left_to_the_next(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(library / "corpus", tmp_path / "corpus")
    settings = make_run(tmp_path / "out", library, corpus={"paths": f"{tmp_path}/corpus"})
    (solve,) = (stage for stage in pipeline.STAGES if stage.name == "solve")

    def meanwhile(*arguments: Any) -> dict[str, Any]:
        write_parquet(tmp_path / "corpus" / "late.parquet", documents()[1][:20])
        return solve.work(*arguments)

    late = replace(solve, work=meanwhile)
    monkeypatch.setattr(pipeline, "STAGES", tuple(late if stage is solve else stage for stage in pipeline.STAGES))
    finished = run(settings)
    assert all(finished.done(stage) for stage in finished.steps)
    assert not pipeline.plan(pipeline.resolve_paths(settings)).ran


@pytest.mark.parametrize("method", ["mmd", "nearest", "random"])
def test_other_scorers_need_no_solve_and_choose_otherwise(
    library: Path, tmp_path: Path, reference: pipeline.Plan, method: str
) -> None:
    plan = run(make_run(tmp_path / "out", library, select={"method": method}))
    assert "solve" not in plan.steps
    assert len(chosen(plan)) == 40
    assert chosen(plan) != chosen(reference)


def test_a_share_of_zero_is_a_source_left_out_and_redoes_the_solve_alone(library: Path, tmp_path: Path) -> None:
    one = {"statistics": 1, "random": 0, "fractions": 0}
    run(make_run(tmp_path / "shares", library, target={"proportions": dict.fromkeys(one, 1)}))
    shared = pipeline.plan(pipeline.resolve_paths(make_run(tmp_path / "shares", library, target={"proportions": one})))
    assert [shared.done(stage) for stage in ("embed", "solve", "select")] == [True, False, False]
    shared = run(make_run(tmp_path / "shares", library, target={"proportions": one}))
    others = {"exclude_sources": ["random", "fractions"]}
    assert chosen(shared) == chosen(run(make_run(tmp_path / "alone", library, target=others)))


def test_a_token_budget_is_reached_and_not_overshot_by_a_document(library: Path, tmp_path: Path) -> None:
    plan = run(make_run(tmp_path / "out", library, select={"budget": 2000, "budget_unit": "tokens"}))
    tokens = pq.read_table(plan.artifacts["select"].path("subset.parquet"))["tokens"].to_pylist()
    assert sum(tokens) >= 2000 > sum(tokens[:-1])


def test_near_duplicates_and_evaluation_texts_give_way_with_their_reason(library: Path, tmp_path: Path) -> None:
    rows = [(text, "copy") for text, _ in documents()[1] if len(text) > 120]
    copies = [(text + " Added words.", source) for text, source in rows[:8]]
    write_parquet(tmp_path / "extra" / "copies.parquet", rows[:8] + copies)
    write_parquet(tmp_path / "eval" / "held_out.parquet", rows[8:16])
    write_parquet(tmp_path / "extra" / "leaked.parquet", [("Preface. " + text, "leak") for text, _ in rows[8:16]])
    plan = run(
        make_run(
            tmp_path / "out",
            library,
            corpus={"paths": [f"{library}/corpus", f"{tmp_path}/extra"]},
            select={"near_duplicate": 0.93, "decontaminate": {"paths": f"{tmp_path}/eval"}, "budget": 60},
        )
    )
    aside = pq.read_table(plan.artifacts["select"].path("set_aside.parquet")).to_pandas()
    subset = pq.read_table(plan.artifacts["select"].path("subset.parquet")).to_pandas()
    contaminated = aside[aside.reason == "contaminated"]
    assert len(contaminated) >= 6
    assert contaminated.other.str.startswith("held_out.parquet:").all()
    assert (contaminated.span.str.split().str.len() >= 13).all()
    assert "leak" not in set(subset.source)
    twins = aside[aside.reason == "near_duplicate"]
    assert len(twins) >= 4
    assert set(twins.other) <= set(subset.doc_id)
    assert len(subset) == 60


def test_a_budget_above_the_corpus_is_refused_before_any_work(library: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"select\.budget is 90,000, but the corpus has 1,\d+ distinct documents. Lower"
    ):
        run(make_run(tmp_path / "out", library, select={"budget": 90_000}))
    assert not (tmp_path / "out").exists()


def test_an_empty_target_is_refused_before_any_work(library: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "empty" / "rows.parquet", [("short", "x"), ("", "x")])
    with pytest.raises(
        UserError, match=r"the target has no document: 2 rows read, left out: 1 empty_text, 1 too_short"
    ):
        run(make_run(tmp_path / "out", library, target={"paths": f"{tmp_path}/empty", "max_bad_rows": 1}))
    assert not (tmp_path / "out").exists()


def test_duckdb_pandas_and_datasets_read_the_subset(reference: pipeline.Plan, tmp_path: Path) -> None:
    import datasets
    import duckdb
    import pandas

    path = reference.artifacts["select"].path("subset.parquet")
    (count,) = duckdb.sql(f"select count(*) from '{path}' where length(text) > 0").fetchall()[0]
    loaded = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path))
    assert count == len(pandas.read_parquet(path)) == len(loaded) == 40
    assert loaded[0]["text"] == pandas.read_parquet(path).text[0]


def test_rounds_lower_the_divergence_and_end_alike_for_any_number_of_shards(
    library: Path, tmp_path: Path, reference: pipeline.Plan
) -> None:
    one, three = (
        run(make_run(tmp_path / str(n), library, solve={"shards": n}, select={"rounds": 4, "mix": 0.3})) for n in (1, 3)
    )
    found = facts(one, "select")
    table = pq.read_table(one.artifacts["select"].path("subset.parquet"))
    assert table["round"].to_pylist() == [1] * 10 + [2] * 10 + [3] * 10 + [4] * 10
    assert table["rank"].to_pylist() == list(range(1, 41))
    assert chosen(one) == chosen(three)
    assert found["rounds"] == facts(three, "select")["rounds"]
    assert chosen(one)[:10] == chosen(reference)[:10]
    assert set(chosen(one)) != set(chosen(reference))
    assert len(set(chosen(one))) == 40
    steps = [part["divergence"] for part in found["rounds"]] + [found["divergence"][1]]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < 0.95 * steps[0]
    assert all(part["residual"] <= 1e-3 for part in found["rounds"])
    scores = [pq.read_table(p.artifacts["select"].path("scores")).sort_by("doc_id") for p in (one, reference)]
    assert scores[0].equals(scores[1])
