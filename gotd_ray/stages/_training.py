"""What a training learns, from what: its task and key, its texts, and the faults that can be found before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from gotd_ray import config, storage
from gotd_ray.artifacts import make_key
from gotd_ray.cluster import Resources
from gotd_ray.errors import UserError
from gotd_ray.listing import list_all
from gotd_ray.models import language
from gotd_ray.models.dataset import Example, labels_of, rows_of, tokenizer_for
from gotd_ray.models.job import micro_batch, needed_bytes, refuse_memory
from gotd_ray.models.packing import refuse_sight
from gotd_ray.models.parameters import depths
from gotd_ray.preflight import EXACT_BYTES, count_documents
from gotd_ray.stages._texts import WHOLE, idea, left_out_of, state, without_weights
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import Labelled
from gotd_ray.text.sets import read_set

VERSION = 3
"""Raised when the result of equal settings changes."""

STAGES = ("pretune", "finetune")
MODEL = "model"

RESOURCE_KEYS = {"workers", "micro_batch", "zero_stage", "offload", "checkpoint_every"}
"""Settings on which the result does not depend, up to rounding."""

_SAID_OTHERWISE = {"paths", "dev", "preset", "seed", "objective"}
"""Settings whose consequences are in the key."""

TRIED_BYTES = 10**9
"""Weights up to this size are loaded by the check, in some seconds, and tried with a row of tokens."""


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
        passed_over: sentences on what lies in the files' folders and is none of them.
    """

    stage: str
    settings: config.Training
    model: config.Model
    kind: language.Kind
    subset: str | None
    files: list[StoredFile]
    dev: list[StoredFile] | None
    seed: int
    passed_over: tuple[str, ...] = ()


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
        given = settings.paths if isinstance(settings, config.Finetune) else None
        own, told = _listed(run, "finetune.paths", given or run.target.paths) if stage == "finetune" else ([], ())
        dev, more = _listed(run, f"{stage}.dev", settings.dev) if settings.dev else (None, ())
        found[stage] = Task(
            stage=stage,
            settings=settings,
            model=model,
            kind=kind,
            subset=subset if stage == "pretune" else None,
            files=own,
            dev=dev,
            seed=run.seed if settings.seed is None else settings.seed,
            passed_over=(*(told if given else ()), *more),  # of the target's files the target tells
        )
    return found


def _listed(run: config.Run, where: str, paths: list[str]) -> tuple[list[StoredFile], tuple[str, ...]]:
    """Files in the form of the target, and what lies beside them, in words."""
    listing = list_all(run.target.model_copy(update={"paths": paths}), run.storage)
    return listing.files, tuple(f"{where}: {words}" for words in listing.words())


def keys(run: config.Run, trainings: dict[str, Task], selected: str) -> dict[str, str]:
    """Keys of both trainings; where one is not asked for, its key is that of nothing."""
    found: dict[str, str] = {}
    start: Any = (
        trainings and run.model and [language.identity(language.find(run.model, run.storage)), run.model.precision]
    )
    for stage in STAGES:
        task = trainings.get(stage)
        if task is None:
            found[stage] = make_key("none")
            continue
        if stage == "finetune" and "pretune" in trainings:
            start = found["pretune"]
        data = [selected if task.subset else None, decides_texts(run, task)]
        settings = task.settings.model_dump(exclude=RESOURCE_KEYS | _SAID_OTHERWISE)
        found[stage] = make_key(VERSION, start, data, settings, task.kind, task.model.pad_token, task.seed)
    return found


def decides_texts(run: config.Run, task: Task) -> list[Any]:
    """What decides the texts of a training's files, for a key."""
    how = idea(*_read_as(run, task)) if task.files or task.dev else None
    return [state(task.files), state(task.dev), how]


def _read_as(run: config.Run, task: Task) -> tuple[config.Text, config.Chunks]:
    """How a training's files are read: as the target, but a label stands beside the text, which is then not cut."""
    text = without_weights(run.target)
    column = getattr(task.settings, "label_column", None)
    return (Labelled.of(text, column), WHOLE) if column else (text, run.chunks)


@dataclass(frozen=True)
class Examples:
    """What was read of a training's files.

    Attributes:
        examples: in the order of their ids, whatever the files' order; equal ones are one.
        left_out: rows and texts, by reason.
        told: sentences to show.
    """

    examples: list[Example]
    left_out: dict[str, int]
    told: tuple[str, ...]


