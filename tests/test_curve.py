"""`gotd curve`: which runs it makes, what it refuses, and that its table and page are what the runs measured."""

from __future__ import annotations

import json
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from tiny import make_task

from gotd_ray import checks, config, curve, curve_sources, pipeline, show_curve
from gotd_ray.costs import in_words, money, spent
from gotd_ray.curve import Cell, cells, run_of, tell
from gotd_ray.curves import advice
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress
from gotd_ray.report.render import curve_page
from gotd_ray.results import CURVE, CURVE_PAGE, STAGES
from gotd_ray.training.task import draw

TRAINING = {"max_tokens": 64, "batch_size": 4, "steps": 2, "workers": 1, "learning_rate": 1e-3}
SIZES = [5, 10, 20, 40]


def settings(folder: Path, library: Path, base: object, **sections: Any) -> config.Run:
    given = {
        "model": {"base": str(base), "precision": "float32"},
        "pretune": TRAINING,
        "finetune": TRAINING,
        "evaluate": {"perplexity": {"held": f"{library}/target"}, "resamples": 200},
        "curve": {"target": SIZES, "subset": SIZES},
    }
    kept = {name: section for name, section in (given | sections).items() if section is not None}
    return pipeline.resolve_paths(make_run(folder, library, **kept))


def test_there_is_a_cell_for_each_size_and_seed_and_one_start_for_each_seed(library: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, "x")
    found = cells(run)
    assert len(found) == len(set(found)) == 3 * (1 + 4 + 4)
    assert [cell.name for cell in found[:3]] == ["warm-s0", "target-40-s0", "target-20-s0"]
    alone = cells(settings(tmp_path, library, "x", pretune=None, curve={"target": SIZES}))
    assert {cell.grows for cell in alone} == {"target"} and len(alone) == 12


def test_the_target_grows_from_one_model_for_each_seed(library: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, "x")
    small, large = (run_of(run, Cell("target", size, 2)) for size in (5, 40))
    assert small.finetune and small.finetune.texts == 5 and large.finetune and large.finetune.texts == 40
    same = {"finetune": None, "name": "", "out": ""}
    assert small.model_copy(update=same) == large.model_copy(update=same)
    warm = run_of(run, Cell("warm", 0, 2))
    assert small.model and small.model.base == f"{warm.out}/pretune/model" and small.pretune is None
    assert warm.pretune and (warm.pretune.texts, warm.pretune.seed, warm.finetune) == (None, 2, None)
    assert Cell("warm", 0, 2).stages[-1] == "pretune" and Cell("target", 5, 2).stages == ("finetune", "evaluate")


def test_the_subset_grows_within_one_selection(library: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, "x")
    small, large = (run_of(run, Cell("subset", size, 1)) for size in (5, 40))
    assert small.pretune and large.pretune and (small.pretune.texts, large.pretune.texts) == (5, 40)
    assert small.selection == large.selection and small.select == large.select == run.select
    assert small.finetune and (small.finetune.texts, small.finetune.seed) == (None, 1)
    assert small.evaluate and small.evaluate.models == ["finetune"]
    assert Cell("subset", 5, 1).stages == STAGES[: STAGES.index("evaluate") + 1]
    judged = run_of(settings(tmp_path, library, "x", finetune=None, curve={"subset": SIZES}), Cell("subset", 5, 1))
    assert judged.evaluate and judged.evaluate.models == ["pretune"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"curve": None}, r"no section `curve`\. Add it, for example: curve: \{target: "),
        ({"evaluate": None}, r"nothing measures the loss: add the section `evaluate`"),
        ({"pretune": None}, r"curve\.subset is what pretune learns from, and there is none: add `pretune`"),
        ({"finetune": None}, r"curve\.target is what finetune learns from, and there is none: add `finetune`"),
        ({"select": {"budget": 30}}, r"curve\.subset goes up to 40, but select\.budget is 30 documents\. Raise"),
        (
            {"curve": {"target": SIZES, "wanted": {"accuracy": 0.8}}},
            r"wanted names accuracy, which no judge of this run gives; they give bits_per_byte, perplexity\.",
        ),
    ],
)
def test_what_gives_no_curve_is_refused(library: Path, tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cells(settings(tmp_path, library, "x", **sections))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "nothing grows. Give target or subset"),
        ({"target": [10, 20]}, "it names 2 sizes, too few for a curve: 4 are the least, and 5 or more also try"),
        ({"target": [10, 20, 40, 50]}, "50 follows 40: each size must be at least 1.5 times the one before"),
        ({"target": [10, 20, 40, 20]}, "20 follows 40"),
        ({"target": SIZES, "seeds": [0, 1]}, "at least 3 items"),
    ],
)
def test_sizes_and_seeds_that_tell_no_curve_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.Curve.model_validate(section)


