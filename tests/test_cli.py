"""What the commands tell a user."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import make_run
from rich.console import Console

from gotd_ray import checks, cli, pipeline, results, show


def gotd(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["gotd", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def config_file(library: Path, tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(make_run(tmp_path / "out", library).model_dump()))
    return str(path)


def test_the_names_of_the_stages_are_those_of_the_results() -> None:
    assert tuple(stage.name for stage in pipeline.STAGES) == results.STAGES


def test_check_counts_and_estimates_and_writes_nothing(
    config_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = gotd("check", config_file, monkeypatch=monkeypatch, capsys=capsys)
    assert "documents/s here: about" in out
    assert "GB of vectors and up to" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml"]


@pytest.mark.parametrize(("kept_memory", "plan_of"), [(2.0, "10.00"), (0.5, "3.84")])
def test_check_says_what_memory_the_vectors_and_the_plan_need(
    kept_memory: float, plan_of: str, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """384 numbers of two bytes a vector; a byte for each candidate and target, as far as kept_memory reaches."""
    run = make_run(tmp_path / "out", library, solve={"kept_memory": kept_memory})
    plan = pipeline.plan(pipeline.resolve_paths(run))
    look = checks.look(plan, everything=True)
    look.counts["corpus"] = replace(look.counts["corpus"], documents=10**7)
    look.counts["target"] = replace(look.counts["target"], documents=1000)
    show.estimate(plan, look, Console(width=500))
    said = capsys.readouterr().out
    assert f"memory: 7.68 GB of vectors and up to {plan_of} GB of the solve's plan over all shards" in said


def test_check_tells_what_does_nothing(
    config_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = gotd("check", config_file, "--set", "select.bandwidth=2.0", monkeypatch=monkeypatch, capsys=capsys)
    assert "note: select.bandwidth does nothing here: select.method is not mmd.\n" in out


def test_check_says_what_memory_the_trainings_need(
    library: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"max_tokens": 64, "batch_size": 8, "steps": 1, "workers": 2, "zero_stage": 2}
    run = make_run(tmp_path / "out", library, model={"base": str(llama)}, pretune=training)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.model_dump()))
    out = gotd("check", str(tmp_path / "run.yaml"), monkeypatch=monkeypatch, capsys=capsys)
    said = re.search(r"pretune: causal, at least ([\d.]+) GB on each of 2 workers, 4 rows of up to 64 tokens", out)
    assert said and 0 < float(said[1]) < 0.1


def test_plan_says_what_is_to_do(
    config_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = gotd("plan", config_file, monkeypatch=monkeypatch, capsys=capsys)
    assert out.count("to do") == 4
    assert "corpus: 6 files" in out
    out = gotd("plan", config_file, "--set", "select.method=nearest", monkeypatch=monkeypatch, capsys=capsys)
    assert out.count("to do") == 3
    assert "solve" not in out


def test_show_of_a_run_that_never_ran_says_so(
    config_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Nothing has run yet" in gotd("show", config_file, monkeypatch=monkeypatch, capsys=capsys)
