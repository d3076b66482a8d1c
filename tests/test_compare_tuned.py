"""`compare.tune`: each arm besides with settings of its own, searched once with the first seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from test_compare import TRAINING, examples, settings

from gotd_ray import compare, config, show_arms, tune
from gotd_ray.arms import Cell, cells, run_of
from gotd_ray.progress import Progress
from gotd_ray.report.render import comparison_page

ARMS = ["base", "target_only", "random"]
SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-1, "scale": "log"}}


def tuned_run(folder: Path, library: Path, **sections: Any) -> config.Run:
    trained = TRAINING | {"dev": f"{library}/dev"}
    given = {"compare": {"seeds": [3, 4], "arms": ARMS, "tune": True}, "tune": {"space": SPACE}}
    return settings(folder, library, "x", pretune=trained, finetune=trained, **(given | sections))


def test_each_arm_that_is_trained_has_a_tuned_cell_for_each_seed(library: Path, tmp_path: Path) -> None:
    run = tuned_run(tmp_path, library)
    found = [cell.name for cell in cells(run)]
    assert found == [
        "base", "target_only-s3", "random-b40-s3", "target_only-s3-tuned", "random-b40-s3-tuned",
        "target_only-s4", "random-b40-s4", "target_only-s4-tuned", "random-b40-s4-tuned",
    ]  # fmt: skip
    pretuned = [cell.label for cell in cells(tuned_run(tmp_path, library, tune={"space": SPACE, "stage": "pretune"}))]
    assert pretuned == ["base", "target_only", "random", "random, tuned", "target_only", "random", "random, tuned"]


def test_a_tuned_cell_is_its_arm_with_the_same_documents(library: Path, tmp_path: Path) -> None:
    run = tuned_run(tmp_path, library)
    one, own = (run_of(run, Cell("random", 40, 3, tuned)) for tuned in (False, True))
    assert one.selection == own.selection and one.out != own.out
    assert one.tune is None and own.tune == run.tune
    assert one.model_dump(exclude={"name", "out", "tune"}) == own.model_dump(exclude={"name", "out", "tune"})
    assert run_of(run, Cell("base", None, None)).tune is None


def test_the_settings_are_searched_once_for_each_arm_and_put_into_all_its_runs(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []

    def work(run: config.Run, _resources: Any, _progress: Any) -> dict[str, Any]:
        searched.append(run.name)
        return {"stage": "finetune", "best": {"setting": {"learning_rate": 0.001 * len(searched)}}, "seconds": 5.0}

    @contextmanager
    def held(*_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(tune, "work", work)
    monkeypatch.setattr(compare, "held", held)
    run = tuned_run(tmp_path, library)
    todo = {cell: run_of(run, cell) for cell in cells(run)}
    before = dict(todo)
    compare._tune(todo, None, Progress())  # type: ignore[arg-type]
    assert searched == ["run-target_only-s3-tuned", "run-random-b40-s3-tuned"]
    for cell, one in todo.items():
        if not cell.tuned:
            assert one == before[cell]
            continue
        assert one.tune is None and one.finetune and before[cell].finetune
        assert one.finetune.learning_rate == (0.001 if cell.arm == "target_only" else 0.002)
        changed = {"learning_rate": before[cell].finetune.learning_rate}  # type: ignore[union-attr]
        assert one.finetune.model_copy(update=changed) == before[cell].finetune


def test_tuned_arms_are_held_against_the_tuned_one_and_their_search_is_paid(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuned_run(tmp_path, library, costs={"per_hour": 36.0})
    shift = {"base": 0.5, "target_only": 0.2, "random": 0.0, "target_only, tuned": 0.1, "random, tuned": 0.15}
    told = {"seconds": 100.0, "money": 1.0, "report": None}
    size = {"bytes": np.full(60, 99)}
    monkeypatch.setattr(
        compare,
        "_examples",
        lambda cell, _: {("perplexity", "held"): examples(cell.seed or 0, shift[cell.label]) | size},
    )
    monkeypatch.setattr(compare, "_cost", lambda *_: dict(told))
    search = {"stage": "finetune", "best": {"setting": {"learning_rate": 0.002}}, "seconds": 50.0}
    tuned = {("target_only, tuned", None): search, ("random, tuned", 40): search}
    found = compare.tell(run, {cell: cell for cell in cells(run)}, 9, tuned)  # type: ignore[misc]
    rows = {row["arm"]: row for row in found["rows"] if row["metric"] == "perplexity"}
    assert "difference" not in rows["target_only"]

    def minus(arm: str, other: str) -> float:
        return rows[arm]["value"] - rows[other]["value"]

    for arm, other in (
        ("random", "target_only"),
        ("random, tuned", "target_only, tuned"),
        ("target_only, tuned", "target_only"),
    ):
        assert rows[arm]["difference"][0] == pytest.approx(minus(arm, other)), arm
    assert (rows["random"]["verdict"], rows["random, tuned"]["verdict"]) == ("better", "worse"), "the ranking flips"
    paid = {row["arm"]: (row["seconds"], row["money"]) for row in found["costs"]}
    assert paid["random"] == (100.0, 1.0) and paid["random, tuned"] == (150.0, 1.5)
    said = "\n".join(show_arms.comparison(found))
    assert "random, tuned: learning_rate 0.002" in said
    assert "finetune.learning_rate" in comparison_page(found)


def test_it_needs_to_be_said_what_is_searched(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"compare.tune needs the section tune, which says what is searched"):
        tuned_run(tmp_path, library, tune=None)
