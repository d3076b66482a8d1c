"""Metrics by modes: mean and worst against each mode alone, paired differences, and where the modes come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gotd_ray import config
from gotd_ray.compare import metrics_of
from gotd_ray.errors import UserError
from gotd_ray.judging import JUDGES, intervals
from gotd_ray.judging.cases import Judged, Unit, _cases
from gotd_ray.judging.intervals import Examples
from gotd_ray.judging.judge import Case, Listed
from gotd_ray.judging.measure import measure, table_of_rows
from gotd_ray.judging.modes import modes_of, of_mode
from gotd_ray.report.comparison import first_places
from gotd_ray.storage import list_files

N = 60
MODE = np.array(["law"] * 40 + ["bio"] * 18 + ["odd"] * 2, object)
PERPLEXITY, BITS = JUDGES["perplexity"].metrics


def judged(worse: float = 0.0) -> dict[str, np.ndarray]:
    """bio is the worst known; ``worse`` is what law has lost and bio has gained."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(5, 40, N)
    per_token = 2 + draw.normal(0, 0.2, N) + np.where(MODE == "bio", 1 - worse, worse)
    names = np.array([f"{n:02d}" for n in range(N)], object)
    return {"nll": tokens * per_token, "tokens": tokens, "bytes": 4 * tokens, "mode": MODE, "example": names}


def alone(examples: Examples, mode: str) -> float:
    own = of_mode(examples, mode)
    return float(np.exp(own["nll"].sum() / own["tokens"].sum()))


def test_mean_and_worst_are_those_of_the_modes_alone() -> None:
    examples = judged()
    assert modes_of(examples) == ["bio", "law", "odd"]
    each = [alone(examples, mode) for mode in ("bio", "law", "odd")]
    found = {metric.name: intervals.interval(metric, [examples], 0) for metric in metrics_of("perplexity", examples)}
    assert list(found)[:3] == ["perplexity", "perplexity_mean_mode", "perplexity_worst_mode"] and len(found) == 6
    assert found["perplexity_mean_mode"][0] == pytest.approx(np.mean(each))
    assert found["perplexity_worst_mode"][0] == pytest.approx(max(each)) == pytest.approx(each[0])
    for value, low, high in found.values():  # a draw without both of odd's examples counts the other modes
        assert low < value < high


@pytest.mark.parametrize("metric", JUDGES["classification"].metrics[:4], ids=lambda one: one.name)
def test_of_classes_the_worst_is_the_least(metric: intervals.Metric) -> None:
    """Though modes differ in the classes that they hold."""
    draw = np.random.default_rng(1)
    label = draw.choice(["a", "b", "c"], N)
    label[MODE == "bio"] = "a"
    examples = {"label": label, "predicted": np.where(draw.random(N) < 0.7, label, "b"), "mode": MODE}
    each = [intervals.interval(metric, [of_mode(examples, mode)], 0)[0] for mode in modes_of(examples)]
    mean, worst = (one for one in metrics_of("classification", examples) if one.name.startswith(f"{metric.name}_"))
    assert intervals.interval(mean, [examples], 0)[0] == pytest.approx(np.mean(each))
    assert intervals.interval(worst, [examples], 0)[0] == pytest.approx(min(each))


def test_a_difference_of_the_worst_is_paired() -> None:
    """The whole set gets worse, the worst mode better, and each beyond what the examples' spread allows."""
    base, model = judged(), judged(worse=0.3)
    whole, _, worst = metrics_of("perplexity", base)[:3]
    assert intervals.difference(whole, [(model, base)], 0)[1] > 0
    value, low, high = intervals.difference(worst, [(model, base)], 0)
    assert value == pytest.approx(alone(model, "bio") - alone(base, "bio")) and low < value < high < 0


def test_an_evaluation_tells_mean_worst_and_each_mode() -> None:
    tables = []
    for name, worse in (("base", 0.0), ("pretune", 0.3)):
        unit = Unit(Judged(name, config.Model(base="m"), "causal"), Case("perplexity", "target", {}, ()), "k", "k")
        tables.append(table_of_rows(unit, "target", judged(worse)))
    found = measure(pa.concat_tables(tables), 0, 100)
    rows = {(row["model"], row["set"], row["metric"]): row["value"] for row in found["results"]}
    assert rows["pretune", "target/bio", "perplexity"] == pytest.approx(alone(judged(0.3), "bio"))
    assert rows["pretune", "target", "perplexity_worst_mode"] == rows["pretune", "target/bio", "perplexity"]
    changed = {(row["set"], row["metric"]): row["value"] for row in found["differences"]}
    assert changed["target/bio", "perplexity"] == changed["target", "perplexity_worst_mode"] < 0
    assert [row["examples"] for row in found["results"] if row["set"] == "target/odd"] == [2, 2]


def test_without_modes_nothing_is_told_of_them() -> None:
    examples = judged() | {"mode": np.full(N, None, object)}
    assert [one.name for one in metrics_of("perplexity", examples)] == ["perplexity", "bits_per_byte"]
    assert [one.name for one in metrics_of("perplexity", {})] == ["perplexity", "bits_per_byte"]


def test_a_comparison_shows_mean_and_worst_beside_the_first_metric() -> None:
    rows = [{"judge": "perplexity", "set": "target", "metric": one.name} for one in metrics_of("perplexity", judged())]
    shown = [row["metric"] for row in rows if tuple(row.values()) in first_places({"rows": rows})]
    assert shown == ["perplexity", "perplexity_mean_mode", "perplexity_worst_mode"]


def listed(path: Path, column: str) -> Listed:
    text = config.Text(paths=str(path)).model_copy(update={"source_column": column})
    return Listed("evaluate.perplexity.target", text, list_files(text, config.Storage()), config.Storage())


def test_a_mode_is_the_value_of_the_column(tmp_path: Path) -> None:
    path = tmp_path / "held_out.jsonl"
    rows = [{"text": "some law", "area": "law"}, {"text": "some bio", "area": "bio"}, {"text": "neither"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = listed(path, "area").read()
    modes = listed(path, "area").modes(found.documents)["mode"]
    by_text = dict(zip([one.text for one in found.documents], modes, strict=True))
    assert by_text == {"some law": "law", "some bio": "bio", "neither": "held_out"}
    assert found.told == (
        "evaluate.perplexity.target: 1 of 3 rows name no mode in 'area' (evaluate.modes): theirs is their file's name",
    )
    with pytest.raises(UserError, match=r"has no column 'aera' \(evaluate.modes\); it has 'area', 'text'. Correct"):
        listed(path, "aera").read()


def test_the_section_reaches_the_judges_that_know_modes(tmp_path: Path) -> None:
    """And is part of what decides their numbers."""
    path = tmp_path / "held_out.jsonl"
    path.write_text('{"text": "some law", "area": "law"}\n')
    judges = {"perplexity": {"target": str(path)}, "toxicity": {"prompts": {"some": str(path)}}}
    for modes in (None, "area"):
        sections = {"evaluate": judges | {"modes": modes}, "model": {"base": "m"}}
        run = config.Run.model_validate({"out": "o", "corpus": {"paths": "c"}, "target": {"paths": "t"}, **sections})
        assert run.evaluate
        texts, prompts = _cases(run, run.evaluate, "float32")[0]
        assert texts.reads[0].text.source_column == modes and prompts.reads[0].text.source_column is None
        assert ("source_column" in texts.settings) == (modes is not None) and "source_column" not in prompts.settings
