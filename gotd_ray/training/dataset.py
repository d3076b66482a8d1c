"""Texts to the rows of a training and of its development set; every fault of the data is found before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.models.objectives import OBJECTIVES, Example, Laid
from gotd_ray.models.packing import Rows
from gotd_ray.training.task import Task, conversations_of, read, subset_of


@dataclass(frozen=True)
class Dataset:
    """What a training learns from.

    Attributes:
        train: its rows.
        dev: rows of the development set; None where there is none.
        labels: the classes, sorted; empty for language modelling.
        facts: counts for the manifest.
    """

    train: Rows
    dev: Rows | None
    labels: tuple[str, ...]
    facts: dict[str, Any]

    def steps(self, settings: config.Training) -> int:
        """Optimiser steps: as given, or by tokens, or by epochs."""
        if settings.steps:
            return settings.steps
        tokens_of_step = settings.batch_size * len(self.train.tokens) / len(self.train)
        wanted = (
            settings.tokens / tokens_of_step
            if settings.tokens
            else settings.epochs * len(self.train) / settings.batch_size
        )
        return max(1, int(np.ceil(wanted - 1e-9)))


def prepare(task: Task, train: list[Example], dev: list[Example] | None) -> Dataset:
    """Tokenise, cut or pack, and number the labels.

    Raises:
        UserError: a split is empty; a label of dev is unknown; there is but one label; rows are longer than the model
            takes; a text to classify is too long; the tokenizer cannot pad or mask; no text has a token to predict.
    """
    tokenizer = tokenizer_for(task, language.find(task.model, task.storage))
    labels = labels_of(task.stage, train, dev) if OBJECTIVES[task.kind].classifies else ()
    rows, pieces, cut = rows_of(task, tokenizer, "training data", train, labels)
    dev_rows, dev_pieces, dev_cut = None, 0, 0
    if dev is not None:
        dev_rows, dev_pieces, dev_cut = rows_of(task, tokenizer, "dev", dev, labels)
    facts = {
        "texts": len(train),
        "pieces": pieces,
        "cut": cut,
        "dev_texts": len(dev) if dev is not None else 0,
        "dev_pieces": dev_pieces,
        "dev_cut": dev_cut,
        "tokens_in_data": len(rows.tokens),
        "filled": len(rows.tokens) / (len(rows) * int(np.diff(rows.starts).max())),
    }
    return Dataset(rows, dev_rows, labels, facts)


def rows_of(task: Task, tokenizer: Any, name: str, split: Sequence[Example], labels: Sequence[str]) -> Laid:
    """The rows of a split.

    Args:
        name: of the split, for messages.
        labels: all classes, in order; of language modelling none.

    Raises:
        UserError: it is empty; a text to classify is too long; no text has a token to predict.
    """
    if not split:
        raise UserError(f"{task.stage}: the {name} has no text. Check the paths, the text column and chunks.min_chars.")
    return OBJECTIVES[task.kind].rows(task.stage, task.settings, tokenizer, name, split, labels)


def tokenizer_for(task: Task, base: language.Base) -> Any:
    """The tokenizer of a training.

    Args:
        base: the model that it starts from, or one of the same shape.

    Raises:
        UserError: ``max_tokens`` is beyond the model's; it cannot pad or mask, and must.
    """
    stage, settings, objective = task.stage, task.settings, OBJECTIVES[task.kind]
    tokenizer = language.load_tokenizer(base, task.base.pad_token, task.base.chat_template)
    limit = language.context_length(language.load_config(base), tokenizer)
    if limit and settings.max_tokens > limit:
        raise UserError(
            f"{stage}.max_tokens is {settings.max_tokens}, but '{base.folder.name}' takes {limit} at most. Lower it."
        )
    if tokenizer.pad_token_id is None and (objective.classifies or not settings.pack):
        raise UserError(
            f"the tokenizer of '{base.folder.name}' has no padding token, and {stage} pads its rows. Set "
            f"model.pad_token to a token that it has, such as '{tokenizer.eos_token}'."
        )
    if objective.converses and not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of '{base.folder.name}' has no chat template, and {stage}.objective is sft. Set "
            "model.chat_template, to chatml for one, or take a model.base that was made for conversations."
        )
    if objective.converses and not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of '{base.folder.name}' does not tell where its tokens stand in a text, and {stage}."
            "objective is sft. Take a model.base with a tokenizer.json."
        )
    if objective.masking and tokenizer.mask_token_id is None:
        raise UserError(
            f"the tokenizer of '{base.folder.name}' has no mask token. Set {stage}.objective to causal, or choose a "
            "model.base that was made for masked language modelling."
        )
    return tokenizer


def labels_of(stage: str, train: list[Example], dev: list[Example] | None) -> tuple[str, ...]:
    """The classes of the training data, sorted.

    Raises:
        UserError: dev has others; there is but one.
    """
    known = sorted({label for _, label in train if label is not None})
    unknown = sorted({label for _, label in dev or [] if label is not None} - set(known))
    if unknown:
        raise UserError(
            f"{stage}: dev has the labels {', '.join(unknown[:5])}, which the training data has not; it has "
            f"{', '.join(known[:10])}. Correct the files, or name the right label_column."
        )
    if len(known) < 2:
        raise UserError(
            f"{stage}: the training data has the one label '{''.join(known)}'; a classifier needs two. Name the right "
            "label_column."
        )
    return tuple(known)


def cut_in_words(task: Task, name: str, texts: int, pieces: int, cut: int) -> list[str]:
    """A sentence on texts whose end is not learnt, or none."""
    if not cut:
        return []
    limit = task.settings.max_tokens
    if not OBJECTIVES[task.kind].converses:
        return [f"{task.stage}: of {cut:,} of the {texts:,} texts of {name} only the first {limit} tokens count"]
    lost = f"; {texts - pieces:,} of them have no answer there, and are left out" if texts > pieces else ""
    return [
        f"{task.stage}: an answer in {cut:,} of the {texts:,} conversations of {name} is cut off at {task.stage}."
        f"max_tokens ({limit}){lost}"
    ]


def write(task: Task, folder: str) -> dict[str, Any]:
    """Read the texts and write the rows into a folder, where every worker reads them.

    Returns:
        ``labels`` and ``steps``, and ``facts`` for the manifest, with ``told``, sentences to show.

    Raises:
        UserError: see :func:`prepare` and :func:`gotd_ray.training.task.read`.
    """
    train = None if task.subset else read(task)
    dev = None if task.dev is None else read(task, dev=True)
    texts: list[Example] = train.examples if train else []
    if task.subset and OBJECTIVES[task.kind].converses:
        texts = conversations_of(task.subset, task.storage, task.settings.texts)
    elif task.subset:
        texts = [(text, None) for text in subset_of(task.subset, "text", task.storage, task.settings.texts)]
    data = prepare(task, texts, dev.examples if dev else None)
    for name, rows in (("train", data.train), ("dev", data.dev)):
        if rows is not None:
            storage.write_bytes(storage.join(folder, f"{name}.safetensors"), rows.to_bytes(), task.storage)
    told = [*(train.told if train else ()), *(dev.told if dev else ())]
    for name, split in (("the training data", ""), ("dev", "dev_")):
        count, cut = data.facts[f"{split}texts"], data.facts[f"{split}cut"]
        told += cut_in_words(task, name, count, data.facts[f"{split}pieces"], cut)
    left_out = {"left_out": train.left_out if train else {}, "dev_left_out": dev.left_out if dev else {}}
    base = language.identity(language.find(task.model, task.storage))
    facts = data.facts | {"base": base, **left_out, "told": told}
    return {"labels": data.labels, "steps": data.steps(task.settings), "facts": facts}
