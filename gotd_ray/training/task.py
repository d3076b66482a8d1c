"""What a training learns from what: its task, its key and its texts."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from gotd_ray import config, storage
from gotd_ray.errors import UserError, said_by
from gotd_ray.index import table_of
from gotd_ray.listing import list_all
from gotd_ray.models import language
from gotd_ray.models.objectives import OBJECTIVES, Example
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import Labelled, document_id
from gotd_ray.text.sets import WHOLE, idea, left_out_of, read_set, state, without_weights
from gotd_ray.text.turns import of_messages, written

VERSION = 3
"""Raised when the result of equal settings changes."""

STAGES = ("pretune", "finetune")
MODEL = "model"

RESOURCE_KEYS = {"workers", "micro_batch", "zero_stage", "offload", "checkpoint_every"}
"""Settings on which the result does not depend, up to rounding."""

_SAID_OTHERWISE = {"paths", "dev", "preset", "seed", "objective"}
"""Settings whose consequences are in the key."""


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        stage: ``pretune`` or ``finetune``.
        settings: its section.
        base: the base model, whose shape the trained ones have.
        model: what it starts from: the base, or the model of the training before it.
        kind: the objective.
        subset: Parquet file of the selection; None reads ``files``.
        files: what it learns from otherwise, the target for one.
        dev: the development set.
        text: how files are read: as the target's, with a label beside the text where there are classes.
        chunks: how their texts are cut; those to classify are not.
        seed: of order, masks, dropout and new heads.
        passed_over: sentences on what lies in the files' folders and is none of them.
    """

    stage: str
    settings: config.Training
    base: config.Model
    model: config.Model
    kind: str
    subset: str | None
    files: list[StoredFile]
    dev: list[StoredFile] | None
    text: config.Text
    chunks: config.Chunks
    storage: config.Storage
    seed: int
    passed_over: tuple[str, ...] = ()

    def where(self, *, dev: bool = False) -> str:
        """What its files are called in messages."""
        if dev:
            return f"{self.stage}.dev"
        return "finetune.paths" if getattr(self.settings, "paths", None) else "target"

    @property
    def classes(self) -> list[str] | None:
        """Two made-up classes where it classifies: their number hardly counts before they are known."""
        return ["one", "other"] if OBJECTIVES[self.kind].classifies else None


def tasks(run: config.Run, subset: str) -> dict[str, Task]:
    """What each training of the run learns, from what; nothing is read but the listings and the base's config.

    Args:
        run: with its paths resolved.
        subset: where the selection's file lies, or will lie.
    """
    found: dict[str, Task] = {}
    for stage, settings in (("pretune", run.pretune), ("finetune", run.finetune)):
        if settings is None:
            continue
        assert run.model is not None
        own = settings if isinstance(settings, config.Finetune) else None
        column = own and own.label_column
        text = without_weights(run.target)
        files, told = _listed("finetune.paths", own.paths or text.paths, text, run.storage) if own else ([], ())
        dev, more = _listed(f"{stage}.dev", settings.dev, text, run.storage) if settings.dev else (None, ())
        model = run.model
        if "pretune" in found:
            model = model.model_copy(update={"base": storage.join(run.out, "pretune", MODEL), "revision": None})
        kind = "classification" if column else _objective(settings, run.model, run.storage)
        found[stage] = Task(
            stage=stage,
            settings=settings,
            base=run.model,
            model=model,
            kind=kind,
            subset=subset if stage == "pretune" else None,
            files=files,
            dev=dev,
            text=Labelled.of(text, column) if column else text,
            chunks=WHOLE if column or OBJECTIVES[kind].converses else run.chunks,
            storage=run.storage,
            seed=run.seed if settings.seed is None else settings.seed,
            passed_over=(*(told if own and own.paths else ()), *more),  # of the target's files the target tells
        )
    return found


def _objective(settings: config.Training, base: config.Model, options: config.Storage) -> str:
    return language.made_for(language.find(base, options)) if settings.objective == "auto" else settings.objective


def _listed(
    where: str, paths: list[str], text: config.Text, options: config.Storage
) -> tuple[list[StoredFile], tuple[str, ...]]:
    """Files in the form of the target, and what lies beside them, in words."""
    listing = list_all(text.model_copy(update={"paths": paths}), options)
    return listing.files, tuple(f"{where}: {words}" for words in listing.words())


