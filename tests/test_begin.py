"""`gotd init` writes a run that `gotd check` accepts, and the schema that editors go by is that of the types."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import documents

from gotd_ray import cli, config
from gotd_ray.begin import begin
from gotd_ray.config import schema
from gotd_ray.errors import UserError

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema.schema())


def wrong(data: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_a_corpus_of_nested_lines_and_its_target_are_understood(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, target = documents()
    rows = [
        {"id": i, "url": f"http://x.org/{i}", "meta": {"body": text, "site": source}, "weight": 0.5 + i, "note": "-"}
        for i, (text, source) in enumerate(corpus)
    ]
    lines(here / "data" / "corpus" / "a.jsonl", rows)
    lines(here / "data" / "train.jsonl", [{"words": text, "label": i % 3} for i, (text, _) in enumerate(target)])
    for command in (["init", "data"], ["check", "run.yaml"]):
        monkeypatch.setattr(sys, "argv", ["gotd", *command])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "corpus.text_column: meta.body (called like a text, " in said
    assert "corpus.weight_column: weight (called so; numbers of at least 0, written as a comment)" in said
    assert "target.label_column: label (called so; 3 different in " in said
    assert "documents/s here: about" in said, "check went through"
    run = config.load("run.yaml")
    assert (run.corpus.text_column, run.corpus.source_column, run.corpus.weight_column) == (
        "meta.body",
        "meta.site",
        None,
    )
    assert (run.target.paths, run.target.text_column) == (["data/train.jsonl"], "words")
    assert run.select.budget == 100 and len(corpus) // 10 in range(100, 200)
    text = Path("run.yaml").read_text()
    assert not wrong(yaml.safe_load(text))
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named and (here / named[1]).resolve() == schema.FILE.resolve()
    # What is written as comments is what can be taken in.
    whole = re.sub(r"^# (\w+: \{.*\})    .*$|^# (\w+: \{.*\})$", r"\1\2", text, flags=re.M)
    whole = whole.replace("  # weight_column: weight", "  weight_column: weight")
    assert not wrong(yaml.safe_load(whole)) and "finetune: {parameters: lora, epochs: 3, label_column: label}" in whole
    (here / "whole.yaml").write_text(whole)
    assert config.load("whole.yaml").corpus.weight_column == "weight"
    with pytest.raises(UserError, match=r"run.yaml' is there already"):
        begin(["data"], Path("run.yaml"))
    assert Path("run.yaml").read_text() == text


def test_short_texts_of_other_formats_and_a_test_set_beside(here: Path) -> None:
    """A column that is called like a text leads a longer one up to four times its length."""
    corpus, _ = documents()
    table = {"text": [text[:70] for text, _ in corpus], "html": [text[:150] for text, _ in corpus]}
    pq.write_table(pa.table(table | {"source": [source for _, source in corpus]}), here / "a $b.parquet")
    for name in ("train", "test"):
        (here / f"my {name}.csv").write_text("question,group\n" + "".join(f"short {i} ?,g{i}\n" for i in range(50)))
    told = "\n".join(begin(["a $b.parquet", "my train.csv"], here / "b.yaml"))
    assert "chunks.min_chars: 10 (50 of the target's 50 pieces have fewer than 40)" in told
    run = config.load(here / "b.yaml")
    assert (run.corpus.paths, run.corpus.text_column, run.corpus.source_column) == (["a $b.parquet"], "text", "source")
    assert run.target.text_column == "question" and run.name == "b" and run.out == "runs/b"
    assert run.select.decontaminate and run.select.decontaminate.paths == ["my test.csv"]
    assert run.chunks.min_chars == 10


def test_files_without_columns_are_texts(here: Path) -> None:
    for i, (text, _) in enumerate(documents()[0][:12]):
        (here / f"{i}.txt").write_text(text)
    (here / "few").mkdir()
    (here / "few" / "one.md").write_text("A text of more than forty characters, to be the target.")
    begin([str(here), str(here / "few")], here / "c.yaml")
    assert config.load(here / "c.yaml").select.budget == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"n": 1}, {"n": 2}], "no column of the corpus holds texts: it has n"),
        ([{"text": "short"}], "the corpus '.*' has no document"),
    ],
)
def test_what_is_no_corpus_is_said_and_nothing_is_written(here: Path, rows: list[dict[str, Any]], said: str) -> None:
    target = lines(here / "t.jsonl", [{"text": "A text of more than forty characters, to be the target."}])
    with pytest.raises(UserError, match=said):
        begin([lines(here / "c.jsonl", rows), target], here / "run.yaml")
    with pytest.raises(UserError, match="alone says no corpus and no target"):
        begin([str(here)], here / "run.yaml")
    with pytest.raises(UserError, match="does not exist"):
        begin([str(here / "none"), target], here / "run.yaml")
    assert not (here / "run.yaml").exists()


def test_the_schema_is_what_the_types_say(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    cli.schema()
    said = capsys.readouterr().out
    assert said == schema.FILE.read_text(encoding="utf-8"), "run: python docs/make_reference.py"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_job_fits_the_schema_and_names_it(job: Path) -> None:
    text = job.read_text(encoding="utf-8")
    assert not wrong(yaml.safe_load(text))
    assert text.startswith(schema.mark(job.parent) + "\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"selects": {}}, "'selects' was unexpected"),
        ({"select": {"budgets": 5}}, "'budgets' was unexpected"),
        ({"select": {"budget": "many"}}, "'many' is not of type 'integer'"),
        ({"select": {"budget": 0}}, "less than the minimum of 1"),
        ({"encoder": {"pooling": "max"}}, "'max' is not one of"),
    ],
)
def test_a_wrong_key_or_value_fails_in_the_schema(change: dict[str, Any], said: str) -> None:
    minimal: dict[str, Any] = {"out": "x", "corpus": {"paths": ["a"]}, "target": {"paths": "b"}}
    named = {"select": {"method": "package.module:name"}, "encoder": {"kind": "mine"}}
    assert not wrong(minimal | named), "a plug-in has a name of its own"
    found = wrong(minimal | change)
    assert len(found) == 1 and said in found[0]
