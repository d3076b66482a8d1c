"""Stages 4 and 5, pretune and finetune: subset or target, and a base model -> a trained model with its card.

One function serves both. The workers are Ray Train's; what they do is in ``models/training``. Checkpoints go to the
stage's own folder, so that a killed run goes on, on these machines or on others.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer

from gotd_ray import config, storage, tracking
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.cluster import KEEPS_ITS_MEMORY, Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import table_of
from gotd_ray.models import language
from gotd_ray.models.checkpoints import NOTE
from gotd_ray.models.dataset import Example, prepare
from gotd_ray.models.job import Job, less_memory, micro_batch, needed_bytes
from gotd_ray.stages import _metrics
from gotd_ray.storage import StoredFile, list_files
from gotd_ray.text.documents import BadFile, Labelled, Tally, check_bad_rows, read_documents

VERSION = 2
"""Raised when the result of equal settings changes."""

STAGES = ("pretune", "finetune")
MODEL = "model"
ATTEMPTS = 3
"""Starts of the workers without a new checkpoint between them, after which the run gives up."""

RESOURCE_KEYS = {"workers", "micro_batch", "zero_stage", "offload", "checkpoint_every"}
"""Settings on which the result does not depend, up to rounding."""


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        stage: ``pretune`` or ``finetune``.
        settings: its section.
        model: the base model; ``base`` is the folder of the model before it, where there is one.
        kind: the objective.
        subset: Parquet file of the selection; None reads ``files``.
        files: the target.
        dev: the development set.
        seed: of order, masks, dropout and new heads.
    """

    stage: str
    settings: config.Training
    model: config.Model
    kind: language.Kind
    subset: str | None
    files: list[StoredFile]
    dev: list[StoredFile] | None
    seed: int


def tasks(run: config.Run, subset: str) -> dict[str, Task]:
    """What each training of the run learns, from what; nothing is read but the listings and the base's config."""
    found: dict[str, Task] = {}
    for stage, settings in (("pretune", run.pretune), ("finetune", run.finetune)):
        if settings is None:
            continue
        assert run.model is not None
        model = run.model
        if isinstance(settings, config.Finetune) and settings.label_column:
            kind: language.Kind = "classification"
        elif settings.objective == "auto":
            kind = language.made_for(language.find(model, run.storage))
        else:
            kind = settings.objective
        if "pretune" in found:
            model = model.model_copy(update={"base": storage.join(run.out, "pretune", MODEL), "revision": None})

        def listed(paths: list[str]) -> list[StoredFile]:
            return list_files(run.target.model_copy(update={"paths": paths}), run.storage)

        given = settings.paths if isinstance(settings, config.Finetune) else None
        found[stage] = Task(
            stage=stage,
            settings=settings,
            model=model,
            kind=kind,
            subset=subset if stage == "pretune" else None,
            files=[] if stage == "pretune" else listed(given or run.target.paths),
            dev=listed(settings.dev) if settings.dev else None,
            seed=run.seed if settings.seed is None else settings.seed,
        )
    return found


def keys(run: config.Run, trainings: dict[str, Task], selected: str) -> dict[str, str]:
    """Keys of both trainings; where one is not asked for, its key is that of nothing."""
    found: dict[str, str] = {}
    start: Any = (
        trainings and run.model and [language.identity(language.find(run.model, run.storage)), run.model.precision]
    )
    data: Any = selected
    for stage in STAGES:
        task = trainings.get(stage)
        if stage == "finetune":
            start = found["pretune"] if "pretune" in trainings else start
            data = [run.target.model_dump(exclude={"paths"}), run.chunks.model_dump()]
        if task is None:
            found[stage] = make_key("none")
            continue
        listed = [[(file.uri, file.size, file.modified) for file in files or []] for files in (task.files, task.dev)]
        settings = task.settings.model_dump(exclude=RESOURCE_KEYS | {"paths", "dev", "preset", "seed"})
        found[stage] = make_key(VERSION, start, data, listed, settings, task.kind, task.model.pad_token, task.seed)
    return found


def estimate(run: config.Run, task: Task) -> tuple[int, int, int]:
    """Before anything runs: bytes that each worker needs at the least, workers (1 where a GPU may decide), and rows at
    a time on each.

    Raises:
        UserError: the batch cannot be dealt out evenly.
    """
    assert run.model is not None
    workers = task.settings.workers or 1
    micro = micro_batch(task.settings, workers, task.stage)
    labels = ["one", "other"] if task.kind == "classification" else []  # their number hardly counts
    base = language.find(run.model, run.storage)  # after pretune it is another, of the same shape
    return needed_bytes(task.settings, base, task.kind, labels, micro, workers), workers, micro


