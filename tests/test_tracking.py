"""What a run sends to TensorBoard, read back from its files; a package that is missing is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from conftest import make_run
from hostile import JUDGES, TRAINING
from tensorboard_files import scalars

from gotd_ray import pipeline, tracking
from gotd_ray.errors import UserError

FACTS: dict[str, Any] = {
    "selection": {"documents": 40, "tokens": 900, "cut_score": 0.25},
    "flow": [{"stage": "embed", "seconds": 2.0}],
    "solve": {"residual": 0.001},
    "divergence": {"corpus": 0.5, "mixture": 0.4, "subset": 0.3, "mix": 0.2},
    "trainings": {"pretune": TRAINING},
    "judges": JUDGES,
    "settings": {"name": "run", "select": {"budget": 40, "source_quota": None}},
}


def test_the_final_numbers_stand_in_tensorboard(tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", tmp_path, tracking={"to": ["tensorboard"]})
    tracking.check(run)
    tracking.finish(run, FACTS)
    found = scalars(tmp_path / "out" / "tracking" / "run")
    for name, value in tracking.final(FACTS):
        assert found[name] == pytest.approx(value)
    assert {"divergence/mixture", "pretune/dev_loss", "m/j/s/x", "solve/residual", "seconds/embed"} <= set(found)


def test_a_package_that_is_missing_is_named_before_anything_runs(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run = make_run(tmp_path / "out", library, tracking={"to": ["wandb"]})
    with pytest.raises(UserError, match=r"tracking.to names wandb, and wandb is not installed. pip install wandb"):
        pipeline.plan(pipeline.resolve_paths(run))


def test_an_mlflow_that_does_not_answer_is_said_before_anything_runs(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow 3.17 refuses folders; the login in the address is not repeated."""
    package = tmp_path / "packages" / "mlflow"
    package.mkdir(parents=True)
    reply = "def search_experiments(**_):\n    raise OSError('no such store:\\n https://me:secret@host/x')\n"
    (package / "__init__.py").write_text(reply)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    run = make_run(tmp_path / "out", library, tracking={"to": ["mlflow"]})
    with pytest.raises(UserError, match=r"mlflow, which cannot be used: no such store: https://\.\.\.@host") as raised:
        pipeline.plan(pipeline.resolve_paths(run))
    assert "secret" not in str(raised.value)


def test_tensorboard_needs_a_folder_where_results_lie_in_a_bucket() -> None:
    run = make_run("s3://bucket/out", "s3://bucket", tracking={"to": ["tensorboard"]})
    with pytest.raises(UserError, match=r"cannot write to s3://bucket/out/tracking. Set tracking.folder"):
        tracking.check(run)


def test_without_tracking_nothing_is_sent_anywhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", tmp_path)
    tracking.finish(run, FACTS)
    assert tracking.environment(run, "pretune") == {} and not (tmp_path / "out").exists()