def read(run: config.Run, task: Task, *, dev: bool = False) -> Examples:
    """The texts of a training's files, or of its development set.

    Raises:
        UserError: see :func:`gotd_ray.text.sets.read_set`.
    """
    text, chunks = _read_as(run, task)
    where = _where(task, dev=dev)
    found = read_set(where, "target", (task.dev if dev else task.files) or [], text, chunks, run.storage)
    texts = {(one.doc_id, one.label): one.text for one in found.documents}
    left_out = dict(found.tally.reasons) | {"equal_text": len(found.documents) - len(texts)}
    left_out = {reason: count for reason, count in sorted(left_out.items()) if count}
    examples = [(texts[key], key[1]) for key in sorted(texts, key=lambda key: (key[0], key[1] or ""))]
    return Examples(examples, left_out, (*found.told, *left_out_of(f"{task.stage}: {where}", left_out)))


def _where(task: Task, *, dev: bool) -> str:
    if dev:
        return f"{task.stage}.dev"
    return "finetune.paths" if getattr(task.settings, "paths", None) else "target"


def estimate(run: config.Run, task: Task) -> tuple[int, int, int]:
    """Before anything runs: bytes that each worker needs at the least, workers (1 where a GPU may decide), and rows at
    a time on each.

    Raises:
        UserError: the batch cannot be dealt out evenly; the base is not made for the objective, or has not the layers.
    """
    workers = task.settings.workers or 1
    micro = micro_batch(task.settings, workers, task.stage)
    return _needed(run, task, workers, micro), workers, micro


def _needed(run: config.Run, task: Task, workers: int, micro: int) -> int:
    assert run.model is not None
    labels = ["one", "other"] if task.kind == "classification" else []  # their number hardly counts
    base = language.find(run.model, run.storage)  # after pretune it is another, of the same shape
    return needed_bytes(task.settings, base, task.kind, labels, micro, workers)


def check(run: config.Run, trainings: dict[str, Task]) -> list[str]:
    """Hold trainings against their base and their files, before anything runs: small files are read whole.

    Returns:
        Sentences to tell.

    Raises:
        UserError: for whatever the trainings would be refused.
    """
    told: list[str] = []
    for task in trainings.values():
        told += [*task.passed_over, *_check_files(run, task, _check_base(run, task))]
    return list(dict.fromkeys(told))


def _check_base(run: config.Run, task: Task) -> Any:
    """The tokenizer, if all is well."""
    assert run.model is not None
    base = language.find(run.model, run.storage)
    tokenizer = tokenizer_for(task.stage, task.settings, run.model, base, task.kind)
    estimate(run, task)
    classes = ["one", "other"] if task.kind == "classification" else None
    if task.settings.layer_decay:
        depths(language.skeleton(base, task.kind, classes))
    if language.weight_bytes(base) <= TRIED_BYTES:
        model = language.load(base, task.kind, 0, classes)
        if not classes:
            refuse_sight(task.stage, model, causal=task.kind == "causal", packed=task.settings.pack)
    return tokenizer


def _check_files(run: config.Run, task: Task, tokenizer: Any) -> list[str]:
    """Read the files as the training would; of large ones a part, which shows that they can be read."""
    told: list[str] = []
    splits: dict[bool, list[Example]] = {}
    some: set[str] = set()
    for dev in (False, True):
        files = task.dev if dev else None if task.subset else task.files
        if files is None:
            continue
        if sum(file.size for file in files) <= EXACT_BYTES:
            found = read(run, task, dev=dev)
            splits[dev], words = found.examples, found.told
        else:
            where = _where(task, dev=dev)
            count = count_documents(where, "target", files, *_read_as(run, task), run.storage, whole=True)
            if not count.documents:
                raise UserError(f"{where} has no text: {count.why_empty()}. Check its paths and target.text_column.")
            words = count.warnings
            some |= count.labels
        told += words
    labels: tuple[str, ...] = ()
    if task.kind == "classification":
        some |= {label for _, label in splits.get(True, []) if label is not None}
        labels = labels_of(task.stage, splits[False], splits.get(True)) if False in splits else tuple(sorted(some))
    for dev, examples in splits.items():
        name = "dev" if dev else "training data"
        rows_of(task.stage, task.settings, tokenizer, task.kind, name, examples, labels)
    return told


def places(task: Task, resources: Resources) -> tuple[str, int, int]:
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


def check_places(run: config.Run, trainings: dict[str, Task], resources: Resources) -> None:
    """Hold trainings against the cluster, once it is known and before anything runs.

    Raises:
        UserError: it has not the devices, the batch cannot be dealt out to them, this machine has not the memory.
    """
    for task in trainings.values():
        device, workers, _ = places(task, resources)
        micro = micro_batch(task.settings, workers, task.stage)
        if device == "cpu" and resources.private:
            each = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // workers
            needed = _needed(run, task, workers, micro)
            refuse_memory(task.stage, task.settings, micro, workers, needed, each, "are there in all")
