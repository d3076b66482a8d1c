"""`gotd tune`: a killed search is the search that was not, dev is no test, and the table is what the trials left."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from trainings import LONG, lines, settings

from gotd_ray import config, outcome, pipeline, results, show_tune, trials, tune
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress
from gotd_ray.report.render import tune_page
from gotd_ray.stages.train import Training
from gotd_ray.trials import share

SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "scale": "log"},
    "batch_size": {"low": 2, "high": 16, "scale": "powers"},
}
TUNE: dict[str, Any] = {"space": SPACE, "trials": 15, "finish": 3, "at_once": 2, "at": 0.25, "metric": "accuracy"}
FINETUNE = {"label_column": "label", "max_tokens": 64, "steps": 8, "workers": 1, "batch_size": 4, "learning_rate": 1e-3}
MACHINE = Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled texts to train on, for dev and for the test, and a set that is half of dev."""
    folder = tmp_path_factory.mktemp("sets")
    for place, name in enumerate(("train", "dev", "test")):
        rows = [
            {"text": LONG.format(f"{100 * place + n} {'yes' if n % 2 else 'no'}"), "label": "yes" if n % 2 else "no"}
            for n in range(12)
        ]
        lines(folder / f"{name}.jsonl", *rows)
        if name == "dev":
            other = [row | {"text": row["text"] + " and more"} for row in rows]
            lines(folder / "half.jsonl", *rows[:6], *other[6:])
            lines(folder / "some.jsonl", *rows[:3], *other[3:])
    return folder


def run_of(folder: Path, library: Path, base: Path, sets: Path, **sections: Any) -> config.Run:
    files = {"paths": str(sets / "train.jsonl"), "dev": str(sets / "dev.jsonl")}
    finetune = FINETUNE | files | sections.pop("finetune", {})
    return settings(folder, library, base, finetune=finetune, **({"tune": TUNE} | sections))


class DeadError(Exception):
    """The search was killed."""


