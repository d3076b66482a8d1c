"""Models judged as a stage of a run: what is refused before training, what a run leaves, and what is done again."""

from __future__ import annotations

import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
from conftest import make_run
from corpora import documents, write_parquet
from rich.console import Console
from tiny import labelled, texts

from gotd_ray import config, pipeline, results, show
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.judging import intervals
from gotd_ray.judging.judge import Subject
from gotd_ray.judging.perplexity import JUDGE, perplexity
from gotd_ray.models import language
from gotd_ray.progress import Progress
from gotd_ray.stages import evaluate
from gotd_ray.text.clean import clean

SELECT = {"method": "random", "budget": 40}
STAGES = ("finetune", "evaluate")
SHORT = {"max_tokens": 64, "batch_size": 8, "steps": 3, "workers": 1, "learning_rate": 1e-2}
PROMPTS = {"continuations": 3, "new_tokens": 5}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluation files: some of them stand in the target, labelled ones, prompts, questions."""
    folder = tmp_path_factory.mktemp("sets")
    target = [text for text, _ in documents()[1]]
    write_parquet(folder / "held_out.parquet", [(text[:300], "x") for text in texts(70)[50:]])
    write_parquet(folder / "known.parquet", [(text, "x") for text in [*target[:3], "Words that stand nowhere else."]])
    write_parquet(folder / "labelled.parquet", [(text[:90], str(label)) for text, label in labelled()])
    write_parquet(folder / "strange.parquet", [("some words that are labelled strangely", "maybe")])
    write_parquet(folder / "prompts.parquet", [(text[:30], "x") for text in texts(4)])
    (folder / "empty.jsonl").touch()
    rows = [{"question": text[:40], "choices": ["yes", "no"], "answer": i % 2} for i, text in enumerate(texts(6))]
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def judged(folder: Path, library: Path, model: Path, evaluate: dict[str, Any], **sections: Any) -> config.Run:
    base = {"base": str(model), "precision": "float32"}
    return make_run(folder, library, select=SELECT, model=base, evaluate=evaluate, **sections)


def planned(run: config.Run) -> pipeline.Plan:
    return pipeline.plan(pipeline.resolve_paths(run))


def test_a_section_that_judges_nothing_is_refused(library: Path, llama: Path, tmp_path: Path) -> None:
    prompts, texts_of_a = {"prompts": {"a": "b"}}, {"perplexity": {"a": "b"}}
    refused: list[tuple[str, dict[str, Any]]] = [
        (r"there is no judge", {}),
        (r"there is no task", {"zero_shot": {}}),
        (r"evaluate.models names pretune, which this run does not train", {"models": ["pretune"]} | texts_of_a),
        (r"judges a classifier, but none is trained. Add finetune.label_column", {"classification": {"paths": "a"}}),
        (r"the scorer classifier and the section classifier", {"toxicity": prompts | {"scorers": ["classifier"]}}),
        (r"'profanity', 'words', 'classifier' or 'detoxify'", {"toxicity": prompts | {"scorers": ["nice"]}}),
    ]  # fmt: skip
    for message, section in refused:
        with pytest.raises(ValueError, match=message):
            judged(tmp_path, library, llama, section)
    with pytest.raises(ValueError, match=r"evaluate needs a model, but there is none. Add model.base"):
        make_run(tmp_path, library, evaluate={"perplexity": {"a": "b"}})


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_judges_its_models_and_goes_on_where_it_was_killed(
    library: Path, llama: Path, sets: Path, tmp_path: Path, ray_cluster: None
) -> None:
    section = {
        "perplexity": {"held_out": str(sets / "held_out.parquet"), "known": str(sets / "known.parquet")},
        "toxicity": {"prompts": {"some": str(sets / "prompts.parquet")}, **PROMPTS},
        "zero_shot": {"local": {"mine": {"path": str(sets / "task.jsonl")}}},
    }
    run = judged(tmp_path / "out", library, llama, section, finetune=SHORT)
    plan = pipeline.execute(run, Progress(), STAGES)
    facts = plan.manifests["evaluate"]
    assert facts is not None
    found = {(row["model"], row["set"], row["metric"]): row for row in facts["results"]}
    names = ["held_out", "known", "some/profanity", "some/words", "mine/acc", "mine/acc_norm"]
    assert {(model, name) for model, name, _ in found} == {(m, n) for m in ("base", "finetune") for n in names}
    assert all(row["low"] <= row["value"] <= row["high"] for row in facts["results"])
    assert {row["set"]: row["target"] for row in facts["overlap"] if row["judge"] == "perplexity"} == {
        "held_out": 0, "known": 3
    }  # fmt: skip
    table = pq.read_table(tmp_path / "out" / "evaluate" / "examples.parquet")
    rows = table.filter(pc.equal(table["set"], "held_out"))
    base = language.find(config.Model(base=str(llama)), config.Storage())
    some = {row["example"]: row["nll"] for row in rows.to_pylist() if row["model"] == "base"}
    subject = Subject(language.load(base, "causal", 0).eval(), language.load_tokenizer(base, None), 128, 1000)
    wanted = perplexity(subject, [clean(text[:300]) for text in texts(70)[50:]])
    assert sorted(some.values()) == pytest.approx(sorted(wanted["nll"]), rel=1e-4)
    mine = {m: [r for r in rows.to_pylist() if r["model"] == m] for m in ("finetune", "base")}
    a, b = ({n: np.array([r[n] for r in mine[m]]) for n in ("nll", "tokens", "example")} for m in mine)
    (changed,) = (row for row in facts["differences"] if row["set"] == "held_out" and row["metric"] == "perplexity")
    assert [changed[n] for n in ("value", "low", "high")] == list(intervals.difference(JUDGE.metrics[0], [(a, b)], 0))
    assert changed["value"] < 0 and changed["against"] == "base"
    out = Console(file=io.StringIO(), width=200)
    show.results(results.read(plan.run), out)
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert "3 of 4 texts of perplexity 'known' stand word for word in the target" in printed
    assert "bits_per_byte" in printed and "toxicity_probability" in printed

    units = sorted((tmp_path / "out" / "evaluate" / "units").iterdir())
    assert len(units) == 8
    before = {unit: unit.stat().st_mtime_ns for unit in units}
    (tmp_path / "out" / "evaluate" / "manifest.json").unlink()
    units[0].unlink()
    again = pipeline.execute(run, Progress(), STAGES).manifests["evaluate"]
    assert again is not None and again["results"] == facts["results"] and again["differences"] == facts["differences"]
    kept = [unit for unit in units if unit.stat().st_mtime_ns == before[unit]]
    assert len(kept) == 7
    (tmp_path / "out" / "evaluate" / "manifest.json").unlink()
    kept[0].write_bytes(kept[0].read_bytes()[:99])
    healed = pipeline.execute(run, Progress(), STAGES).manifests["evaluate"]
    assert healed is not None and healed["results"] == facts["results"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_classifier_is_judged_by_its_classes_and_by_nothing_else(
    library: Path, bert: Path, sets: Path, tmp_path: Path, ray_cluster: None
) -> None:
    enough = {"steps": 80, "learning_rate": 3e-3, "schedule": "constant", "max_tokens": 32, "truncate": True}
    finetune = {"paths": str(sets / "labelled.parquet"), "label_column": "source", **SHORT, **enough}
    section = {"classification": {"paths": str(sets / "labelled.parquet")}}
    plan = pipeline.execute(judged(tmp_path, library, bert, section, finetune=finetune), Progress(), STAGES)
    facts = plan.manifests["evaluate"]
    assert facts is not None
    found = {row["metric"]: row for row in facts["results"]}
    assert set(found) == {"accuracy", "macro_f1", "micro_f1", "mcc", "log_loss"} and not facts["differences"]
    rows = pq.read_table(tmp_path / "evaluate" / "examples.parquet").to_pylist()
    assert {row["label"] for row in rows} == {"yes", "no"} >= {row["predicted"] for row in rows}
    right = [row["label"] == row["predicted"] for row in rows]
    assert found["accuracy"]["examples"] == len(right) == 120
    assert found["accuracy"]["value"] == pytest.approx(np.mean(right)) and np.mean(right) > 0.9
    assert facts["overlap"] == [{"judge": "classification", "set": "test", "texts": 120, "subset": None, "target": 120}]


def evaluated(run: config.Run) -> tuple[dict[str, Any], list[str]]:
    """The facts of an evaluation on the tests' cluster, and what was said."""
    plan = planned(run)
    assert plan.evaluation
    said: list[str] = []
    progress = Progress(Console(file=io.StringIO()))
    progress.say = said.append  # type: ignore[method-assign]
    site = Site(Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=False), plan.device, progress)
    keys = {name: artifact.key for name, artifact in plan.artifacts.items()} | {"base": "b"}
    return evaluate.evaluate(replace(plan.evaluation, keys=keys), plan.artifacts["evaluate"], site), said


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_left_out_and_what_is_cut_is_told_and_written_down(
    library: Path, llama: Path, tmp_path: Path, ray_cluster: None
) -> None:
    some, long = [{"text": text[:60]} for text in texts(6)], {"text": " ".join(texts(30))}
    question = {"question": "Is it so?", "choices": ["yes", "no"], "answer": 0}
    section = {
        "perplexity": {"mine": lines(tmp_path / "a.jsonl", *some, some[0], {"text": ""}, long)},
        "toxicity": {
            "prompts": {"mine": lines(tmp_path / "b.jsonl", *some, {"text": None}, long)}, **PROMPTS,
            "scorers": ["words", "classifier"],
            "classifier": {"paths": lines(tmp_path / "c.jsonl", *(row | {"label": n % 2} for n, row in enumerate(some)),
                                          *[some[0] | {"label": n % 2} for n in range(6)], {"text": "x", "label": []})},
        },
        "zero_shot": {"local": {"asked": {"path": lines(
            tmp_path / "d.jsonl", question, question | {"question": long["text"]}
        )}}},
    }  # fmt: skip
    facts, said = evaluated(judged(tmp_path / "out", library, llama, section, target={"source_column": None}))
    assert facts["left_out"] == {
        "evaluate.perplexity.mine": {"empty_text": 1, "equal_text": 1},
        "evaluate.toxicity.mine": {"empty_text": 1},
        "evaluate.toxicity.classifier": {"bad_label": 1},
    }
    cut = {(row["judge"], row["set"]): (row["texts"], row["examples"]) for row in facts["cut"]}
    assert cut == {
        ("toxicity", "mine/words"): (1, 7), ("toxicity", "mine/classifier"): (1, 7),
        ("zero_shot", "asked/acc"): (1, 2), ("zero_shot", "asked/acc_norm"): (1, 2),
    }  # fmt: skip
    told = [words for words in said if words.startswith("evaluate.") or "too long" in words]
    assert (
        facts["told"]
        == told
        == [
            "evaluate.perplexity.mine: left out: 1 empty_text, 1 equal_text",
            "evaluate.toxicity.mine: left out: 1 empty_text",
            "evaluate.toxicity.classifier: left out: 1 bad_label",
            "evaluate: 1 of the 7 texts of toxicity 'mine/words' are too long for base: the last tokens of these "
            "prompts count",
            "evaluate: 1 of the 7 texts of toxicity 'mine/classifier' are too long for base: the last tokens of these "
            "prompts count",
            "evaluate: 1 of the 2 texts of zero_shot 'asked/acc' are too long for base: the last tokens of these "
            "questions count",
            "evaluate: 1 of the 2 texts of zero_shot 'asked/acc_norm' are too long for base: the last tokens of these "
            "questions count",
        ]
    )
    assert [row["texts"] for row in facts["overlap"]] == [8, 7]


