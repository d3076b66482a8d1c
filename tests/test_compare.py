"""`gotd compare`: what an arm is, which cells there are, and that the table is what the examples say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_run

from gotd_ray import checks, compare, config, pipeline, show_arms
from gotd_ray.arms import Cell, cells, run_of, selects
from gotd_ray.errors import UserError
from gotd_ray.judging.intervals import _resampled, difference, interval
from gotd_ray.judging.perplexity import JUDGE
from gotd_ray.progress import Progress
from gotd_ray.results import STAGES

PERPLEXITY = JUDGE.metrics[0]
TRAINING = {"max_tokens": 64, "batch_size": 4, "steps": 2, "workers": 1, "learning_rate": 1e-3}


def settings(folder: Path, library: Path, base: object, **sections: Any) -> config.Run:
    given = {
        "model": {"base": str(base), "precision": "float32"},
        "pretune": TRAINING,
        "finetune": TRAINING,
        "evaluate": {"perplexity": {"held": f"{library}/target"}, "resamples": 200},
        "compare": {"seeds": [0]},
    }
    kept = {name: section for name, section in (given | sections).items() if section is not None}
    return pipeline.resolve_paths(make_run(folder, library, **kept))


def test_every_arm_has_a_cell_for_each_budget_and_seed_it_depends_on(library: Path, tmp_path: Path) -> None:
    found = cells(settings(tmp_path, library, "x", compare={"seeds": [3, 4], "budgets": [10, 20]}))
    assert len(found) == len(set(found)) == 1 + 2 + 7 * 2 * 2
    assert {cell.arm for cell in found} == set(config.compare.ARMS)
    assert [cell.name for cell in found if cell.arm == "target_only"] == ["target_only-s3", "target_only-s4"]


def test_arms_share_their_selection_where_it_is_the_same_and_nothing_else(library: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, "x", compare={"seeds": [0, 1]})
    runs = {cell: run_of(run, cell) for cell in cells(run) if selects(cell.arm)}
    assert len({one.out for one in runs.values()}) == len(runs)
    for cell, one in runs.items():
        assert one.pretune and one.pretune.seed == cell.seed
        twin = runs[Cell(cell.arm, cell.budget, 1 - (cell.seed or 0))]
        by_chance = cell.arm in ("random", "dsir")
        assert (one.selection != twin.selection) == by_chance
        assert (one.select.seed != twin.select.seed) == by_chance
        assert one.seed == twin.seed
    assert len({one.selection for one in runs.values()}) == 7 + 2


def test_arms_differ_in_the_way_they_select_alone(library: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, "x", select={"budget": 40, "near_duplicate": 0.8})
    for cell in cells(run):
        one = run_of(run, cell)
        same = {"select": run.select, "solve": run.solve, "pretune": run.pretune, "finetune": run.finetune}
        assert one.model_copy(update=same).model_dump(exclude={"name", "out", "selection", "evaluate", "compare"}) == (
            run.model_dump(exclude={"name", "out", "selection", "evaluate", "compare"})
        )
        assert one.select.model_copy(update={"method": "gotd", "rounds": 1, "seed": None}) == run.select


def test_a_path_with_a_dollar_sign_is_expanded_once(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOTD_X", "/elsewhere")
    run = settings(tmp_path, library, "x", corpus={"paths": "$GOTD_X/$$GOTD_X"})
    assert run.corpus.paths == ["/elsewhere/$GOTD_X"]
    assert run_of(run, Cell("nearest", 40, 0)).corpus == run.corpus


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"compare": None}, r"no section `compare`"),
        ({"evaluate": None}, r"nothing judges the arms: add the section `evaluate`"),
        ({"pretune": None}, r"add `pretune`"),
        ({"finetune": None}, r"target_only is a fine-tune alone"),
        ({"pretune": {"epochs": 2}}, r"set pretune.steps or pretune.tokens"),
    ],
)
def test_arms_that_could_not_be_compared_are_refused(
    library: Path, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        cells(settings(tmp_path, library, "x", **sections))


def test_an_arm_that_does_not_go_with_the_run_is_refused_by_name(library: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, "x", contrast={"paths": f"{library}/target"})
    with pytest.raises(UserError, match=r"the arm gotd_rounds cannot be run: .*cannot go with contrast.*drop it"):
        run_of(run, Cell("gotd_rounds", 40, 0))
    judge = {"classification": {"paths": f"{library}/target"}}
    run = settings(tmp_path, library, "x", evaluate=judge, finetune=TRAINING | {"label_column": "label"})
    with pytest.raises(UserError, match=r"the arm base cannot be run: there is no judge"):
        run_of(run, Cell("base", None, None))


def test_the_paper_arm_is_the_papers_whatever_the_debiased_one_was_set_to(library: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, "x", solve={"epsilon": 0.3, "tolerance": 1e-4})
    paper, debiased = (run_of(run, Cell(arm, 40, 0)).solve for arm in ("gotd_paper", "gotd_debiased"))
    assert (paper.preset, paper.epsilon, paper.tolerance) == ("paper", None, None)
    assert (debiased.preset, debiased.epsilon, debiased.tolerance) == ("debiased", 0.3, 1e-4)


def test_an_arm_without_documents_runs_no_stage_that_chooses_some(library: Path, tmp_path: Path) -> None:
    run, cell = settings(tmp_path, library, "x"), Cell("target_only", None, 0)
    assert compare._stages(cell) == ("finetune", "evaluate")
    assert run_of(run, cell).pretune is None
    assert run_of(run, cell).finetune is not None
    surveyed = settings(tmp_path, library, "x", survey={"keep": 1})
    assert run_of(surveyed, cell).survey is None and run_of(surveyed, Cell("random", 40, 0)).survey


def test_arms_that_no_common_judge_looked_at_are_told_apart(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settings(tmp_path, library, "x", compare={"seeds": [0], "arms": ["base", "target_only", "random"]})
    found = {
        "base": {("perplexity", "held"): examples(0) | {"bytes": np.full(60, 99)}},
        "target_only": {("classification", "test"): labels(0)},
        "random": {("classification", "test"): labels(1)},
    }
    monkeypatch.setattr(compare, "_examples", lambda plan, _run: found[plan])
    monkeypatch.setattr(compare, "_cost", lambda _run, plans, cell: {"seconds": float(len(plans)), "report": cell.name})
    told = compare.tell(run, {cell: cell.arm for cell in cells(run)}, 3)  # type: ignore[misc]
    assert {(row["judge"], row["arm"]) for row in told["rows"]} == {
        ("perplexity", "base"), ("classification", "target_only"), ("classification", "random")
    }  # fmt: skip
    assert {row["arm"] for row in told["rows"] if "difference" in row} == {"random"}


def labels(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.choice(["a", "b"], 60) for name in ("label", "predicted")} | {"nll": rng.random(60)}


def test_an_arm_to_be_held_against_must_be_there(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="against is target_only, which is not among the arms"):
        settings(tmp_path, library, "x", compare={"arms": ["base", "random"]})


def examples(seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    tokens = rng.integers(5, 50, 60)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=60)
    return {"nll": tokens * (3 + rng.normal(scale=0.3, size=60) + noise + shift), "tokens": tokens}


def test_one_run_has_the_interval_of_its_examples() -> None:
    ((drawn, value),) = _resampled(PERPLEXITY, [examples(0)], 1, 1000)
    bounds = np.quantile(drawn, [0.025, 0.975])
    assert interval(PERPLEXITY, [examples(0)], 1) == pytest.approx((value, *bounds))


def test_the_mean_over_runs_lies_in_an_interval_that_holds_their_spread() -> None:
    runs = [examples(seed, shift=0.2 * seed) for seed in range(3)]
    value, low, high = interval(PERPLEXITY, runs, 1)
    alone = [interval(PERPLEXITY, [one], 1) for one in runs]
    assert value == pytest.approx(np.mean([one[0] for one in alone]))
    assert high - low > 1.5 * max(one[2] - one[1] for one in alone)


def test_equal_runs_differ_by_nothing_and_better_ones_are_below() -> None:
    same = [(examples(seed), examples(seed)) for seed in range(3)]
    assert difference(PERPLEXITY, same, 1) == (0, 0, 0)
    better = [(examples(seed, shift=-0.1), examples(seed)) for seed in range(3)]
    assert difference(PERPLEXITY, better, 1)[2] < 0


def test_every_arm_is_looked_at_before_the_first_one_runs(
    library: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last arm asks for more documents than there are; no cluster is started for the first."""
    monkeypatch.setattr(compare, "connected", lambda _: pytest.fail("something ran"))
    comparison = {"seeds": [0], "arms": ["base", "target_only", "nearest"], "budgets": [40, 70_000]}
    run = settings(tmp_path, library, llama, compare=comparison)
    with pytest.raises(UserError) as caught:
        compare.compare(run, Progress())
    said = str(caught.value)
    assert said.startswith("the arm nearest: select.budget is 70,000, but the corpus has ")
    assert said.endswith(" distinct documents. Lower the budget, or add to corpus.paths.")
    assert said.isprintable() and not list(tmp_path.iterdir())


