"""Bad settings end in one message before any work; bad data is skipped, counted and shown, or stops the run."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_run
from corpora import documents, write_jsonl_gz, write_parquet
from rich.console import Console

from gotd_ray import cli, pipeline, results, show
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress
from gotd_ray.stages import embed

Command = Callable[..., tuple[int, str]]

SITE = Site(Resources(2, 0, 1, 2, private=False), "cpu", Progress())
"""The session's cluster."""


@pytest.fixture
def gotd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process: its exit status and what it wrote to standard error."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["gotd", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, capsys.readouterr().err

    return call


def write_config(folder: Path, library: Path, **sections: Any) -> Path:
    """A config file as a user writes it, valid but for what ``sections`` change."""
    data: dict[str, Any] = {
        "out": str(folder / "out"),
        "corpus": {"paths": f"{library}/corpus", "source_column": "source"},
        "target": {"paths": f"{library}/target"},
        "select": {"budget": 40},
    }
    for name, changes in sections.items():
        data[name] = data.get(name, {}) | changes
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(data).replace("<library>", str(library)))
    return path


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "missing path": ({"corpus": {"paths": "/no/such/folder"}}, "'/no/such/folder' does not exist. Correct the path"),
    "wrong column": ({"corpus": {"text_column": "body"}}, "body"),
    "unknown encoder": ({"encoder": {"model": "no-such/encoder"}}, "encoder.model is 'no-such/encoder'"),
    "budget above the corpus": ({"select": {"budget": 70_000}}, "Lower the budget, or add to corpus.paths"),
    "epsilon 0": ({"solve": {"epsilon": 0}}, "solve.epsilon is 0: input should be greater than 0"),
    "unknown key": ({"solve": {"epsilom": 1}}, "unknown key 'solve.epsilom'. Did you mean 'epsilon'?"),
    "no GPU": ({"encoder": {"device": "cuda"}}, "encoder.device is cuda, but no GPU is there. Set it to auto or cpu"),
    "secret in a path": ({"corpus": {"paths": "s3://KEY:SECRETSECRET@bucket/x"}}, "path holds credentials"),
    "secret in options": ({"storage": {"options": {"secret": "hidden"}}}, "credentials do not belong in a config"),
    "secret below the options": (
        {"storage": {"options": {"client_kwargs": {"aws_secret_access_key": "hidden"}}}},
        "storage.options has 'aws_secret_access_key': credentials do not belong",
    ),
    "key of an account": ({"storage": {"options": {"account_key": "hidden"}}}, "'account_key': credentials do not"),
    "variable not set": ({"corpus": {"paths": "$GOTD_NOT_SET/x"}}, "export GOTD_NOT_SET="),
    "no such weights": ({"corpus": {"weight_column": "w"}}, "has no column 'w'"),
    "shares of the corpus": ({"corpus": {"proportions": {"a": 1}}}, "corpus.proportions does nothing"),
    "weights of evaluation sets": (
        {"select": {"decontaminate": {"paths": "x", "weight_column": "w"}}},
        "select.decontaminate takes no weight_column",
    ),
    "shares of other sources": (
        {"target": {"source_column": "source", "proportions": {"random": 1, "no-such": 2}}},
        "target.proportions names 'no-such', 'random', but the target's sources are 'fractions', 'random'",
    ),
    "shares of nothing": ({"target": {"proportions": {"a": 0}}}, "at least one share must be positive"),
    "one of two text columns": (
        {"corpus": {"text_column": "text,boddy"}},
        "corpus has no column 'boddy' (text_column);",
    ),
    "no such source column": (
        {"corpus": {"source_column": "sourc"}},
        "corpus has no column 'sourc' (source_column); it has 'source', 'text' (did you mean 'source'?)",
    ),
    "no such source": (
        {"target": {"source_column": "source", "exclude_sources": ["randon"]}},
        "target.exclude_sources names 'randon', but no row is of that source (did you mean 'random'?)",
    ),
    "no such source to keep": (
        {"survey": {"always": ["random"]}},
        "survey.always names 'random', but no row is of that source",
    ),
    "evaluation set under another key": (
        {"select": {"decontaminate": {"paths": "<library>/target", "text_column": "sentence"}}},
        "select.decontaminate has no column 'sentence' (text_column); it has 'source', 'text'",
    ),
    "unknown scheme": ({"corpus": {"paths": "ftq://x/y"}}, "'ftq://' is no storage that we know"),
}


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_message_before_any_work(
    mistake: str, command: str, library: Path, tmp_path: Path, gotd: Command
) -> None:
    sections, message = MISTAKES[mistake]
    if mistake == "no GPU" and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    status, error = gotd(command, write_config(tmp_path, library, **sections))
    assert status == 2
    assert message in error
    assert "Traceback" not in error
    assert "SECRETSECRET" not in error
    assert "hidden" not in error
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_refused(library: Path, tmp_path: Path, gotd: Command) -> None:
    (tmp_path / "empty").mkdir()
    status, error = gotd("run", write_config(tmp_path, library, corpus={"paths": f"{tmp_path}/empty"}))
    assert status == 2
    assert "holds no file that ends in .parquet" in error


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_readme_beside_files_of_unknown_ending_does_not_become_the_corpus(
    command: str, library: Path, tmp_path: Path, gotd: Command
) -> None:
    folder = tmp_path / "data"
    for number in range(5):
        write_jsonl_gz(folder / f"part-{number}.log.gz", documents()[0][number::5])
    (folder / "README.md").write_text("# A data set\n\nOf the documentation strings of Python's own library. " * 9)
    status, error = gotd(command, write_config(tmp_path, library, corpus={"paths": str(folder)}))
    assert status == 2
    assert f"5 passed over, an ending that is not read: {folder}/part-0.log.gz" in error
    assert f"1 passed over, a README, license or the like: {folder}/README.md" in error
    named = {"paths": f"{folder}/*.log.gz", "format": "jsonl"}
    assert gotd("check", write_config(tmp_path, library, corpus=named))[0] == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_refused(library: Path, tmp_path: Path, gotd: Command) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    status, error = gotd("run", write_config(tmp_path, library, corpus={"paths": f"{tmp_path}/closed"}))
    assert status == 2
    assert "permission denied" in error


