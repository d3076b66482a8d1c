"""Texts to the rows of a training and of its development set; every fault of the data is found before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.models.packing import Rows, one_by_one, pack, tokenize

Example = tuple[str, str | None]
"""A text and its label; None for language modelling."""


@dataclass(frozen=True)
class Dataset:
    """What a training learns from.

    Attributes:
        train: its rows.
        dev: rows of the development set; None where there is none.
        labels: the classes, sorted; empty for language modelling.
        packed: whether rows may hold several texts.
        facts: counts for the manifest.
    """

    train: Rows
    dev: Rows | None
    labels: tuple[str, ...]
    packed: bool
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


def prepare(
    stage: str,
    settings: config.Training,
    model: config.Model,
    base: language.Base,
    kind: language.Kind,
    train: list[Example],
    dev: list[Example] | None,
) -> Dataset:
    """Tokenise, cut or pack, and number the labels.

    Raises:
        UserError: a split is empty; a label of dev is unknown; there is but one label; rows are longer than the model
            takes; a text to classify is too long; the tokenizer cannot pad or mask.
    """
    tokenizer = language.load_tokenizer(base, model.pad_token)
    _check_tokenizer(stage, settings, base, kind, tokenizer)
    for name, split in (("training data", train), ("dev", dev)):
        if split is not None and not split:
            raise UserError(f"{stage}: the {name} has no text. Check the paths, the text column and chunks.min_chars.")
    labels = _labels(stage, train, dev) if kind == "classification" else ()
    packed = settings.pack and not labels

    def rows(split: list[Example]) -> tuple[Rows, int]:
        texts = [text for text, _ in split]
        if not labels:
            pieces = tokenize(tokenizer, texts, settings.max_tokens, end=kind == "causal")
            return (pack(pieces, settings.max_tokens) if packed else one_by_one(pieces)), len(pieces)
        encoded = tokenizer(texts)["input_ids"]
        long = sum(len(ids) > settings.max_tokens for ids in encoded)
        assert isinstance(settings, config.Finetune)
        if long and not settings.truncate:
            raise UserError(
                f"{stage}: {long:,} of {len(texts):,} texts to classify have more than {settings.max_tokens} tokens, "
                f"the longest {max(map(len, encoded)):,}. Raise {stage}.max_tokens, or set {stage}.truncate to true."
            )
        cut = tokenizer(texts, truncation=True, max_length=settings.max_tokens)["input_ids"]
        return one_by_one([np.asarray(ids, np.int32) for ids in cut], [labels.index(y or "") for _, y in split]), len(
            cut
        )

    train_rows, pieces = rows(train)
    dev_rows = rows(dev)[0] if dev is not None else None
    facts = {
        "texts": len(train),
        "pieces": pieces,
        "dev_texts": len(dev) if dev is not None else 0,
        "tokens_in_data": len(train_rows.tokens),
        "filled": len(train_rows.tokens) / (len(train_rows) * int(np.diff(train_rows.starts).max())),
    }
    return Dataset(train_rows, dev_rows, labels, packed, facts)


def _check_tokenizer(
    stage: str, settings: config.Training, base: language.Base, kind: language.Kind, tokenizer: Any
) -> None:
    limit = language.context_length(language.load_config(base), tokenizer)
    if limit and settings.max_tokens > limit:
        raise UserError(
            f"{stage}.max_tokens is {settings.max_tokens}, but '{base.folder.name}' takes {limit} at most. Lower it."
        )
    packed = settings.pack and kind != "classification"
    if tokenizer.pad_token_id is None and not packed:
        raise UserError(
            f"the tokenizer of '{base.folder.name}' has no padding token, and {stage} pads its rows. Set "
            f"model.pad_token to a token that it has, such as '{tokenizer.eos_token}'."
        )
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise UserError(
            f"the tokenizer of '{base.folder.name}' has no mask token. Set {stage}.objective to causal, or choose a "
            "model.base that was made for masked language modelling."
        )


def _labels(stage: str, train: list[Example], dev: list[Example] | None) -> tuple[str, ...]:
    known = sorted({label for _, label in train if label is not None})
    unknown = sorted({label for _, label in dev or [] if label is not None} - set(known))
    if unknown:
        raise UserError(
            f"{stage}: dev has the labels {', '.join(unknown[:5])}, which the training data has not; it has "
            f"{', '.join(known[:10])}. Mend the files, or name the right label_column."
        )
    if len(known) < 2:
        raise UserError(
            f"{stage}: the training data has the one label '{''.join(known)}'; a classifier needs two. Name the right "
            "label_column."
        )
    return tuple(known)
