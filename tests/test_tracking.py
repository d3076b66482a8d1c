"""What a run sends to TensorBoard, read back from its files; a package that is missing is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from conftest import make_run
from hostile import JUDGES, TRAINING
from tensorboard_files import scalars

from gotd_ray import config, pipeline, tracking
from gotd_ray.artifacts import Artifact
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress

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
    where = tracking.trackers(run)
    assert where
    tracking.check(where)
    tracking.send(where, FACTS, Artifact(str(tmp_path / "out" / "send"), "key", run.storage), Progress())
    found = scalars(tmp_path / "out" / "tracking" / "run")
    for name, value in tracking.final(FACTS):
        assert found[name] == pytest.approx(value)
    assert {"divergence/mixture", "pretune/dev_loss", "m/j/s/x", "solve/residual", "seconds/embed"} <= set(found)


def test_a_package_that_is_missing_is_named_before_anything_runs(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else known(name, *rest)
    )
    run = make_run(tmp_path / "out", library, tracking={"to": ["wandb"]})
    with pytest.raises(UserError) as caught:
        pipeline.execute(run, Progress())
    assert str(caught.value) == (
        "tracking.to names wandb, and wandb is not installed. pip install wandb on every node, or take it out."
    )
    assert not (tmp_path / "out" / "embed").exists()


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
    with pytest.raises(UserError) as raised:
        pipeline.execute(run, Progress())
    assert str(raised.value) == (
        "tracking.to names mlflow, which cannot be used: no such store: https://...@host/x. Set MLFLOW_TRACKING_URI to "
        "a server that answers (and its login), or take mlflow out of tracking.to."
    )
    assert not (tmp_path / "out" / "embed").exists()


def test_tensorboard_needs_a_folder_where_results_lie_in_a_bucket() -> None:
    run = make_run("s3://bucket/out", "s3://bucket", tracking={"to": ["tensorboard"]})
    with pytest.raises(UserError, match=r"cannot write to s3://bucket/out/tracking. Set tracking.folder"):
        tracking.check(tracking.trackers(run))


def test_without_tracking_nothing_is_sent_anywhere(tmp_path: Path) -> None:
    assert tracking.trackers(make_run(tmp_path / "out", tmp_path)) is None


def test_a_tracker_that_fails_is_asked_again_and_one_that_has_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "out", tmp_path, tracking={"to": ["tensorboard", "wandb"]})
    artifact, went = Artifact(str(tmp_path / "out" / "send"), "key", run.storage), []
    monkeypatch.setitem(tracking._SEND, "tensorboard", lambda *_: went.append("tensorboard"))

    def down(*_: object) -> None:
        raise ConnectionError("no route to\nhttps://me:secret@host/x")

    monkeypatch.setitem(tracking._SEND, "wandb", down)
    with pytest.raises(UserError) as caught:
        tracking.send(tracking.trackers(run), FACTS, artifact, Progress())
    assert str(caught.value) == (
        "tracking: the numbers of the report could not be sent to wandb: no route to https://...@host/x. What is done "
        "is kept: run again when it answers, or take it out of tracking.to."
    )
    assert artifact.manifest() is None
    monkeypatch.setitem(tracking._SEND, "wandb", lambda *_: went.append("wandb"))
    assert tracking.send(tracking.trackers(run), FACTS, artifact, Progress())["to"] == ["tensorboard", "wandb"]
    assert went == ["tensorboard", "wandb"]


@pytest.mark.ray
def test_tracking_that_is_added_to_a_finished_run_is_sent(
    finished: config.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once: the next run has nothing to do."""
    run = finished.model_copy(update={"tracking": config.Tracking(to=["tensorboard"])})
    before = Path(run.out, "report", "report.json").stat().st_mtime_ns
    plan = pipeline.execute(run, Progress())
    assert plan.done("send")
    assert Path(run.out, "report", "report.json").stat().st_mtime_ns == before, "only sending was left to do"
    assert scalars(Path(run.out) / "tracking" / "run")["selection/documents"] == 40
    monkeypatch.setitem(tracking._SEND, "tensorboard", lambda *_: 1 / 0)
    pipeline.execute(run, Progress())