def test_a_config_that_is_missing_or_broken_is_refused(tmp_path: Path, gotd: Command) -> None:
    assert gotd("run", tmp_path / "none.yaml")[0] == 2
    (tmp_path / "broken.yaml").write_text("out: [")
    status, error = gotd("run", tmp_path / "broken.yaml")
    assert status == 2
    assert "not valid YAML" in error


def test_set_wins_over_the_file_and_its_mistakes_are_named(library: Path, tmp_path: Path, gotd: Command) -> None:
    path = write_config(tmp_path, library)
    assert gotd("plan", path, "--set", "select.budget=7")[0] == 0
    assert "select.budget is 0" in gotd("plan", path, "--set", "select.budget=0")[1]
    assert "not of the form a.b=c" in gotd("plan", path, "--set", "select.budget")[1]


@pytest.fixture
def broken(tmp_path: Path, library: Path) -> Path:
    """A corpus in which everything is wrong once, beside the library's good files."""
    folder = tmp_path / "corpus"
    shutil.copytree(library / "corpus", folder)
    rows = documents()[0][:120]
    write_parquet(folder / "cut.parquet", rows)
    (folder / "cut.parquet").write_bytes((folder / "cut.parquet").read_bytes()[:-200])
    write_jsonl_gz(folder / "cut.jsonl.gz", rows)
    (folder / "cut.jsonl.gz").write_bytes((folder / "cut.jsonl.gz").read_bytes()[:-2000])
    lines = [
        json.dumps({"text": rows[0][0] + " once more", "source": "odd"}).encode(),
        b'{"text": "' + b"caf\xe9 " * 30 + b'"}',
        b'{"text": broken',
        json.dumps({"text": None}).encode(),
        json.dumps({"text": "   "}).encode(),
        json.dumps({"text": ["a", "list"]}).encode(),
        json.dumps({"other": "no text here"}).encode(),
        json.dumps({"text": "x " * 25_000_000}).encode(),
    ]
    (folder / "odd.jsonl").write_bytes(b"\n".join(lines))
    return folder


@pytest.mark.ray
def test_bad_data_is_skipped_counted_by_reason_and_shown(
    broken: Path, library: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "out", library, corpus={"paths": str(broken), "max_bad_files": 0.5})
    plan = pipeline.execute(run.model_copy(update={"index": str(tmp_path / "index")}), Progress())
    manifest = plan.manifests["embed"]
    assert manifest is not None
    facts = manifest["corpus"]
    reasons = {
        "invalid_utf8": 1,
        "broken_json": 1,
        "empty_text": 2,
        "not_a_string": 1,
        "missing_column": 1,
        "too_long": 1,
    }
    assert {reason: facts["skipped"].get(reason) for reason in reasons} == reasons
    assert {Path(bad["uri"]).name for bad in facts["bad_files"]} == {"cut.parquet", "cut.jsonl.gz"}
    assert all(facts["examples"][reason][0][0].endswith("odd.jsonl") for reason in reasons)
    show.results(results.read(plan.run), Console(width=250))
    shown = capsys.readouterr().out
    assert "cut.jsonl.gz: truncated" in shown
    assert "1 broken_json" in shown
    sources = manifest_sources(plan)
    assert sources["odd"][0] == 1


