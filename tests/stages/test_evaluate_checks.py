"""What is known of an evaluation before anything runs: the faults of its sets, and what decides its numbers."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_run
from corpora import documents, write_parquet
from safetensors.torch import load_file, save_file
from tiny import labelled, texts

from gotd_ray import config, pipeline, preflight
from gotd_ray.artifacts import make_key
from gotd_ray.cluster import Resources
from gotd_ray.errors import UserError
from gotd_ray.judging import JUDGES, cases, measure
from gotd_ray.stages import evaluate
from gotd_ray.text.chunks import split
from gotd_ray.text.clean import clean
from gotd_ray.text.documents import document_id

SELECT = {"method": "random", "budget": 40}
SHORT = {"max_tokens": 64, "batch_size": 8, "steps": 3, "workers": 1, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to judge by, many with a fault."""
    folder = tmp_path_factory.mktemp("sets")
    write_parquet(folder / "held_out.parquet", [(text[:300], "x") for text in texts(70)[50:]])
    write_parquet(folder / "known.parquet", [(text, "x") for text, _ in documents()[1][:3]])
    write_parquet(folder / "labelled.parquet", [(text[:90], str(label)) for text, label in labelled()])
    write_parquet(folder / "strange.parquet", [("some words that are labelled strangely", "maybe")])
    write_parquet(folder / "prompts.parquet", [(text[:30], "x") for text in texts(4)])
    lines(folder / "empty.jsonl")
    lines(folder / "sentences.jsonl", *({"sentence": text} for text in texts(5)))
    lines(folder / "half.jsonl", *({"text": text} for text in texts(4)), *({"text": None} for _ in range(4)))
    lines(folder / "unlabelled.jsonl", *({"text": text, "source": None} for text in texts(4)))
    lines(folder / "harmless.jsonl", *({"text": text, "toxic": 0} for text in texts(4)))
    (folder / "broken.jsonl.gz").write_bytes(b"no gzip at all")
    rows = [{"question": text[:40], "choices": ["yes", "no"], "answer": i % 2} for i, text in enumerate(texts(6))]
    lines(folder / "task.jsonl", *rows)
    with gzip.open(folder / "task.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "bad_task.jsonl.gz").write_bytes(b"no gzip at all")
    return folder


def lines(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def judged(folder: Path, library: Path, model: Path, evaluate: dict[str, Any], **sections: Any) -> config.Run:
    base = {"base": str(model), "precision": "float32"}
    return make_run(folder, library, select=SELECT, model=base, evaluate=evaluate, **sections)


def planned(run: config.Run) -> pipeline.Plan:
    return pipeline.plan(pipeline.resolve_paths(run))


def checked(run: config.Run) -> list[str]:
    plan = planned(run)
    assert plan.evaluation
    return cases.check(plan.evaluation)


def faults(sets: Path, llama: Path, bert: Path) -> list[tuple[str, Path, dict[str, Any], dict[str, Any]]]:
    """What is said, the base, the section of evaluation, and the others."""
    classes = {"finetune": {"paths": str(sets / "labelled.parquet"), "label_column": "source", **SHORT}}
    prompts = {"a": f"{sets}/prompts.parquet"}
    scorer = {"paths": f"{sets}/harmless.jsonl", "label_column": "toxic"}
    own = {"prompts": prompts, "scorers": ["classifier"], "classifier": scorer}
    limit = "and target.max_bad_rows allows a share of 0.2. Correct the data, name the right columns, or raise it."
    nothing = (
        "has no text: 0 rows read, left out: none. Check its paths, target.text_column and what target leaves out."
    )
    name = "Correct the name, or leave it out."
    return [
        (f"evaluate.perplexity.a {nothing}", llama, {"perplexity": {"a": f"{sets}/empty.jsonl"}}, {}),
        (f"evaluate.toxicity.a {nothing}", llama, {"toxicity": {"prompts": {"a": f"{sets}/empty.jsonl"}}}, {}),
        (f"evaluate.perplexity.a has no column 'text' (text_column); it has 'sentence'. {name}", llama,
         {"perplexity": {"a": f"{sets}/sentences.jsonl"}}, {}),
        (f"evaluate.perplexity.a has no column 'body' (text_column); it has 'source', 'text'. {name}", llama,
         {"text_column": "body", "perplexity": {"a": f"{sets}/held_out.parquet"}}, {}),
        (f"evaluate.perplexity.a: 4 of 8 rows are unusable ({{'empty_text': 4}}), {limit} {sets}/half.jsonl row 4: "
         "empty_text (null)", llama, {"perplexity": {"a": f"{sets}/half.jsonl"}}, {}),
        (f"evaluate.perplexity.a: {sets}/broken.jsonl.gz cannot be read: unreadable: OSError: zlib inflate failed: "
         "incorrect header check. Repair it, or take it out.", llama, {"perplexity": {"a": f"{sets}/broken.jsonl.gz"}},
         {}),
        ("evaluate.max_tokens is 500, but the model takes 128 at most. Lower it.", llama,
         {"max_tokens": 500, "perplexity": {"a": f"{sets}/held_out.parquet"}}, {}),
        ("evaluate.toxicity.scorers has 'detoxify', which needs the package detoxify, not installed here. pip install "
         "detoxify, or drop it from the scorers.", llama, {"toxicity": {"prompts": prompts, "scorers": ["detoxify"]}},
         {}),
        ("evaluate.toxicity.new_tokens is 200, but prompt and continuation have 128 tokens together. Lower it, or "
         "raise evaluate.max_tokens.", llama, {"toxicity": {"prompts": prompts, "new_tokens": 200}}, {}),
        ("evaluate.toxicity.classifier: its texts have the labels 0, but there must be texts labelled '1' and others. "
         "Set toxic_label and label_column, or add texts.", llama, {"toxicity": own}, {}),
        (f"evaluate.toxicity.classifier has no column 't' (label_column); it has 'text', 'toxic'. {name}", llama,
         {"toxicity": own | {"classifier": scorer | {"label_column": "t"}}}, {}),
        ("evaluate.perplexity needs a causal language model, but base is a masked one, which gives a text no "
         "likelihood. Drop evaluate.perplexity, name other evaluate.models, or take a causal model.base.", bert,
         {"perplexity": {"a": f"{sets}/held_out.parquet"}}, {}),
        ("evaluate.classification has the labels maybe, which the model does not know; it was trained on no, yes. "
         "Correct the files, or train on data that has all labels.", bert,
         {"classification": {"paths": f"{sets}/strange.parquet"}}, classes),
        (f"evaluate.classification: 4 of 4 rows are unusable ({{'no_label': 4}}), {limit} {sets}/unlabelled.jsonl row "
         "0: no_label (null)", bert, {"classification": {"paths": f"{sets}/unlabelled.jsonl"}}, classes),
        ("evaluate has nothing to do: none of its models (base) can be judged by classification. A classifier is "
         "judged by classification alone, and no other model by it: change evaluate.models or the judges.", bert,
         {"models": ["base"], "classification": {"paths": f"{sets}/labelled.parquet"}}, classes),
        (f"evaluate.zero_shot.local.mine: line 1 of {sets}/task.jsonl: there is no key 'q'. Correct it, or name the "
         "keys by question, choices and answer.", llama,
         {"zero_shot": {"local": {"mine": {"path": f"{sets}/task.jsonl", "question": "q"}}}}, {}),
        (f"evaluate.zero_shot.local.mine: {sets}/bad_task.jsonl.gz cannot be read: zlib inflate failed: incorrect "
         "header check. Repair it, or name another.", llama,
         {"zero_shot": {"local": {"mine": {"path": f"{sets}/bad_task.jsonl.gz"}}}}, {}),
        (f"evaluate.zero_shot.local.mine: {sets}/empty.jsonl has no question. Give another file.", llama,
         {"zero_shot": {"local": {"mine": {"path": f"{sets}/empty.jsonl"}}}}, {}),
    ]  # fmt: skip


def said(run: config.Run) -> str:
    with pytest.raises(UserError) as raised:
        checked(run)
    return str(raised.value)


def test_faults_of_the_sets_are_said_before_anything_starts(
    library: Path, llama: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    for words, model, section, more in faults(sets, llama, bert):
        assert said(judged(tmp_path, library, model, section, **more)) == words
    nowhere = said(judged(tmp_path, library, llama, {"perplexity": {"a": "nowhere.jsonl"}}))
    assert nowhere.endswith("/nowhere.jsonl' does not exist. Correct the path, or create it")
    task = said(judged(tmp_path, library, llama, {"zero_shot": {"tasks": ["arc_easyy"]}}))
    assert task.startswith("evaluate.zero_shot.tasks has 'arc_easyy', which lm-eval does not know. See 'arc_easy'")


def test_a_set_in_order_is_taken_and_what_lies_beside_its_files_is_told(
    library: Path, llama: Path, sets: Path, tmp_path: Path
) -> None:
    (tmp_path / "sets").mkdir()
    write_parquet(tmp_path / "sets" / "a.parquet", [(text, "x") for text in texts(3)])
    (tmp_path / "sets" / "notes.docx").touch()
    section = {
        "perplexity": {"a": str(tmp_path / "sets")},
        "zero_shot": {"local": {"mine": {"path": f"{sets}/task.jsonl.gz"}}},
    }
    (told,) = checked(judged(tmp_path / "out", library, llama, section))
    assert told.startswith("evaluate.perplexity.a: 1 passed over, ") and told.endswith("notes.docx")


def test_a_base_that_cannot_judge_is_refused_before(library: Path, llama: Path, sets: Path, tmp_path: Path) -> None:
    """Its head is missing: it would have been drawn at random, and judged."""
    shutil.copytree(llama, tmp_path / "half")
    weights = load_file(llama / "model.safetensors")
    save_file({n: w for n, w in weights.items() if n != "lm_head.weight"}, tmp_path / "half" / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    section = {"perplexity": {"a": f"{sets}/held_out.parquet"}}
    assert said(judged(tmp_path / "out", library, tmp_path / "half", section)) == (
        "model.base 'half' does not load as a causal model: its files have no weights for lm_head.weight, which would "
        "be drawn at random. Choose another base, or the objective that it was made for."
    )


def test_large_sets_are_looked_at_in_part(
    library: Path, llama: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "EXACT_BYTES", 100)
    assert checked(judged(tmp_path, library, llama, {"perplexity": {"a": f"{sets}/held_out.parquet"}})) == []
    assert said(judged(tmp_path, library, llama, {"perplexity": {"a": f"{sets}/half.jsonl"}})).startswith(
        "evaluate.perplexity.a: 4 of 8 rows are unusable ({'empty_text': 4}), and target.max_bad_rows allows"
    )


def test_a_gpu_that_is_not_there_is_said(library: Path) -> None:
    small = Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True)
    with pytest.raises(UserError) as raised:
        evaluate.places(config.Model(base="x", device="cuda"), small)
    assert str(raised.value) == (
        "model.device is cuda, but no GPU is there. Set it to auto or cpu, or run where a GPU is."
    )


def key_of(run: config.Run) -> str:
    """Of the whole evaluation, with a selection of its own for each budget."""
    plan = planned(run)
    assert plan.evaluation
    keys = {"base": "b", "pretune": "p", "finetune": "f", "select": f"of {run.select.budget}"}
    given = replace(plan.evaluation, keys=keys, selected=keys["select"])
    return make_key(evaluate.STAGE.version, given.key())


def test_what_decides_the_numbers_is_in_the_key(
    library: Path, llama: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(section: dict[str, Any] | None = None, **more: Any) -> str:
        return key_of(judged(tmp_path, library, llama, held | (section or {}), **more))

    held = {"perplexity": {"held_out": str(sets / "held_out.parquet")}}
    first = key()
    assert key({"batch_tokens": 100}) == first
    of_no_use: list[dict[str, Any]] = [
        {"max_bad_rows": 0.5}, {"max_bad_files": 0.9}, {"weight_column": "w"}, {"proportions": {"a": 1.0}},
        {"source_column": None}, {"exclude_sources": ["x"]}, {"sample": 0.5},
    ]  # fmt: skip
    assert [key(target=change) for change in of_no_use] == [first] * len(of_no_use)
    others = [
        key({"max_tokens": 64}), key({"precision": "bfloat16"}), key({"resamples": 500}),
        key({"perplexity": {"held_out": str(sets / "known.parquet")}}),
        key({"perplexity": {"another": str(sets / "held_out.parquet")}}),
        key(target={"text_column": "source"}), key(finetune=SHORT), key(pretune=SHORT),
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "STAGE", replace(evaluate.STAGE, version=10**6))
        others.append(key())
    with monkeypatch.context() as patch:
        patch.setitem(JUDGES, "perplexity", replace(JUDGES["perplexity"], version=10**6))
        others.append(key())
    assert len({first, *others}) == len(others) + 1


def test_the_texts_that_were_trained_on_are_in_the_key_whoever_is_judged(
    library: Path, llama: Path, sets: Path, tmp_path: Path
) -> None:
    """How many of a set they hold is part of what is written."""
    base = {"models": ["base"], "perplexity": {"held_out": str(sets / "held_out.parquet")}}

    def key(**more: Any) -> str:
        return key_of(judged(tmp_path, library, llama, base, **more))

    more = [
        key(pretune=SHORT), key(pretune=SHORT, chunks={"max_chars": 500}), key(finetune=SHORT),
        key(finetune=SHORT | {"paths": str(sets / "known.parquet")}), key(finetune=SHORT, target={"sample": 0.5}),
    ]  # fmt: skip
    other = judged(tmp_path, library, llama, base, pretune=SHORT)
    other = other.model_copy(update={"select": other.select.model_copy(update={"budget": 39})})
    assert len({key(), *more, key_of(other)}) == 7
    assert key(finetune=SHORT | {"steps": 9}) == key(finetune=SHORT)  # its model is not judged, its texts are the same


def test_a_text_is_known_by_itself_and_by_its_pieces() -> None:
    text = " ".join(f"Sentence number {number} of a longer text." for number in range(40))
    pieces = split(text, 200)
    found = measure.ids_of(text, config.Chunks(max_chars=200, min_chars=40))
    assert found == {document_id(piece) for piece in [text, *pieces]} and len(pieces) > 3
    assert measure.ids_of("short", config.Chunks()) == {document_id("short")}


def test_a_set_is_read_in_the_order_of_its_texts(library: Path, llama: Path, sets: Path, tmp_path: Path) -> None:
    for name, order in (("a", 1), ("b", -1)):
        write_parquet(tmp_path / f"{name}.parquet", [(text, "x") for text in texts(9)[::order]])
    read = []
    for name in "ab":
        plan = planned(
            judged(tmp_path / "out", library, llama, {"perplexity": {"a": str(tmp_path / f"{name}.parquet")}})
        )
        assert plan.evaluation
        read.append([one.text for one in plan.evaluation.cases[0].reads[0].read().documents])
    assert read[0] == read[1] and sorted(read[0]) == sorted(map(clean, texts(9)))