class Cheap:
    """In place of Ray and the training: a loss that the settings decide. It can be killed before or after a trial."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[str] = []
        self.dies: dict[int, str] = {}
        monkeypatch.setattr(trials, "_trial", self)
        monkeypatch.setattr(trials, "answers", lambda asked, _: ((one, one) for one in asked))

    def remote(self, given: Training, artifact: Artifact, _: Resources) -> tuple[str, dict[str, Any]]:
        own, number = given.task.settings, len(self.trained)
        if self.dies.get(number) == "before":
            raise DeadError
        self.trained.append(artifact.key)
        rate, part = math.log10(own.learning_rate), own.stop_at
        artifact.begin()
        if rate > -1.5:
            return artifact.key, artifact.commit({"diverged": "the loss is not a number", "seconds": 1.0})
        loss = (rate + 3) ** 2 + (own.batch_size - 8) ** 2 / 50 + 0.3 * (1 - part) * math.sin(50 * rate)
        seconds = 100 * part
        facts = artifact.commit(
            {"dev": [{"loss": loss, "accuracy": 1 / (1 + loss)}], "dev_texts": 12, "steps": round(8 * part)}
            | {"train_seconds": seconds, "seconds": seconds + 5}
        )
        if self.dies.get(number) == "after":
            raise DeadError
        return artifact.key, facts


def searched(run: config.Run) -> dict[str, Any]:
    return tune.work(pipeline.resolve_paths(run), MACHINE, Progress())


def test_a_search_that_was_killed_twice_is_the_search_that_was_not(
    library: Path, bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = Cheap(monkeypatch)
    whole = searched(run_of(tmp_path / "whole", library, bert, sets))
    number = len(cheap.trained)
    assert len(whole["ran"]) == number and not whole["skipped"]
    assert whole["agreement"] and whole["agreement"]["finished"] == 6
    run = run_of(tmp_path / "broken", library, bert, sets)
    cheap.trained.clear()
    cheap.dies = {5: "before", 12: "after"}
    with pytest.raises(DeadError):
        searched(run)
    cheap.dies.pop(5)
    assert len(json.loads((tmp_path / "broken" / "tune.json").read_text())["trials"]) == 4
    with pytest.raises(DeadError):
        searched(run)
    broken = searched(run)
    assert len(cheap.trained) == len(set(cheap.trained)) == number, "nothing was trained twice"
    same = ("trials", "best", "agreement", "time")
    assert {name: broken[name] for name in same} == {name: whole[name] for name in same}
    assert searched(run)["ran"] == []
    kept = json.loads((tmp_path / "broken" / "tune.json").read_text())
    assert {name: kept[name] for name in same} == json.loads(json.dumps({name: whole[name] for name in same}))


def test_what_is_told_is_what_the_trials_left(
    library: Path, bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cheap(monkeypatch)
    found = searched(run_of(tmp_path, library, bert, sets, costs={"per_hour": 36.0, "currency": "EUR"}))
    rows = found["trials"]
    assert found["metric"] == "accuracy" and found["first_is_own"]
    assert rows[0]["setting"] == {"learning_rate": 1e-3, "batch_size": 4}
    assert any(row["early"] is None and row["said"] for row in rows), "one broke down, and the search went on"
    known = [row for row in rows if row["early"] is not None]
    assert [row["rank"] for row in sorted(known, key=lambda row: -row["early"])] == list(range(1, len(known) + 1))
    late = [row for row in rows if row["late"] is not None]
    assert len(late) == 6 and {row["rank"] for row in late} >= {1, 2, 3}
    best = max(late, key=lambda row: row["late"])
    assert found["best"] == {"number": best["number"], "setting": best["setting"], "value": best["late"]}
    assert (tmp_path / "tune.yaml").read_text() == yaml.safe_dump({"finetune": best["setting"]}, sort_keys=False)
    early = sum(row["train_seconds"] or 0.0 for row in rows)
    assert found["time"] == pytest.approx({"spent": early + 3 * 100, "in_full": early * 4, "measuring": 3 * 100})
    # Two side by side take half of the machines each; an hour of these is 36 EUR.
    assert found["seconds"] == pytest.approx(sum(row["seconds"] + (row["late_seconds"] or 0) for row in rows) / 2)
    assert found["money"] == pytest.approx(found["seconds"] / 100) == sum(row["money"] for row in rows)
    told = "\n".join(show_tune.search(found))
    assert f"The best at the end is trial {best['number']}" in told.replace("\n", " ")
    assert f"--set finetune.learning_rate={best['setting']['learning_rate']:g}" in told and "and 3 more." in told
    (head,) = [line for line in told.splitlines() if line.startswith("trial  ")]
    assert f"{found['money']:,.2f} EUR" in told.replace("\n", " ") and "EUR" in head.split()
    assert results.read(pipeline.resolve_paths(run_of(tmp_path, library, bert, sets))).search is not None
    page = tune_page(found)
    assert "<script" not in page and page.count("<svg class=") == 3
    assert page.count("broke down") >= sum(row["early"] is None for row in rows)
    assert outcome.of_search(found)["best"] == {"finetune": best["setting"]}


def test_a_search_of_which_no_trial_could_be_trained_says_so(
    library: Path, bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cheap(monkeypatch)
    space = {"learning_rate": {"low": 0.05, "high": 0.1, "scale": "log"}}
    run = run_of(tmp_path, library, bert, sets, tune=TUNE | {"space": space, "trials": 4})
    with pytest.raises(UserError, match=r"not one of 4 trials could be trained. .* The first: the loss"):
        searched(run)


@pytest.mark.parametrize(
    ("machine", "task", "at_once", "cpus", "rooms"),
    [
        (MACHINE, {}, 2, 1, 2),
        (MACHINE, {}, 1, 2, 1),
        (MACHINE, {"workers": 2}, 2, 2, 1),
        (Resources(64, 0, 4, 16, private=False), {}, 8, 8, 8),
        (Resources(64, 8, 2, 32, private=False, gpu_cpus=8), {}, 4, 32, 4),
        (Resources(64, 8, 2, 32, private=False, gpu_cpus=8), {"workers": 4, "batch_size": 4}, 4, 32, 2),
    ],
)
def test_a_trial_takes_a_share_of_the_cluster(
    machine: Resources, task: dict[str, Any], at_once: int, cpus: int, rooms: int
) -> None:
    from tiny import make_task

    own, beside = share(machine, make_task(Path("x"), "causal", config.Training.model_validate(task)), at_once)
    assert (own.node_cpus, beside) == (cpus, rooms)
    assert own.gpus == (min(task.get("workers", 1), machine.gpus) if machine.gpus else 0)


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        ("dev", "12 of the 12 texts of finetune.dev are also in evaluate.classification: settings that were searched "
         "on them would be judged on them. Give finetune.dev other texts."),
        ("half", "6 of the 12 texts of finetune.dev are also in"),
    ],
)  # fmt: skip
def test_dev_is_not_the_test(judged: str, said: str, library: Path, bert: Path, sets: Path, tmp_path: Path) -> None:
    judges = {"classification": {"paths": str(sets / f"{judged}.jsonl")}}
    run = pipeline.resolve_paths(run_of(tmp_path, library, bert, sets, evaluate=judges))
    with pytest.raises(UserError) as caught:
        tune.check(run)
    assert str(caught.value).startswith(said)


def test_what_a_search_cannot_know_or_leaves_out_is_told(library: Path, bert: Path, sets: Path, tmp_path: Path) -> None:
    judges = {"classification": {"paths": str(sets / "some.jsonl")}}
    away = {"learning_rate": 0.5, "eval_every": 2, "patience": 1}
    run = pipeline.resolve_paths(run_of(tmp_path, library, bert, sets, evaluate=judges, finetune=away))
    told = tune.check(run)
    assert any("3 of the 12 texts of finetune.dev are also in evaluate.classification" in words for words in told)
    assert any("not tried, since learning_rate lies outside of tune.space" in words for words in told)
    assert any("without finetune.eval_every and patience" in words for words in told)
    quiet = pipeline.resolve_paths(run_of(tmp_path, library, bert, sets, evaluate={"classification": {
        "paths": str(sets / "test.jsonl")}}))  # fmt: skip
    assert not [words for words in tune.check(quiet) if words.startswith("tune")]


def test_a_corner_of_the_space_that_cannot_be_trained_is_refused_first(
    library: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    space = {"last_layers": {"low": 1, "high": 9}}
    run = run_of(tmp_path, library, bert, sets, finetune={"parameters": "last"}, tune=TUNE | {"space": space})
    with pytest.raises(UserError, match=r"last_layers is 9, but the model has 2 layers"):
        tune.check(pipeline.resolve_paths(run))
    space = {"batch_size": {"low": 4, "high": 8}}
    run = run_of(tmp_path, library, bert, sets, finetune={"workers": 2}, tune=TUNE | {"space": space})
    with pytest.raises(UserError, match=r"tune.space.batch_size holds 5: .* Or set its scale to powers"):
        tune.check(pipeline.resolve_paths(run))


def bad() -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """Changes of the section, of finetune, and what is said."""
    yield {"space": {}}, {}, "at least 1"
    yield {"at": 0}, {}, "greater than 0"
    yield {"at": 1}, {}, "less than 1"
    yield {"finish": 20}, {}, "finish is 20, but there are 15 trials. Lower it"
    yield {"space": {"speed": {"low": 1, "high": 2}}}, {}, "speed"
    rate = "learning_rate"
    yield {"space": {rate: {"low": 0.1, "high": 0.01}}}, {}, "low is 0.1 and high is 0.01: there is nothing between"
    yield {"space": {rate: {"low": 0.1, "high": 0.1}}}, {}, "nothing between"
    yield (
        {"space": {rate: {"low": 0, "high": 0.1, "scale": "log"}}},
        {},
        "low is 0, and scale is log: raise low",
    )
    yield {"space": {rate: {"low": 1, "high": 2, "scale": "powers"}}}, {}, "learning_rate is no whole number"
    yield (
        {"space": {rate: {"low": 1, "high": 20}}},
        {},
        "goes to 20, but of finetune.learning_rate input should",
    )
    yield {"space": {"batch_size": {"low": 1.5, "high": 2}}}, {}, "batch_size is a whole number, and 1.5 is none"
    yield {"space": {"batch_size": {"low": 6, "high": 8, "scale": "powers"}}}, {}, "6 or 8 is no power of two"
    yield {"space": {"lora_rank": {"low": 1, "high": 8}}}, {}, "lora_rank does nothing: finetune.parameters is all"
    yield {"space": {"epochs": {"low": 1, "high": 8}}}, {}, "epochs does nothing: finetune.steps says how long"
    long = {"epochs": {"low": 1, "high": 8}, "steps": {"low": 1, "high": 8}}
    yield {"space": long}, {}, "epochs and steps, which both say how long"
    yield {}, {"dev": None}, "judges its trials on finetune.dev, and there is none"
    yield {"stage": "pretune"}, {}, "tune searches the settings of pretune, and there is none"


@pytest.mark.parametrize(("section", "finetune", "said"), list(bad()))
def test_a_section_that_cannot_be_searched_is_refused(
    section: dict[str, Any], finetune: dict[str, Any], said: str, bert: Path, sets: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError) as caught:
        run_of(tmp_path, tmp_path, bert, sets, tune=TUNE | section, finetune=finetune)
    assert said in str(caught.value)


def test_a_run_without_the_section_or_the_metric_is_refused(
    library: Path, llama: Path, sets: Path, tmp_path: Path
) -> None:
    plain = {"label_column": None, "steps": 2}
    run = run_of(tmp_path, library, llama, sets, finetune=plain, tune=TUNE | {"metric": "accuracy"})
    with pytest.raises(UserError, match=r"tune.metric is accuracy, and finetune trains a language model"):
        tune.check(pipeline.resolve_paths(run))
    with pytest.raises(UserError, match=r"the run has no section `tune`. Add it"):
        tune.tune(run.model_copy(update={"tune": None}), Progress())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_trials_train_side_by_side_stop_early_and_are_found_again(
    library: Path, bert: Path, sets: Path, tmp_path: Path, ray_cluster: None
) -> None:
    run = run_of(tmp_path, library, bert, sets, tune=TUNE | {"trials": 2, "finish": 1, "at": 0.5})
    found = tune.tune(run, Progress())
    assert [row["steps"] for row in found["trials"]] == [4, 4]
    assert len(found["ran"]) == 4 and all(row["late"] is not None for row in found["trials"])
    folders = sorted(path.name for path in (tmp_path / "tune").iterdir())
    assert folders == sorted(found["ran"])
    for key in found["ran"]:
        facts = json.loads((tmp_path / "tune" / key / "manifest.json").read_text())
        assert facts["steps"] in (4, 8) and not facts["stopped_early"]
        assert not (tmp_path / "tune" / key / "model").exists()
        (look,) = facts["dev"]
        rows = found["trials"]
        assert look["accuracy"] in {row["early"] for row in rows} | {row["late"] for row in rows}
    assert sorted(tune.tune(run, Progress())["skipped"]) == sorted(found["ran"])
