"""The stages pretune and finetune: subset or target, and a base model -> a trained model with its card.

One function serves both. The workers are Ray Train's; what they do is in ``training/worker``. Checkpoints go to the
stage's own folder, so that a killed run goes on, on these machines or on others.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import ray
import ray.train
from ray.exceptions import RayError
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gotd_ray import metrics, storage, tracking
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import KEEPS_ITS_MEMORY, Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.remote import answer
from gotd_ray.results import SUBSET, folder_of
from gotd_ray.stage import Plan, Stage
from gotd_ray.training import dataset
from gotd_ray.training.check import estimate
from gotd_ray.training.checkpoints import NOTE, Checkpoints
from gotd_ray.training.job import Job, less_memory, micro_batch, refuse_memory
from gotd_ray.training.task import MODEL, STAGES, VERSION, Task, decides, tasks

CHECKPOINT = "checkpoint-"
"""How the folder of a training's checkpoints begins; its key follows."""

ATTEMPTS = 3
"""Starts of the workers without a new checkpoint between them, after which the run gives up."""

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_WORDS = 300
"""Characters of what Ray says of a death."""

_LOOK_SECONDS = 10.0
"""For how long the progress is asked for, which is only for show."""


@dataclass(frozen=True)
class Training:
    """A task, what it starts from and learns, and where its curves are sent.

    Attributes:
        start: what tells the model that it starts from: the base, or the key of the training before it.
        selected: the key of the selection, where it learns that.
        curves: names of Hugging Face's callbacks.
        name: of the training there.
        environment: what those callbacks read, see :mod:`gotd_ray.tracking`.
    """

    task: Task
    start: Any = None
    selected: str | None = None
    curves: tuple[str, ...] = ()
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> Any:
        """Not of where the curves go."""
        return self.start, self.selected, decides(self.task)


def _given(stage: str, plan: Plan) -> Training | None:
    subset = storage.join(folder_of(plan.run, "select"), SUBSET)
    task = plan.once("trainings", lambda: tasks(plan.run, subset)).get(stage)
    if task is None:
        return None
    before = plan.steps.get("pretune")
    start = before.artifact.key if before else plan.once("start", lambda: _base(task))
    selected = plan.artifacts["select"].key if task.subset else None
    if where := tracking.trackers(plan.run):
        sent = tracking.environment(where, stage)
        return Training(task, start, selected, where.to, f"{plan.run.name}-{stage}", sent)
    return Training(task, start, selected)


def _base(task: Task) -> Any:
    return [language.identity(language.find(task.base, task.storage)), task.base.precision]


def places(task: Task, resources: Resources) -> tuple[str, int, int]:
    """Device, number of workers, CPUs of each.

    Raises:
        UserError: the cluster has not so many.
    """
    device = resources.device(task.model.device)
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


def check_places(given: Training, resources: Resources) -> None:
    """Hold a training against the cluster, once it is known and before anything runs.

    Raises:
        UserError: it has not the devices, the batch cannot be dealt out to them, this machine has not the memory.
    """
    task = given.task
    device, workers, _ = places(task, resources)
    micro = micro_batch(task.settings, workers, task.stage)
    if device == "cpu" and resources.private:
        each = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // workers
        needed, _, _ = estimate(task, workers)
        refuse_memory(task.stage, task.settings, micro, workers, needed, each, "are there in all")


