"""What a run left can be looked at whatever has happened since, and what has happened is said."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import make_run
from corpora import documents, write_parquet

from gotd_ray import cli, config, pipeline, results
from gotd_ray.errors import UserError
from gotd_ray.index import Snapshot
from gotd_ray.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

Gotd = Callable[..., str]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A folder with a corpus of two files, a target, and a finished run over them."""
    folder = tmp_path_factory.mktemp("run")
    corpus, target = documents()
    write_parquet(folder / "corpus" / "a.parquet", corpus[:60])
    write_parquet(folder / "corpus" / "b.parquet", corpus[60:120])
    write_parquet(folder / "target" / "t.parquet", target[:20])
    pipeline.execute(run_in(folder), Progress())
    return folder


def run_in(folder: Path, **sections: dict[str, object]) -> config.Run:
    select = {"method": "nearest", "budget": 8} | sections.pop("select", {})
    return make_run(folder / "out", folder, select=select, chunks={"max_chars": None}, **sections)


@pytest.fixture
def gotd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gotd:
    def call(command: str, folder: Path, **sections: dict[str, object]) -> str:
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(run_in(folder, **sections).model_dump(exclude_unset=True)))
        monkeypatch.setattr(sys, "argv", ["gotd", command, str(path)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0, capsys.readouterr()
        return capsys.readouterr().out

    return call


@pytest.fixture
def folder(original: Path) -> Path:
    """The finished run, put back as it was after each test."""
    kept = original.with_name(original.name + "-kept")
    if not kept.exists():
        shutil.copytree(original, kept, copy_function=shutil.copy2)
    shutil.rmtree(original)
    shutil.copytree(kept, original, copy_function=shutil.copy2)
    return original


def test_results_of_a_run_as_it_stands(folder: Path, gotd: Gotd) -> None:
    said = gotd("show", folder)
    assert "select: 8 of 120 candidates by nearest" in said
    assert f"the report: {folder}/out/report/report.html" in said
    assert "not of the run as it stands" not in said and "Nothing has run" not in said


def test_a_touched_file_and_a_new_one_are_said(folder: Path, gotd: Gotd) -> None:
    os.utime(folder / "corpus" / "a.parquet", (1, 1))
    write_parquet(folder / "corpus" / "c.parquet", documents()[0][120:130])
    said = gotd("show", folder)
    assert "select: 8 of 120 candidates by nearest" in said
    assert "embed, select, report would differ, and gotd run would do embed, select, report." in said
    assert "  corpus: 1 file new, 1 file changed\n" in said


def test_a_corpus_that_has_moved_is_said(folder: Path, gotd: Gotd) -> None:
    (folder / "corpus").rename(folder / "elsewhere")
    said = gotd("show", folder)
    assert "select: 8 of 120 candidates by nearest" in said
    assert f"cannot be told: '{folder}/corpus' does not exist." in said


def test_another_setting_is_said(folder: Path, gotd: Gotd) -> None:
    said = gotd("show", folder, select={"budget": 9})
    assert "select, report would differ, and gotd run would do select, report." in said
    assert "  select.budget: 8 then, 9 now\n" in said


def test_a_method_that_needs_no_scores_of_before_shows_them_as_what_they_are(folder: Path, gotd: Gotd) -> None:
    said = gotd("show", folder, select={"method": "random"})
    assert "by nearest" in said
    assert "  select.method: nearest then, random now\n" in said


def test_damaged_files_of_a_run_end_in_no_trace(folder: Path, gotd: Gotd) -> None:
    manifest = folder / "out" / "select" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:40])
    (folder / "out" / "embed" / "settings.json").write_text("")
    (folder / "out" / "embed" / "files.parquet").unlink()
    said = gotd("show", folder)
    assert "corpus: 120 documents from 2 files" in said
    assert "select:" not in said
    found = pipeline.execute(run_in(folder), Progress())
    assert found.done("select")