def decides(task: Task) -> list[Any]:
    """What of a task decides the model that comes of it, besides what it starts from and the selection, for a key."""
    settings = task.settings.model_dump(exclude=RESOURCE_KEYS | _SAID_OTHERWISE)
    template = [task.model.chat_template] if task.model.chat_template else []
    return [decides_texts(task), settings, task.kind, task.model.pad_token, task.seed, *template]


def decides_texts(task: Task) -> list[Any]:
    """What decides the texts of a training's files, for a key."""
    how = idea(task.text, task.chunks) if task.files or task.dev else None
    drawn = [[task.settings.texts, task.seed]] if task.settings.texts else []
    return [state(task.files), state(task.dev), how, *drawn]


@dataclass(frozen=True)
class Examples:
    """What was read of a training's files.

    Attributes:
        examples: in the order of their ids, whatever the files' order; equal ones are one.
        ids: of their texts.
        left_out: rows and texts, by reason.
        told: sentences to show.
    """

    examples: list[Example]
    ids: set[str]
    left_out: dict[str, int]
    told: tuple[str, ...]


def read(task: Task, *, dev: bool = False) -> Examples:
    """The texts of a training's files, or of its development set.

    Raises:
        UserError: see :func:`gotd_ray.text.sets.read_set`.
    """
    where = task.where(dev=dev)
    found = read_set(where, "target", (task.dev if dev else task.files) or [], task.text, task.chunks, task.storage)
    names: dict[Key, str] = {}
    texts: dict[Key, str] = {}
    for one in found.documents:
        text = written(one.turns or ()) if OBJECTIVES[task.kind].converses else one.text
        key = (document_id(text), one.label)
        names[key], texts[key] = one.doc_id, text
    left_out = dict(found.tally.reasons) | {"equal_text": len(found.documents) - len(texts)}
    left_out = {reason: count for reason, count in sorted(left_out.items()) if count}
    keys = list(texts) if dev or not task.settings.texts else draw(where, task, list(texts))
    examples = [(texts[key], key[1]) for key in sorted(keys, key=lambda key: (key[0], key[1] or ""))]
    ids = {names[key] for key in keys}
    return Examples(examples, ids, left_out, (*found.told, *left_out_of(f"{task.stage}: {where}", left_out)))


Key = tuple[str, str | None]
"""Id of a text, and its label."""


def draw(where: str, task: Task, keys: list[Key]) -> list[Key]:
    """``texts`` of a training's texts, by its seed and their ids alone: a larger number holds a smaller.

    Of each class the first comes before all others, so that a classifier knows them all.

    Raises:
        UserError: there are not so many, or more classes.
    """
    count = task.settings.texts or len(keys)
    if count > len(keys):
        raise UserError(
            f"{task.stage}.texts is {count:,}, but {where} has {len(keys):,} texts. Lower it, or add to its paths."
        )
    order = sorted(keys, key=lambda key: blake2b(f"{task.seed} {key[0]} {key[1]}".encode(), digest_size=16).digest())
    first = {label: (doc_id, label) for doc_id, label in reversed(order) if label is not None}
    if count < len(first):
        raise UserError(
            f"{task.stage}.texts is {count:,}, but {where} has {len(first):,} classes, each of which needs a text. "
            "Raise it."
        )
    firsts = set(first.values())
    return sorted(order, key=lambda key: key not in firsts)[:count]


def conversations_of(path: str, options: config.Storage, first: int | None = None) -> list[Example]:
    """What an objective for conversations learns of the selection's file.

    Raises:
        UserError: it is gone, or damaged.
    """
    found: list[Any] = subset_of(path, "messages", options, first)
    return [(written(of_messages(messages)), None) for messages in found]


def subset_of(path: str, column: str, options: config.Storage, first: int | None = None) -> list[str]:
    """A column of the selection's file, in the order of its ranks.

    Args:
        first: so many documents; None: all.

    Raises:
        UserError: it is gone, or damaged, or has not so many.
    """
    try:
        found = table_of(storage.read_bytes(path, options), [column])[column].to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        folder = path.rpartition("/")[0]
        raise UserError(
            f"the subset {path} cannot be read: {said_by(error)}. Delete {folder}, and run again."
        ) from None
    if first is not None and first > len(found):
        raise UserError(
            f"pretune.texts is {first:,}, but the subset has {len(found):,} documents. Lower it, or raise "
            "select.budget."
        )
    return found[:first]
