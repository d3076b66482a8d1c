"""What check knows of a selection is refused in the words in which a run would refuse it after the embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selected import TARGET, TEXTS, counted, write

from gotd_ray import config
from gotd_ray.checks import check_selection
from gotd_ray.errors import UserError
from gotd_ray.index import ROWS, Documents, ids_of
from gotd_ray.points import points_of
from gotd_ray.preflight import Count, count_documents
from gotd_ray.storage import list_files


def weighted(path: Path, rows: list[tuple[str, str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text, source, weight = zip(*rows, strict=True)
    pq.write_table(pa.table({"text": text, "source": source, "w": weight}), path)


def run_over(folder: Path, **sections: Any) -> config.Run:
    column = {"source_column": "source", "weight_column": "w"}
    given = {name: {"paths": f"{folder}/{name}"} | column for name in ("corpus", "target")}
    for name, changes in sections.items():
        given[name] = given.get(name, {}) | changes
    return config.Run.model_validate({"out": f"{folder}/out", "select": {"budget": 2}} | given)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of positive weights; of the target's two sources one has none."""
    weighted(tmp_path / "corpus" / "a.parquet", [(text, "web", 1.0) for text in TEXTS[:6]])
    rows = [(text, "none", 0.0) for text in TARGET[:3]] + [(text, "some", 2.0) for text in TARGET[3:]]
    weighted(tmp_path / "target" / "a.parquet", rows)
    return tmp_path


def points(run: config.Run, rows: list[tuple[str, str, float]]) -> None:
    """What the stage makes of the same target."""

    class Rows:
        @staticmethod
        def read(columns: list[str]) -> pa.Table:
            some = {
                "doc_id": [f"{n:032x}" for n in range(len(rows))],
                "source": [source for _, source, _ in rows],
                "weight": pa.array([weight for *_, weight in rows], pa.float32()),
            }
            return pa.table({name: some[name] for name in columns})

        @classmethod
        def documents(cls, width: int) -> Documents:
            table = cls.read(["doc_id", "weight"])
            return Documents(ids_of(table), np.ones((len(rows), width), np.float16), table["weight"].to_numpy())

    assert set(ROWS.names) >= {"doc_id", "source", "weight"}
    points_of(Rows(), 2, shares=run.target.proportions)  # type: ignore[arg-type]


def test_what_is_whole_passes(folder: Path) -> None:
    run = run_over(folder, target={"proportions": {"none": 0.0, "some": 1.0}})
    check_selection(run, counted(run))
    check_selection(run_over(folder), counted(run_over(folder)))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (
            {"none": 1.0, "some": 1.0},
            "target.proportions gives the source 'none' a share, but all of its documents have",
        ),
        ({"some": 1.0}, "target.proportions names 'some', but the target's sources are 'none', 'some'."),
        ({"none": 0, "some": 1, "other": 1}, "target.proportions names 'none', 'other', 'some', but the target's"),
    ],
)
def test_shares_that_cannot_be_given_are_refused_alike(folder: Path, shares: dict[str, float], message: str) -> None:
    run = run_over(folder, target={"proportions": shares})
    with pytest.raises(UserError) as before:
        check_selection(run, counted(run))
    assert str(before.value).startswith(message)
    with pytest.raises(UserError) as after:
        points(run, [(text, "none", 0.0) for text in TARGET[:3]] + [(text, "some", 2.0) for text in TARGET[3:]])
    assert str(after.value) == str(before.value)


@pytest.mark.parametrize(
    ("method", "name", "refused"),
    [
        ("gotd", "target", True),
        ("random", "target", True),
        ("gotd", "corpus", True),
        ("mmd", "corpus", True),
        ("nearest", "corpus", False),
        ("dsir", "corpus", False),
        ("gotd", "contrast", True),
        ("gotd", "reference", True),
    ],
)
def test_weights_that_are_all_0_are_refused_where_the_method_has_them(
    folder: Path, method: str, name: str, refused: bool
) -> None:
    weighted(folder / name / "a.parquet", [(text, "web", 0.0) for text in TEXTS[:6]])
    column = {"paths": f"{folder}/{name}", "source_column": "source", "weight_column": "w"}
    run = run_over(folder, **{name: column, "select": {"method": method, "budget": 2}})
    counts: dict[str, Count] = counted(run)
    if name not in counts:
        text = getattr(run, name)
        counts[name] = count_documents(name, name, list_files(text, run.storage), text, run.chunks, run.storage)
    if not refused:
        check_selection(run, counts)
        return
    with pytest.raises(UserError, match=rf"^every document of the {name} has weight 0\. Check {name}\.weight_column: "):
        check_selection(run, counts)


def test_weights_of_0_count_nothing_where_the_potentials_are_given(folder: Path) -> None:
    weighted(folder / "corpus" / "a.parquet", [(text, "web", 0.0) for text in TEXTS[:6]])
    run = run_over(folder, solve={"potentials": "some.safetensors"})
    check_selection(run, counted(run))


def test_a_budget_counts_each_text_once_and_an_estimate_is_no_ground_to_refuse_but_by_far(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / "corpus" / name, TEXTS[:5])
    write(tmp_path / "target" / "a.jsonl", TARGET)
    sections = {name: {"source_column": None, "weight_column": None} for name in ("corpus", "target")}
    run = run_over(tmp_path, **sections, select={"budget": 6})
    counts = counted(run)
    with pytest.raises(UserError, match=r"^select\.budget is 6, but the corpus has 5 distinct documents\. Lower the"):
        check_selection(run, counts)
    tokens = run.model_copy(update={"select": run.select.model_copy(update={"budget_unit": "tokens"})})
    check_selection(tokens, counts)
    estimate = counts["corpus"].__class__(**(vars(counts["corpus"]) | {"exact": False, "documents": 1000}))
    for budget, refused in ((3000, False), (3001, True)):
        more = run.model_copy(update={"select": run.select.model_copy(update={"budget": budget})})
        if not refused:
            check_selection(more, counts | {"corpus": estimate})
            continue
        with pytest.raises(UserError, match=r"^select\.budget is 3,001, but the corpus has about 1,000 distinct"):
            check_selection(more, counts | {"corpus": estimate})