def manifest_sources(plan: pipeline.Plan) -> dict[str, list[int]]:
    selected = plan.manifests["select"]
    assert selected is not None
    return selected["sources"]


@pytest.mark.ray
def test_an_evaluation_set_that_cannot_be_read_stops_the_run(
    broken: Path, library: Path, tmp_path: Path, ray_cluster: None
) -> None:
    unwanted = {"paths": str(broken / "cut.jsonl.gz")}
    run = make_run(tmp_path / "out", library, select={"budget": 40, "decontaminate": unwanted})
    with pytest.raises(UserError, match=r"select.decontaminate: .*cut.jsonl.gz cannot be read: truncated"):
        pipeline.execute(run, Progress())


@pytest.mark.ray
def test_too_many_bad_files_stop_the_run(broken: Path, library: Path, tmp_path: Path, ray_cluster: None) -> None:
    run = make_run(tmp_path / "out", library, corpus={"paths": str(broken), "max_bad_files": 0.1})
    with pytest.raises(
        UserError, match=r"corpus: 2 of 9 files cannot be read, and corpus.max_bad_files allows a share"
    ):
        pipeline.execute(run.model_copy(update={"index": str(tmp_path / "index")}), Progress())


@pytest.mark.ray
def test_too_many_bad_rows_stop_the_run(library: Path, tmp_path: Path, ray_cluster: None) -> None:
    rows = [json.dumps({"text": text}) if i % 2 else "{" for i, (text, _) in enumerate(documents()[0][:100])]
    path = tmp_path / "half.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(rows))
    run = make_run(tmp_path / "out", library, corpus={"paths": str(path), "source_column": None})
    with pytest.raises(UserError, match=r"max_bad_rows allows a share of 0\.2"):
        pipeline.execute(run, Progress())


@pytest.mark.ray
def test_a_file_that_vanishes_after_listing_is_counted_and_tried_again(
    library: Path, tmp_path: Path, ray_cluster: None
) -> None:
    shutil.copytree(library / "corpus", tmp_path / "corpus")
    run = make_run(tmp_path / "out", library, corpus={"paths": f"{tmp_path}/corpus", "max_bad_files": 0.5})
    plan = pipeline.plan(pipeline.resolve_paths(run.model_copy(update={"index": str(tmp_path / "index")})))
    gone = tmp_path / "corpus" / "part-2.parquet"
    content, stat = gone.read_bytes(), gone.stat()
    gone.unlink()
    step = plan.steps["embed"]
    given = replace(step.given, collections={"corpus": plan.collections["corpus"]})
    facts = embed.embed(given, step.artifact, SITE)
    assert [(Path(bad["uri"]).name, bad["reason"]) for bad in facts["corpus"]["bad_files"]] == [(gone.name, "vanished")]
    assert facts["unreached"] == [str(gone)]
    gone.write_bytes(content)
    os.utime(gone, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    _, missing = plan.collections["corpus"].index.snapshot(plan.collections["corpus"].files)
    assert [file.uri for file in missing] == [str(gone)]


@pytest.mark.ray
def test_a_document_that_changed_after_embedding_gives_way(library: Path, tmp_path: Path, ray_cluster: None) -> None:
    """Its text is read back by address; another text there is not taken under the old id."""
    shutil.copytree(library / "corpus", tmp_path / "corpus")
    run = make_run(tmp_path / "out", library, corpus={"paths": f"{tmp_path}/corpus"})
    run = run.model_copy(update={"index": str(tmp_path / "index")})
    first = pipeline.execute(run, Progress())
    best = pq.read_table(first.artifacts["select"].path("subset.parquet")).slice(0, 1).to_pylist()[0]
    path = Path(best["path"])
    plan = pipeline.plan(run.model_copy(update={"select": run.select.model_copy(update={"budget": 41})}))
    path.unlink()
    step = plan.steps["select"]
    step.stage.work(step.given, step.artifact, SITE)
    again = pq.read_table(plan.artifacts["select"].path("subset.parquet")).to_pandas()
    aside = pq.read_table(plan.artifacts["select"].path("set_aside.parquet")).to_pandas()
    assert str(path) not in set(again.path)
    assert best["doc_id"] in set(aside[aside.reason == "text_changed"].doc_id)
    assert len(again) == 41