@pytest.mark.ray
def test_an_evaluation_that_is_refused_leaves_no_task_behind(
    library: Path, llama: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    asked: list[Any] = []
    last: list[Any] = []

    class Judge:
        """Judges of which one fails, while the others would take ten minutes; on one, the node ran out of memory."""

        @staticmethod
        def options(**_: Any) -> Any:
            return Judge

        @staticmethod
        def remote(*arguments: Any) -> Any:
            asked.append([_wait, _wait, *last][len(asked)].remote())
            return asked[-1]

    monkeypatch.setattr(evaluate, "_JUDGE_ON", {"cpu": Judge})
    section = {"perplexity": {name: str(sets / "held_out.parquet") for name in "abc"}}
    run = judged(tmp_path, library, llama, section)
    for ends, words in (
        (_fail, "the model's likelihoods are not numbers"),
        (_die, "evaluate: the process that judged perplexity 'c' of base ran out of memory, or was killed. Lower "
         "evaluate.batch_tokens (now 2,048) or evaluate.max_tokens; what is done is kept."),
    ):  # fmt: skip
        asked.clear()
        last[:] = [ends]
        with pytest.raises(UserError) as raised:
            evaluated(run)
        assert str(raised.value) == words and type(raised.value) is UserError
        ended, running = ray.wait(asked, num_returns=3, timeout=0)
        assert len(ended) == 3 and not running


@ray.remote(num_cpus=0.1)
def _wait() -> None:
    time.sleep(600)


@ray.remote(num_cpus=0.1)
def _fail() -> None:
    raise UserError("the model's likelihoods are not numbers")


@ray.remote(num_cpus=0.1, max_retries=0)
def _die() -> None:
    os._exit(1)


def test_a_judge_on_a_gpu_has_a_process_of_its_own() -> None:
    """Ray gives a GPU's task a fresh process by itself only where its decorator asks for the GPU."""
    calls = {device: judge._default_options.get("max_calls", 0) for device, judge in evaluate._JUDGE_ON.items()}
    assert calls == {"cpu": 0, "cuda": 1}
