"""MLflow, Weights & Biases and TensorBoard: what a run sends there. Each package is imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.errors import UserError, said_by
from gotd_ray.progress import Progress

_PACKAGES = {"mlflow": ("mlflow",), "wandb": ("wandb",), "tensorboard": ("tensorboard", "tensorboardX")}
"""Any one of them serves."""

_LONGEST = 250
"""Characters of a setting that MLflow takes."""


@dataclass(frozen=True)
class Trackers:
    """Where a run's numbers go: what, under which project and name, and the folder of TensorBoard's files."""

    to: tuple[str, ...]
    project: str
    name: str
    folder: str


def trackers(run: config.Run) -> Trackers | None:
    """Those of a run, if any."""
    if (settings := run.tracking) is None:
        return None
    folder = settings.folder or storage.join(run.out, "tracking")
    return Trackers(tuple(settings.to), settings.project or run.name, run.name, folder)


def check(where: Trackers) -> None:
    """Hold the section against this machine.

    Raises:
        UserError: a package is not installed; MLflow does not answer; TensorBoard has no folder that it can write.
    """
    for name in where.to:
        if not any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
            package = _PACKAGES[name][-1]
            raise UserError(
                f"tracking.to names {name}, and {package} is not installed. pip install {package} on every node, or "
                "take it out."
            )
    if "mlflow" in where.to:
        _ask_mlflow()
    if "tensorboard" in where.to and "://" in where.folder:
        raise UserError(
            f"TensorBoard cannot write to {where.folder}. Set tracking.folder to a folder that all nodes see."
        )


def _ask_mlflow() -> None:
    """Read something: a training's worker would find out after a minute, and Ray would start it again."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 7 by default, which are minutes
    mlflow = importlib.import_module("mlflow")
    try:
        mlflow.search_experiments(max_results=1)
    except Exception as error:  # noqa: BLE001 - its own, those of requests and those of its stores
        raise UserError(
            f"tracking.to names mlflow, which cannot be used: {_said(error)}. Set MLFLOW_TRACKING_URI to a server that "
            "answers (and its login), or take mlflow out of tracking.to."
        ) from None


def _said(error: Exception) -> str:
    """An error on one line, without the login that an address may hold."""
    return re.sub(r"//[^/@\s]*@", "//...@", said_by(error))[:600].rstrip(".")


def environment(where: Trackers, stage: str) -> dict[str, str]:
    """What tells Hugging Face's callbacks where a training's curves go."""
    return {
        "MLFLOW_EXPERIMENT_NAME": where.project,
        "WANDB_PROJECT": where.project,
        "TENSORBOARD_LOGGING_DIR": storage.join(where.folder, stage),
    }


def send(where: Trackers, facts: Mapping[str, Any], artifact: Artifact, progress: Progress) -> dict[str, Any]:
    """Send the final numbers of a report and the run's settings to each tracker, and commit what was sent.

    A tracker that has them already is passed over, where another one failed.

    Raises:
        UserError: one of them did not take them; the next run sends them again.
    """
    started = time.perf_counter()
    artifact.begin()
    numbers, settings = dict(final(facts)), dict(_flat(facts["settings"]))
    for name in where.to:
        sent = f"{name}-{artifact.key}"
        if storage.exists(artifact.path(sent), artifact.storage):
            continue
        try:
            _SEND[name](where, numbers, settings)
        except Exception as error:  # noqa: BLE001 - those of the tracker, of requests and of its stores
            raise UserError(
                f"tracking: the numbers of the report could not be sent to {name}: {_said(error)}. What is done is "
                "kept: run again when it answers, or take it out of tracking.to."
            ) from None
        artifact.write(sent, b"")
        progress.say(f"send: {len(numbers):,} numbers of the report went to {name}")
    seconds = time.perf_counter() - started
    return artifact.commit({"to": list(where.to), "seconds": seconds})


def final(facts: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a report by which runs are compared, by name."""
    selection = facts["selection"]
    found: dict[str, Any] = {f"selection/{key}": selection[key] for key in ("documents", "tokens", "cut_score")}
    found |= {f"seconds/{step['stage']}": step["seconds"] for step in facts["flow"]}
    if facts["solve"]:
        found["solve/residual"] = facts["solve"]["residual"]
    if facts["divergence"]:
        found |= {f"divergence/{key}": facts["divergence"][key] for key in ("corpus", "mixture", "subset")}
    for stage, one in facts["trainings"].items():
        found |= {f"{stage}/loss": one["losses"][-1][1]} if one["losses"] else {}
        found |= {f"{stage}/dev_loss": one["dev"][-1]["loss"]} if one["dev"] else {}
    for row in facts["judges"]["rows"] if facts["judges"] else ():
        found["/".join(row[key] for key in ("model", "judge", "set", "metric"))] = row["value"]
    for name, value in found.items():
        if isinstance(value, int | float):
            yield re.sub(r"[^\w./ -]", "_", name), float(value)


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted name, without those that are not set."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield re.sub(r"[^\w./ -]", "_", before + name), str(value)[:_LONGEST]


def _mlflow(where: Trackers, numbers: dict[str, float], settings: dict[str, str]) -> None:
    mlflow = importlib.import_module("mlflow")
    mlflow.set_experiment(where.project)
    with mlflow.start_run(run_name=where.name):
        mlflow.log_params(settings)
        mlflow.log_metrics(numbers)


def _wandb(where: Trackers, numbers: dict[str, float], settings: dict[str, str]) -> None:
    wandb = importlib.import_module("wandb")
    sent = wandb.init(project=where.project, name=where.name, config=settings)
    sent.summary.update(numbers)
    sent.finish()


def _tensorboard(where: Trackers, numbers: dict[str, float], settings: dict[str, str]) -> None:
    own = importlib.util.find_spec("tensorboard")
    module = importlib.import_module("torch.utils.tensorboard" if own else "tensorboardX")
    with module.SummaryWriter(storage.join(where.folder, "run")) as writer:
        for name, value in numbers.items():
            writer.add_scalar(name, value, 0)
        writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))


_SEND = {"mlflow": _mlflow, "wandb": _wandb, "tensorboard": _tensorboard}