def test_a_subset_that_is_gone_is_said(folder: Path, gotd: Gotd) -> None:
    (folder / "out" / "select" / "subset.parquet").unlink()
    assert "subset.parquet, which is not there any more" in gotd("show", folder)


def test_lines_of_a_log_cut_no_number(folder: Path, gotd: Gotd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for row in json.loads((folder / "out" / "report" / "report.json").read_text())["samples"]["top"]:
        assert f"{row['score']:.4f}" in gotd("show", folder)


def test_a_comparison_is_shown(folder: Path, gotd: Gotd) -> None:
    found = {
        "against": "base", "rows": [], "costs": [], "cells": 1, "cells_in_all": 4, "level": 0.95,
        "settings": {"out": str(folder / "out")},
    }  # fmt: skip
    shutil.rmtree(folder / "out")
    (folder / "out").mkdir()
    (folder / "out" / results.COMPARISON).write_text(json.dumps(found))
    said = gotd("show", folder)
    assert "1 of 4 cells are done." in said and "Nothing has run" not in said


def test_vectors_that_the_index_lost_are_embedded_again_where_they_are_needed(folder: Path, gotd: Gotd) -> None:
    """One entry and its part are gone, as by a purge by age, and the budget has changed."""
    (index,) = (folder / "index").glob("*/corpus/rows-*")
    lost = json.loads(min((index / "entries").iterdir()).read_text())
    (index / "entries" / f"{lost['name']}.json").unlink()
    for part in lost["parts"]:
        (index / "parts" / part).unlink()
    assert gotd("plan", folder).count("to do") == 0, "nothing is left to do that reads them"
    assert gotd("plan", folder, select={"budget": 9}).count("to do") == 3
    found = pipeline.execute(run_in(folder, select={"budget": 9}), Progress())
    assert found.manifests["select"] and found.manifests["select"]["candidates"] == 120


def test_vectors_that_the_index_lost_are_missed_where_they_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part of them is gone, which no listing shows: the run says so, embeds what is lacking and goes on."""
    (part,) = (folder / "index").glob("*/corpus/vectors/parts/*")
    part.unlink()
    found = pipeline.execute(run_in(folder, select={"budget": 9}), Progress())
    assert "has lost the vectors of 120 documents" in capsys.readouterr().err
    assert found.manifests["select"] and found.manifests["select"]["candidates"] == 120
    assert found.manifests["embed"] and found.manifests["embed"]["corpus"]["embedded_now"] == 120


def test_an_index_that_was_deleted_is_made_anew(folder: Path) -> None:
    shutil.rmtree(folder / "index")
    found = pipeline.execute(run_in(folder, select={"budget": 9}), Progress())
    assert found.manifests["select"] and found.manifests["select"]["candidates"] == 120


def test_a_report_without_its_vectors_says_what_helps(folder: Path) -> None:
    shutil.rmtree(folder / "index")
    with pytest.raises(UserError) as caught:
        pipeline.write_report(run_in(folder), Progress())
    said = str(caught.value)
    assert "lacks 2 of 2 files of the corpus, such as " in said
    assert said.endswith("gotd run embeds them again.") and "\n" not in said


@pytest.mark.late("the index goes while the run is at work")
def test_no_stage_reads_a_part_of_what_it_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is lost between two stages of a run, nothing goes on without it."""
    read = Snapshot.read

    def lose(*arguments: object, **options: object) -> object:
        shutil.rmtree(folder / "index", ignore_errors=True)
        return read(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Snapshot, "read", lose)
    with pytest.raises(UserError, match="has lost the rows"):
        pipeline.execute(run_in(folder, select={"budget": 9}), Progress())


@pytest.mark.late("the corpus is where the run was")
def test_a_report_where_there_is_no_corpus_is_made_of_its_numbers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folder / "out" / "report" / results.PAGE
    before = page.read_text()
    page.unlink()
    for name in ("corpus", "target", "index"):
        shutil.rmtree(folder / name)
    assert pipeline.write_report(run_in(folder), Progress()) == str(page)
    assert page.read_text() == before
    assert "numbers of the last report" in capsys.readouterr().err