def train(given: Training, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Train and commit.

    Raises:
        UserError: of data, model or settings; the loss is not a number; the workers died again and again.
    """
    started, task = time.perf_counter(), given.task
    device, workers, cpus = places(task, site.resources)
    micro = micro_batch(task.settings, workers, task.stage)
    checkpoints = artifact.path(f"{CHECKPOINT}{artifact.key}")
    identity = {"key": artifact.key, "workers": workers, "zero_stage": task.settings.zero_stage}
    Checkpoints(checkpoints, task.storage, identity).latest()  # another's is refused before the work
    learnt = answer(
        _write.remote(task, checkpoints),
        died=f"{task.stage}: the process that tokenises the texts was killed, most likely for want of memory. Train on "
        "fewer, or use larger nodes.",
    )
    for words in learnt["facts"]["told"]:
        site.progress.say(words)
    artifact.begin()
    for name in (MODEL, "adapter"):
        storage.delete_tree(artifact.path(name), task.storage)
    job = Job(
        **vars(task),
        labels=learnt["labels"],
        steps=learnt["steps"],
        micro_batch=micro,
        device=device,
        threads=cpus,
        checkpoints=checkpoints,
        key=artifact.key,
        report_to=given.curves,
        name=given.name,
    )
    facts = _fit(job, artifact, workers, cpus, given.environment, site)
    manifest = artifact.commit(learnt["facts"] | facts | {"seconds": time.perf_counter() - started})
    _drop_checkpoints(artifact, site)
    return manifest


def _drop_checkpoints(artifact: Artifact, site: Site) -> None:
    """Those of this training, and of earlier ones in its folder that never ended: each has the optimiser's state."""
    others = 0
    for name in storage.list_folders(artifact.folder, artifact.storage):
        if name.startswith(CHECKPOINT):
            storage.delete_tree(artifact.path(name), artifact.storage)
            others += name != f"{CHECKPOINT}{artifact.key}"
    if others:
        site.progress.say(f"removed the checkpoints of {others} unfinished trainings with other settings or data")


_write = ray.remote(num_cpus=1)(dataset.write)


@ray.remote(num_cpus=0)
class _Board:
    """Where the first worker says how far it is."""

    def __init__(self) -> None:
        self._news: tuple[int, float, int] = (0, 0.0, 0)

    def tell(self, step: int, loss: float, tokens: int) -> None:
        self._news = (step, loss, tokens)

    def read(self) -> tuple[int, float, int]:
        return self._news


def _new_board() -> Any:
    """On the node of whoever looks at it: on any other, its end would take the board along."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return _Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


def _fit(
    job: Job, artifact: Artifact, workers: int, cpus: int, environment: Mapping[str, str], site: Site
) -> dict[str, Any]:
    """Start the workers until they are done, each time from the last checkpoint."""
    failures, reached = 0, _checkpoint(job)
    while True:
        board = _new_board()
        with _shown(board, job, site):
            try:
                return _attempt(job, artifact, workers, cpus, environment, board)
            except ray.train.TrainingFailedError as error:
                if said := _said(error):
                    raise said from None
                failures = 1 if _checkpoint(job) != reached else failures + 1
                reached = _checkpoint(job)
                if failures == ATTEMPTS:
                    _give_up(job, error)
        site.progress.say(f"{job.stage}: a worker died; going on from {reached or 'the beginning'}")


def _raised(error: ray.train.TrainingFailedError) -> list[Exception]:
    """What the workers raised, or died of."""
    return list(error.worker_failures.values()) if isinstance(error, ray.train.WorkerGroupError) else []


def _said(error: ray.train.TrainingFailedError) -> UserError | None:
    """What a worker has to say to the user."""
    return next((type(one)(str(one)) for one in _raised(error) if isinstance(one, UserError)), None)


def _give_up(job: Job, error: ray.train.TrainingFailedError) -> NoReturn:
    ours = [one for one in _raised(error) if not type(one).__module__.startswith("ray.")]
    if ours:
        raise RuntimeError(f"{job.stage} failed {ATTEMPTS} times in the same way: {ours[0]!r}") from error
    last = next((line for line in reversed(_ESCAPES.sub("", str(error)).splitlines()) if line.strip()), "nothing")
    raise UserError(
        f"{job.stage}: the workers died {ATTEMPTS} times without a new checkpoint. If memory ran out, "
        f"{less_memory(job)}. The last that was heard: {' '.join(last.split())[:_WORDS]}"
    ) from None


def _attempt(
    job: Job, artifact: Artifact, workers: int, cpus: int, environment: Mapping[str, str], board: Any
) -> dict[str, Any]:
    folder = artifact.path("ray")
    filesystem, path = storage.resolve_folder(folder, job.storage)
    gpus = {"GPU": 1} if job.device == "cuda" else {}
    trainer = _Trainer(
        _work,
        train_loop_config={"job": job, "out": artifact.folder, "board": board, "environment": dict(environment)},
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
    from gotd_ray.training import worker

    return worker.train(job, given["out"], lambda *news: board.tell.remote(*news))


def _checkpoint(job: Job) -> str | None:
    """The note of the last checkpoint, as it stands."""
    path = storage.join(job.checkpoints, NOTE)
    return storage.read_bytes(path, job.storage).decode() if storage.exists(path, job.storage) else None


@contextmanager
def _shown(board: Any, job: Job, site: Site) -> Iterator[None]:
    """Show what the board says, while the main thread waits for Ray Train."""
    end = threading.Event()
    with site.progress.task(job.stage, total=job.last_step, unit="steps") as task:

        def look() -> None:
            try:
                step, loss, tokens = answer(board.read.remote(), timeout=_LOOK_SECONDS)
            except RayError:  # only for show: it must not end a training, least of all one that has ended well
                return
            if step > task.done:
                task.note = f"loss {loss:.4f}"
                metrics.training(job.stage, step, loss, tokens)
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


PRETUNE, FINETUNE = (Stage(name, VERSION, partial(_given, name), train, fits=check_places) for name in STAGES)