def test_a_draw_holds_the_smaller_one_and_every_class() -> None:
    keys = [(f"id{number}", "rare" if number == 77 else "often") for number in range(100)]

    def drawn(texts: int, seed: int = 0) -> list[tuple[str, str | None]]:
        task = make_task(Path("x"), "classification", config.Training(texts=texts))
        return draw("target", config_with(task, seed), list(keys))

    def config_with(task: Any, seed: int) -> Any:
        return SimpleNamespace(**(vars(task) | {"seed": seed}))

    sizes = (2, 5, 50, 100)
    nested = [set(drawn(size)) for size in sizes]
    assert [len(one) for one in nested] == list(sizes)
    assert all(small < large for small, large in pairwise(nested))
    assert all({label for _, label in one} == {"rare", "often"} for one in nested)
    assert set(drawn(50, seed=1)) != nested[2] and drawn(50) == drawn(50)
    with pytest.raises(UserError, match=r"pretune\.texts is 101, but target has 100 texts\. Lower it"):
        drawn(101)
    with pytest.raises(UserError, match=r"pretune\.texts is 1, but target has 2 classes, each of which needs a text"):
        drawn(1)


def law(size: int, seed: int) -> float:
    """An accuracy."""
    return 0.9 - 1.5 / size**0.5 + 0.004 * (seed - 1)


def measured(run: config.Run) -> dict[Cell, Any]:
    """Plans of finished cells."""
    found = {}
    for cell in cells(run):
        row = {"judge": "classification", "set": "test", "metric": "accuracy", "better": "higher"}
        facts: dict[str, Any] = {"finetune": {"seconds": float(cell.size)}, "select": {"seconds": 99.0}}
        facts["evaluate"] = {"seconds": 2.0, "results": [row | {"value": law(cell.size, cell.seed)}]}
        found[cell] = SimpleNamespace(manifests=facts, did=("finetune",))
    return found


