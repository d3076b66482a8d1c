"""Every benchmark at toy size: what it prints is a table of finite numbers, and the numbers are of the product."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import bench_figure3
import bench_rounds
import data
import mixtures
import numpy as np
import pytest
import vectors
from corpora import documents, write_parquet
from product import Library

from gotd_ray.ot.divergence import sinkhorn_divergence
from gotd_ray.stages import _rounds

SOURCES = ("arxiv_cs", "arxiv_bio", "recipes", "legal_docs", "news_bbc")
TASKS = ("chemprot", "agnews")
WIDTH = 8

Table = list[dict[str, str]]


def tables(printed: str) -> list[Table]:
    """The Markdown tables of an output, each a list of rows by column."""
    found: list[Table] = []
    head: list[str] = []
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
            found.append([])
        elif set(cells) != {"---"}:
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", cell.replace(",", ""))]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for text, _ in documents()[0]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A folder as GOTD_DATA names it: five sources and two tasks of documentation strings."""
    folder = tmp_path_factory.mktemp("data")
    for number, name in enumerate(SOURCES):
        write_parquet(folder / "corpus" / f"{name}.parquet", [(text, name) for text in texts[number::7]])
    for number, name in enumerate(TASKS):
        write_parquet(folder / "tasks" / name / "train.parquet", [(text, name) for text in texts[5 + number :: 7]])
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """Vectors of these texts, as vectors.py keeps them, around an axis for each source; both tasks lie between."""
    folder, rng = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    files = [*sorted((library / "corpus").glob("*.parquet")), *(library / "tasks" / t / "train.parquet" for t in TASKS)]
    for axis, path in enumerate(files):
        found = data.texts_of(path, vectors.MAX_CHARS)
        x = np.eye(WIDTH)[axis] + 0.3 * rng.normal(size=(len(found), WIDTH))
        name = f"task_{path.parent.name}" if axis >= len(SOURCES) else f"corpus_{path.stem}"
        x += 0.8 * np.eye(WIDTH)[0] if axis >= len(SOURCES) else 0
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
        np.savez(folder / f"{name}.npz", ids=vectors.ids_of(found), x=x)
    return folder


@pytest.fixture
def given(library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOTD_DATA", str(library))
    return library


@pytest.mark.parametrize("main", [bench_figure3.main])
def test_without_data_it_is_said_that_there_is_nothing_to_measure(
    main: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GOTD_DATA", raising=False)
    with pytest.raises(SystemExit) as end:
        main([])  # type: ignore[operator]
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("skipped: set GOTD_DATA to a folder with corpus/")


def test_figure_3(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--pool", "24", "6", "--target", "4", "--first", "8", "--most", "32", "--max-tokens", "16"]
    bench_figure3.main(["--seeds", "2", "--landmarks", "16", "30", *sizes])
    (table,) = tables(capsys.readouterr().out)
    methods = ["nearest", "random", "mmd witness", *(f"gotd debiased, {n} landmarks" for n in (16, 30)), "gotd paper"]
    assert [row["score"] for row in table] == methods * 2
    for row in table:
        low, high = numbers(row["95% interval"])
        assert 0 <= low <= float(row["all seeds"]) <= high <= 1
        assert float(row["all seeds"]) * 16 == pytest.approx(round(float(row["all seeds"]) * 16), abs=0.01)


def test_rounds_are_the_products(
    given: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refits: list[float] = []
    refit = _rounds.Rounds.refit

    def counted(self: _rounds.Rounds, taken: _rounds.Taken, task: object) -> None:
        refits.append(taken.share)
        refit(self, taken, task)  # type: ignore[arg-type]

    monkeypatch.setattr(_rounds.Rounds, "refit", counted)
    sizes = ["--candidates", "150", "--half", "30", "--budgets", "12", "--rounds", "3", "--mixes", "0.5"]
    bench_rounds.main(["--vectors", str(cache), "--seeds", "1", "--tasks", "chemprot", *sizes])
    (table,) = tables(capsys.readouterr().out)
    assert refits == pytest.approx([0.2 / 3, 0.4 / 3, 0.5 / 3, 1.0 / 3])
    found = {row["method"]: row for row in table}
    assert list(found) == [
        *("nothing taken", "random", "nearest", "mmd witness", "paper", "dsir", "debiased", "debiased, 3 rounds"),
        *("mix 0.5, 1 round", "mix 0.5, 3 rounds", "the fitted half alone"),
    ]
    gains = {method: numbers(row["gain"])[0] for method, row in found.items()}
    assert gains["nothing taken"] == 0 and gains["debiased"] == gains["mix 0.5, 1 round"] == 1
    assert float(found["debiased"]["fitted half"]) < float(found["nothing taken"]["fitted half"])
    assert float(found["debiased, 3 rounds"]["fitted half"]) <= float(found["debiased"]["fitted half"]) + 1e-4
    assert all(np.isfinite(numbers(cell)).all() for row in table for cell in row.values())
