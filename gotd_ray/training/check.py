"""The faults of a training that can be found before anything runs: of its base, its files, its batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gotd_ray.models import language
from gotd_ray.models.objectives import OBJECTIVES, Example
from gotd_ray.models.packing import refuse_sight
from gotd_ray.preflight import is_small, look_at_part
from gotd_ray.training.dataset import cut_in_words, labels_of, rows_of, tokenizer_for
from gotd_ray.training.job import micro_batch, needed_bytes
from gotd_ray.training.parameters import depths
from gotd_ray.training.task import Task, read

TRIED_BYTES = 10**9
"""Weights up to this size are loaded by the check, in some seconds, and tried with a row of tokens."""


def estimate(task: Task, workers: int | None = None) -> tuple[int, int, int]:
    """Bytes that each worker needs at the least, workers, and rows at a time on each.

    Args:
        workers: None takes the setting, or 1 where the GPUs will decide.

    Raises:
        UserError: the batch cannot be dealt out evenly; the base is not made for the objective, or has not the layers.
    """
    workers = workers or task.settings.workers or 1
    micro = micro_batch(task.settings, workers, task.stage)
    base = language.find(task.base, task.storage)  # after pretune it is another, of the same shape
    return needed_bytes(task, base, task.classes or [], micro, workers), workers, micro


def check(trainings: Mapping[str, Task]) -> list[str]:
    """Hold trainings against their base and their files, before anything runs: small files are read whole.

    Returns:
        Sentences to tell.

    Raises:
        UserError: for whatever the trainings would be refused.
    """
    told: list[str] = []
    for task in trainings.values():
        told += [*task.passed_over, *_check_files(task, _check_base(task))]
    return list(dict.fromkeys(told))


def _check_base(task: Task) -> Any:
    """The tokenizer, if all is well."""
    base = language.find(task.base, task.storage)
    tokenizer = tokenizer_for(task, base)
    estimate(task)
    if task.settings.layer_decay:
        depths(language.skeleton(base, task.kind, task.classes))
    if language.weight_bytes(base) <= TRIED_BYTES:
        model = language.load(base, task.kind, 0, task.classes)
        if not task.classes:
            refuse_sight(task.stage, model, causal=OBJECTIVES[task.kind].causal, packed=task.settings.pack)
    return tokenizer


def _check_files(task: Task, tokenizer: Any) -> list[str]:
    """Read the files as the training would; of large ones a part, which shows that they can be read."""
    told: list[str] = []
    splits: dict[bool, list[Example]] = {}
    some: set[str] = set()
    for dev in (False, True):
        files = task.dev if dev else None if task.subset else task.files
        if files is None:
            continue
        if is_small(files):
            found = read(task, dev=dev)
            splits[dev] = found.examples
            told += found.told
        else:
            count = look_at_part(task.where(dev=dev), files, task.text, task.chunks, task.storage)
            told += count.warnings
            some |= count.labels
    labels: tuple[str, ...] = ()
    if task.classes:
        some |= {label for _, label in splits.get(True, []) if label is not None}
        labels = labels_of(task.stage, splits[False], splits.get(True)) if False in splits else tuple(sorted(some))
    for dev, examples in splits.items():
        name = "dev" if dev else "training data"
        _, pieces, cut = rows_of(task, tokenizer, name, examples, labels)
        told += cut_in_words(task, "dev" if dev else "the training data", len(examples), pieces, cut)
    return told