@pytest.fixture
def told(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(advice, "DRAWS", 100)
    grown = {"target": [25, 50, 100, 200, 400, 800], "wanted": {"accuracy": 0.88}}
    judge = {"classification": {"paths": f"{library}/target"}}
    changes: dict[str, Any] = {"pretune": None, "evaluate": judge, "finetune": TRAINING | {"label_column": "label"}}
    run = settings(tmp_path, library, "x", **changes, curve=grown, costs={"per_hour": 36.0, "currency": "EUR"})
    found = tell(run, measured(run))
    loaded: dict[str, Any] = json.loads(json.dumps(found))
    assert loaded == found
    return found


def test_the_curve_is_what_the_runs_measured(told: dict[str, Any]) -> None:
    (one,) = told["curves"]
    assert one["values"] == [[law(size, seed) for seed in range(3)] for size in one["sizes"]]
    assert one["mean"] == pytest.approx([1 - law(size, 1) for size in one["sizes"]])
    assert one["form"] == "power" and one["parameters"]["beta"] == pytest.approx(0.5, rel=0.1)
    assert one["budget"]["size"] == pytest.approx((1.5 / 0.02) ** 2, rel=0.4)
    assert one["next"]["gain"] == pytest.approx(law(1800, 1) - law(800, 1), rel=0.2)


def test_the_costs_are_those_of_the_cells(told: dict[str, Any]) -> None:
    assert [(row["size"], row["training"], row["judging"]) for row in told["costs"]] == [
        (size, size, 2.0) for size in (800, 400, 200, 100, 50, 25)
    ]
    assert told["costs"][0]["money"] == pytest.approx(8.02)  # 802 s at 36 an hour
    assert told["total"]["training"] == 3 * 1575 and told["total"]["judging"] == 36
    assert told["total"]["selection"] == 0  # nothing is chosen where the target alone grows
    assert told["total"]["money"] == pytest.approx(47.61)


def test_the_screen_and_the_page_say_it_in_the_metrics_own_terms(told: dict[str, Any]) -> None:
    lines = list(show_curve.curves(told))
    assert max(len(line) for line in lines[:-1]) <= 80
    text = " ".join(" ".join(lines).split())
    assert "Accuracy on test by documents of the target (higher is better)" in text
    assert "- 1 - accuracy = 1." in text and "a power law." in text
    assert "would raise it by 0.0" in text and "accuracy 0.88 needs about" in text and "47.61 EUR" in text
    assert "800 0.847 " in text
    page = curve_page(told)
    assert "<script" not in page and page.count("<svg") >= 1 and 'class="fill corpus faint"' in page
    assert page.count("h0") >= 18 and "NaN" not in page and "47.61 EUR" in page


def test_a_refused_curve_has_points_and_the_reason(told: dict[str, Any]) -> None:
    (one,) = told["curves"]
    bad = [[1 - value for value in row] for row in one["values"]]
    said = advice.advise(one["sizes"], advice.as_loss(bad, "higher"), 0)
    found = told | {"curves": [one | {"values": bad} | said]}
    text = " ".join(" ".join(show_curve.curves(found)).split())
    assert "- No law is told: the curve is not monotone: the loss rises from" in text
    assert "fill corpus faint" not in curve_page(found)


def test_seconds_are_told_by_kind_and_in_money() -> None:
    manifests = {"embed": {"seconds": 3.0}, "select": {"seconds": 1.0}, "finetune": {"seconds": 10.0}, "evaluate": None}
    seconds = spent([manifests, {"finetune": {"seconds": 5.0}}])
    assert seconds == {"selection": 4.0, "training": 15.0, "judging": 0.0}
    assert money(19.0, None) is None and money(1800.0, config.Costs(per_hour=3.0)) == 1.5
    assert in_words(seconds, config.Costs(per_hour=360.0)) == "selection 4 s, training 15 s, judging 0 s: 1.90 USD"


def test_the_largest_and_the_smallest_size_are_looked_at_before_anything_runs(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[str, Any]] = []
    monkeypatch.setattr(pipeline, "plan", lambda run: run)

    def look(run: config.Run, only: Any) -> Any:
        looked.append((run.name.removeprefix("run-"), run.model and run.model.base))
        return checks.Look(told=["of all"])

    monkeypatch.setattr(curve, "look", look)
    told = curve.check(settings(tmp_path, library, "base", curve={"target": SIZES}))
    assert [name for name, _ in looked] == ["target-40-s0", "target-5-s2"]
    assert {base for _, base in looked} == {"base"}  # the model that it starts from is not there yet
    assert told[-2:] == [
        "of all",
        "curve.target has fewer than 5 sizes: the rectified law, which has 4 parameters, is not tried.",
    ]


def test_all_cells_run_and_what_was_done_before_is_told(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "DRAWS", 100)
    run = settings(tmp_path, library, "base", pretune=None, curve={"target": [25, 50, 100, 200, 400]})
    plans = {run_of(run, cell).out: (cell, plan) for cell, plan in measured(run).items()}
    ran: list[Cell] = []

    def execute(one: config.Run, _progress: Progress, only: Any, *, looked: bool) -> Any:
        cell, plan = plans[one.out]
        assert looked and only == cell.stages
        ran.append(cell)
        return SimpleNamespace(manifests=plan.manifests, did=() if cell.seed == 0 else ("finetune",))

    monkeypatch.setattr(pipeline, "execute", execute)
    monkeypatch.setattr(curve, "check", lambda run: [])
    monkeypatch.setattr(curve, "connected", lambda *_: nullcontext())
    found = curve.curve(run, Progress())
    assert ran == cells(run) and len(found["ran"]) == 10
    assert found["skipped"] == [cell.name for cell in cells(run) if cell.seed == 0]
    assert json.loads((tmp_path / CURVE).read_text())["curves"] == found["curves"]
    assert "the page" in list(show_curve.curves(found))[-1] and (tmp_path / CURVE_PAGE).is_file()


def falling(known: curve_sources.Scores, slope: float) -> np.ndarray:
    """Losses (k, 3) that follow the theory."""
    fallen = np.array([(known.taken[:size] - known.mean).sum() for size in SIZES])
    return (9 + slope * fallen)[:, None] + np.array([[-0.01, 0.0, 0.01]])


def test_sources_are_told_by_their_scores_and_their_names_are_shown_as_they_are(told: dict[str, Any]) -> None:
    sources = {"near <b>": (-0.2, 50), "far": (0.4, 40), "rare": (-9.0, 3)}
    known = curve_sources.Scores(np.linspace(-0.5, -0.1, 40), 0.1, sources)
    found = curve_sources.told(known, np.array(SIZES), falling(known, 0.01))
    assert {row["source"]: round(row["gain"], 6) for row in found["sources"]} == {"near <b>": 3.0, "far": -3.0}
    assert found["error"] == pytest.approx(0, abs=1e-9)
    (one,) = told["curves"]
    shown = told | {"curves": [one | {"theory": found}], "theory_refused": None}
    text = " ".join(" ".join(show_curve.curves(shown)).split())
    assert "So 1,000 more documents would gain, by source: near <b> 3, far -3." in text
    assert "near &lt;b&gt;" in curve_page(shown) and "near <b>" not in curve_page(shown)
    rising = curve_sources.told(known, np.array(SIZES), falling(known, -0.01))
    assert rising["sources"] == [] and "does not fall" in rising["refused"]


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({}, None),
        ({"select": {"method": "nearest"}}, "select.method is nearest"),
        ({"solve": {"preset": "paper"}}, "the scores are not debiased"),
        ({"select": {"rounds": 3}}, "select.rounds is 3"),
        ({"select": {"export_scores": False}}, "select.export_scores is false"),
    ],
)
def test_scores_that_are_no_gradient_say_nothing_of_sources(
    library: Path, tmp_path: Path, sections: dict[str, Any], why: str | None
) -> None:
    said = curve_sources.why_not(settings(tmp_path, library, "x", **sections))
    assert said is None if why is None else str(said).startswith(why)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cell_learns_so_many_documents_and_is_not_done_again(
    library: Path, llama: Path, tmp_path: Path, ray_cluster: None
) -> None:
    run = settings(tmp_path, library, llama, finetune=None, curve={"subset": SIZES})
    cell = Cell("subset", 10, 1)
    one = run_of(run, cell)
    plan = pipeline.execute(one, Progress(), cell.stages)
    assert plan.manifests["pretune"] and plan.manifests["pretune"]["texts"] == 10
    assert plan.manifests["evaluate"] and [row["model"] for row in plan.manifests["evaluate"]["results"]] == [
        "pretune",
        "pretune",
    ]
    chosen = pq.read_table(plan.artifacts["select"].path("subset.parquet"))
    assert len(chosen) == 40 and chosen["rank"].to_pylist() == list(range(1, 41))
    assert pipeline.execute(one, Progress(), cell.stages).did == ()
    known = curve_sources.scores(plan)
    every = pq.read_table(plan.artifacts["select"].path("scores"))["score"].to_numpy()
    assert known.taken.tolist() == chosen["score"].to_pylist() and known.mean == pytest.approx(every.mean())
    assert sum(count for _, count in known.sources.values()) == len(every)
    best = min(known.sources, key=lambda source: known.sources[source][0])
    assert curve_sources.told(known, np.array(SIZES), falling(known, 0.01))["sources"][0]["source"] in known.sources
    assert known.sources[best][0] < known.mean
    other = pipeline.plan(pipeline.resolve_paths(run_of(run, Cell("subset", 20, 1))))
    assert other.done("select") and not other.done("pretune")