def test_all_arms_that_choose_are_looked_at_alike_and_trained_alike(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(pipeline, "plan", lambda run: run)

    def look(run: config.Run, only: Any) -> Any:
        looked[run.name.removeprefix("run-")] = tuple(only)
        return checks.Look(told=[f"of {run.select.method}", "of all"])

    monkeypatch.setattr(compare, "look", look)
    arms = ["base", "target_only", "random", "nearest"]
    comparison = {"seeds": [0, 1], "arms": arms, "budgets": [10, 30, 20]}
    chosen = {"dsir_min_words": 5, "seed": 3, "budget": 40}
    evaluate = {"perplexity": {"held": "elsewhere"}}
    run = settings(tmp_path, library, "x", compare=comparison, select=chosen, evaluate=evaluate)
    ignored = "select.dsir_min_words does nothing here: select.method is not dsir."
    assert compare.check(run) == [ignored, "of gotd", "of all", "of random", "of nearest"]
    assert list(looked) == ["base", "target_only-s0", "random-b30-s0", "nearest-b30-s0"]
    assert looked["random-b30-s0"] == STAGES
    assert looked["target_only-s0"] == ("finetune", "evaluate") and looked["base"] == ("evaluate",)
    assert set(STAGES) - set(looked["nearest-b30-s0"]) == {"pretune", "finetune", "evaluate"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_a_comparison_runs_each_arm_once_and_tells_its_examples_numbers(
    library: Path, llama: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings(
        tmp_path, library, llama, finetune=None, compare={"seeds": [0], "arms": ["base", "nearest"], "against": "base"}
    )
    told: list[str] = []
    found = compare.compare(run, Progress(), lambda cell, plan: told.extend(show_arms.chosen(cell, plan)))
    first = pq.read_table(tmp_path / "selections" / "nearest-b40" / "select" / "subset.parquet").to_pylist()[0]
    assert told[0].startswith("nearest: 40 of ") and max(map(len, told[:-2])) <= show_arms.WIDTH
    assert any(line.startswith(f"    1 {first['score']:8.4f}  {first['source']}: ") for line in told)
    assert sum(line.startswith("        pulled by: ") for line in told) == show_arms.DOCUMENTS
    rows = {row["arm"]: row for row in found["rows"] if row["metric"] == "perplexity"}
    assert set(rows) == {"base", "nearest"}
    for cell in cells(run):
        plan = pipeline.plan(pipeline.resolve_paths(run_of(run, cell)))
        (measured,) = [one for one in plan.manifests["evaluate"]["results"] if one["metric"] == "perplexity"]
        assert rows[cell.arm]["value"] == pytest.approx(measured["value"])
    assert "difference" not in rows["base"]
    assert rows["nearest"]["difference"][0] == pytest.approx(rows["nearest"]["value"] - rows["base"]["value"])
    assert not (tmp_path / "arms" / "base" / "embed").exists()
    capsys.readouterr()
    assert (found["ran"], found["skipped"]) == (["base", "nearest-b40-s0"], [])
    assert compare.compare(run, Progress()) == found | {"ran": [], "skipped": found["ran"]}
    assert "steps" not in capsys.readouterr().err