def train(run: config.Run, task: Task, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Train and commit.

    Raises:
        UserError: data, model or settings do not serve; the loss is not a number; the workers died again and again.
    """
    started = time.perf_counter()
    artifact.begin()
    for name in (MODEL, "adapter"):
        storage.delete_tree(artifact.path(name), run.storage)
    device, workers, cpus = _places(task, site.resources)
    micro = micro_batch(task.settings, workers, task.stage)
    checkpoints = artifact.path(f"checkpoint-{artifact.key}")
    prepared = ray.get(_prepare.remote(run, task, checkpoints))
    if left_out := prepared["facts"]["left_out"]:
        site.progress.say(f"{task.stage}: left out of its files: {left_out}")
    job = Job(
        stage=task.stage,
        settings=task.settings,
        model=task.model,
        storage=run.storage,
        kind=task.kind,
        labels=prepared["labels"],
        steps=prepared["steps"],
        micro_batch=micro,
        packed=prepared["packed"],
        precision=task.model.precision,
        device=device,
        threads=cpus,
        seed=task.seed,
        checkpoints=checkpoints,
        key=artifact.key,
        report_to=tuple(run.tracking.to) if run.tracking else (),
        name=f"{run.name}-{task.stage}",
    )
    facts = _fit(job, artifact, workers, cpus, tracking.environment(run, task.stage), site)
    manifest = artifact.commit(prepared["facts"] | facts | {"seconds": time.perf_counter() - started})
    storage.delete_tree(checkpoints, run.storage)
    return manifest


def _places(task: Task, resources: Resources) -> tuple[str, int, int]:
    """Device, number of workers, CPUs of each.

    Raises:
        UserError: the cluster has not so many.
    """
    wanted = task.model.device
    device = "cuda" if resources.gpus and wanted != "cpu" else "cpu"
    if wanted == "cuda" and not resources.gpus:
        raise UserError("model.device is cuda, but no GPU is there. Set it to auto or cpu, or run where a GPU is.")
    workers = task.settings.workers or max(1, resources.gpus if device == "cuda" else 1)
    most = resources.gpus if device == "cuda" else resources.cpus
    if workers > most:
        raise UserError(
            f"{task.stage}.workers is {workers}, but the cluster has {most} {'GPUs' if device == 'cuda' else 'CPUs'}. "
            "Lower it, or take a larger cluster."
        )
    if device == "cuda":
        return device, workers, resources.gpu_cpus
    return device, workers, max(1, resources.node_cpus // -(-workers // resources.nodes))


@ray.remote(num_cpus=1)
def _prepare(run: config.Run, task: Task, checkpoints: str) -> dict[str, Any]:
    """Write the rows beside the checkpoints; every worker reads them there."""
    base = language.find(task.model, run.storage)
    tally = Tally()
    dev = None if task.dev is None else _examples(run, task, task.dev, tally)
    data = prepare(task.stage, task.settings, task.model, base, task.kind, _training_data(run, task, tally), dev)
    for name, rows in (("train", data.train), ("dev", data.dev)):
        if rows is not None:
            storage.write_bytes(storage.join(checkpoints, f"{name}.safetensors"), rows.to_bytes(), run.storage)
    return {
        "labels": data.labels,
        "packed": data.packed,
        "steps": data.steps(task.settings),
        "facts": data.facts | {"base": language.identity(base), "left_out": dict(sorted(tally.reasons.items()))},
    }


def _training_data(run: config.Run, task: Task, tally: Tally) -> list[Example]:
    if task.subset is None:
        return _examples(run, task, task.files, tally)
    table = table_of(storage.read_bytes(task.subset, run.storage), ["text"])
    return [(text, None) for text in table["text"].to_pylist()]


def _examples(run: config.Run, task: Task, files: list[StoredFile], every: Tally) -> list[Example]:
    """Texts of some files in the order of their ids, whatever the files' order; labelled ones are not cut.

    What is left out is counted in ``every`` too.
    """
    column = getattr(task.settings, "label_column", None)
    text = Labelled.of(run.target, column) if column else run.target
    chunks = config.Chunks(max_chars=None, min_chars=1) if column else run.chunks
    found: dict[tuple[str, str | None], str] = {}
    tally = Tally()
    for file in files:
        try:
            for document in read_documents(file, text, chunks, run.storage, tally):
                found[document.doc_id, document.label] = document.text
        except BadFile as problem:
            raise UserError(f"{task.stage}: {file.uri} cannot be read: {problem}. Mend it, or take it out.") from None
    check_bad_rows(task.stage, tally, text, "target")
    every.merge(tally)
    return [(found[key], key[1]) for key in sorted(found, key=lambda key: (key[0], key[1] or ""))]


@ray.remote(num_cpus=0)
class _Board:
    """Where the workers say how far they are, and what a user must mend."""

    def __init__(self) -> None:
        self._news: tuple[int, float] = (0, 0.0)
        self._failure: str | None = None

    def tell(self, step: int, loss: float) -> None:
        self._news = (step, loss)

    def fail(self, message: str) -> None:
        self._failure = self._failure or message

    def read(self) -> tuple[int, float, str | None]:
        return (*self._news, self._failure)


def _fit(
    job: Job, artifact: Artifact, workers: int, cpus: int, environment: dict[str, str], site: Site
) -> dict[str, Any]:
    """Start the workers until they are done, each time from the last checkpoint."""
    failures, reached = 0, _checkpoint(job)
    while True:
        board = _Board.remote()  # type: ignore[attr-defined]
        with _shown(board, job, site):
            try:
                return _attempt(job, artifact, workers, cpus, environment, board)
            except ray.train.TrainingFailedError as error:
                message = ray.get(board.read.remote())[2]
                if message:
                    raise UserError(message) from None
                failures = 1 if _checkpoint(job) != reached else failures + 1
                reached = _checkpoint(job)
                if failures == ATTEMPTS:
                    words = " ".join(str(error).split())[-600:]
                    raise UserError(
                        f"{job.stage}: the workers died {ATTEMPTS} times without a new checkpoint. If memory ran out, "
                        f"{less_memory(job)}. The last error was: {words}"
                    ) from error
        site.progress.say(f"{job.stage}: a worker died; going on from {reached or 'the beginning'}")


def _attempt(
    job: Job, artifact: Artifact, workers: int, cpus: int, environment: dict[str, str], board: Any
) -> dict[str, Any]:
    folder = artifact.path("ray")
    filesystem, path = storage.resolve_folder(folder, job.storage)
    gpus = {"GPU": 1} if job.device == "cuda" else {}
    trainer = _Trainer(
        _work,
        train_loop_config={"job": job, "out": artifact.folder, "board": board, "environment": environment},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=bool(gpus), resources_per_worker={"CPU": cpus, **gpus}
        ),
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=path,
            storage_filesystem=filesystem,
            worker_runtime_env=KEEPS_ITS_MEMORY,
        ),
    )
    try:
        return trainer.fit().return_value
    finally:
        storage.delete_tree(folder, job.storage)


class _Trainer(TorchTrainer):
    """Ray's, without the actor that removes the workers' places when it thinks that their controller is dead.

    It asks whichever Ray answers first on this machine (seen in 2.60), and so ends trainings where two run side by
    side. The places are given back anyway when our driver ends.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


def _work(given: dict[str, Any]) -> dict[str, Any]:
    """A worker's life."""
    job, board = given["job"], given["board"]
    if job.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ |= given["environment"]
    os.environ["DS_ACCELERATOR"] = job.device  # before DeepSpeed is imported
    from gotd_ray.models import training

    try:
        return training.train(job, given["out"], lambda step, loss: board.tell.remote(step, loss))
    except UserError as error:
        ray.get(board.fail.remote(str(error)))
        raise


def _checkpoint(job: Job) -> str | None:
    """The note of the last checkpoint, as it stands."""
    path = storage.join(job.checkpoints, NOTE)
    return storage.read_bytes(path, job.storage).decode() if storage.exists(path, job.storage) else None


@contextmanager
def _shown(board: Any, job: Job, site: Site) -> Iterator[None]:
    """Show what the board says, while the main thread waits for Ray Train."""
    end = threading.Event()
    with site.progress.task(job.stage, total=job.steps, unit="steps") as task:

        def look() -> None:
            step, loss, _ = ray.get(board.read.remote())
            if step > task.done:
                task.note = f"loss {loss:.4f}"
                _metrics.training(job.stage, step, loss)
                task.advance(step - task.done)

        def watch() -> None:
            while not end.wait(1.0):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
            look()
