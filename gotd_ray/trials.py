"""The trials of a search on Ray: trainings of a run with other settings, side by side, each keyed by its content."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from pydantic import ValidationError
from rich.console import Console

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.cluster import Resources, Site
from gotd_ray.config.base import AS_THEY_ARE
from gotd_ray.errors import DivergedError, UserError
from gotd_ray.models.objectives import OBJECTIVES
from gotd_ray.progress import Progress
from gotd_ray.remote import answers
from gotd_ray.stage import Plan
from gotd_ray.stages.train import PRETUNE, Training, train
from gotd_ray.training.task import MODEL
from gotd_ray.tuning.space import Setting, outside


@dataclass(frozen=True)
class Search:
    """A search, with all that its trials depend on.

    Attributes:
        run: resolved, its precisions decided.
        settings: the section ``tune``.
        given: the training whose settings are searched, as the run has it.
    """

    run: config.Run
    settings: config.Tune
    given: Training

    @property
    def metric(self) -> str:
        """On dev: ``loss`` or ``accuracy``."""
        return self.settings.metric

    @property
    def better(self) -> str:
        return "lower" if self.metric == "loss" else "higher"

    def trial(self, setting: Setting, stop_at: float) -> tuple[Training, Artifact]:
        """The training with a setting, and where it lies.

        Raises:
            UserError: the setting does not go with the others.
        """
        task = self.given.task
        # Dev is looked at when a trial ends and not before: no patience may end it elsewhere.
        own = {"stop_at": stop_at, "eval_every": None, "patience": None}
        values = task.settings.model_dump() | setting | own
        try:
            changed = type(task.settings).model_validate(values, context=AS_THEY_ARE)
        except ValidationError as error:
            raise UserError(
                f"tune: a trial with {in_words(setting)} is not possible: {config.problems(error)}."
            ) from None
        given = replace(self.given, task=replace(task, settings=changed), curves=(), name="", environment={})
        key = make_key(PRETUNE.version, given.key())
        return given, Artifact(storage.join(self.run.out, "tune", key), key, self.run.storage)

    def first(self) -> Setting:
        """The run's own values, where they lie in the space; empty where one does not."""
        own = self.given.task.settings
        if outside(self.settings.space, own.model_dump()):
            return {}
        return {name: getattr(own, name) for name in self.settings.space}


def in_words(setting: Setting) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def search_of(plan: Plan) -> Search:
    """The search that a run asks for.

    Raises:
        UserError: it asks for none; the metric is not measured.
    """
    run = plan.run
    if run.tune is None:
        raise UserError("the run has no section `tune`. Add it, for example: tune: {trials: 30}")
    given = plan.steps[run.tuned].given
    if run.tune.metric == "accuracy" and not OBJECTIVES[given.task.kind].classifies:
        raise UserError(
            f"tune.metric is accuracy, and {run.tuned} trains a language model, which has none on dev. Set it to loss."
        )
    return Search(run, run.tune, given)


def value_of(facts: dict[str, Any], metric: str) -> float | None:
    """Of a trial, on dev; None where the training broke down."""
    return None if "diverged" in facts else float(facts["dev"][-1][metric])


class Trainer:
    """Trains settings side by side, and knows what was done."""

    def __init__(self, search: Search, resources: Resources, progress: Progress) -> None:
        self.search, self.progress = search, progress
        self.share, self.rooms = share(resources, search.given.task, search.settings.at_once)
        self.ran: list[str] = []
        self.skipped: list[str] = []

    def train(self, settings: Sequence[Setting], stop_at: float) -> list[dict[str, Any]]:
        """The facts of each, in their order; equal ones are trained once."""
        trials = [self.search.trial(setting, stop_at) for setting in settings]
        facts = {artifact.key: artifact.manifest() for _, artifact in trials}
        self.skipped += [key for key, known in facts.items() if known]
        missing = {artifact.key: (given, artifact) for given, artifact in trials if facts[artifact.key] is None}
        todo = list(missing.values())
        with self.progress.task("tune", total=len(todo), unit="trainings") as task:
            for start in range(0, len(todo), self.rooms):
                asked = [_trial.remote(*one, self.share) for one in todo[start : start + self.rooms]]
                for _, (key, found) in answers(asked, lambda _: _DIED):
                    facts[key] = found
                    self.ran.append(key)
                    task.advance()
        return [facts[artifact.key] for _, artifact in trials]  # type: ignore[misc]


_DIED = (
    "tune: the process that drives a trial was killed, most likely for want of memory. Lower tune.at_once, or use "
    "larger nodes; what is done is kept."
)


@ray.remote(num_cpus=0, max_retries=0)
def _trial(given: Training, artifact: Artifact, resources: Resources) -> tuple[str, dict[str, Any]]:
    """The key of a trial and its facts. Its model is not kept: the run trains the best settings itself.

    A task of its own, since Ray Train waits on the main thread of a process.
    """
    started = time.perf_counter()
    silent = Site(resources, resources.device(given.task.model.device), Progress(Console(quiet=True)))
    try:
        facts = train(given, artifact, silent)
    except DivergedError as error:
        artifact.begin()
        facts = artifact.commit({"diverged": str(error), "seconds": time.perf_counter() - started})
    for name in (MODEL, "adapter"):
        storage.delete_tree(artifact.path(name), artifact.storage)
    return artifact.key, facts


def share(resources: Resources, task: Any, at_once: int) -> tuple[Resources, int]:
    """What of the cluster a trial may take, and how many trials there is room for side by side.

    A trial takes as many workers as its section says, or one. Threads change the roundings of a training, and the
    number of those that are free does not count: so the share depends on the cluster and ``at_once`` alone.
    """
    workers = task.settings.workers or 1
    if resources.device(task.model.device) == "cuda":
        own = replace(resources, gpus=min(workers, resources.gpus))
        return own, max(1, min(at_once, resources.gpus // workers))
    nodes = resources.nodes
    each = max(1, resources.node_cpus // -(-at_once * workers // nodes))
    own = replace(resources, node_cpus=each * -(-workers // nodes))
    return own, max(1, min(at_once, resources.cpus // (each * workers)))
