"""What a language model is trained for: one record each. The config names them, or has a label column for classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import chat
from gotd_ray.models.packing import Masking, Rows, one_by_one, pack, tokenize
from gotd_ray.text import turns

Example = tuple[str, str | None]
"""A text and its label; None for language modelling. Of a conversation its turns, see ``turns.written``."""

Laid = tuple[Rows, int, int]
"""The rows of some texts, the number of pieces in them, and of texts whose end is not learnt."""


@dataclass(frozen=True)
class Objective:
    """What a model is trained for.

    Attributes:
        auto: the class of transformers that loads such models.
        rows: stage, its section, tokenizer, what the texts are called, the texts, the classes -> the rows; raises a
            UserError where they teach nothing.
        made_for: how the architectures of base models that were made for it are called at the end of their names.
        causal: a token is predicted from those before it, and the model keeps the texts of a row apart by their
            positions.
        converses: the texts are conversations, which a chat template lays out.
        classifies: each text has a class, for which the model gets a new head.
        masking: section, tokenizer and seed -> what is hidden; None where nothing is.
    """

    auto: str
    rows: Callable[[str, config.Training, Any, str, Sequence[Example], Sequence[str]], Laid]
    made_for: tuple[str, ...] = ()
    causal: bool = False
    classifies: bool = False
    converses: bool = False
    masking: Callable[[config.Training, Any, int], Masking] | None = None


def _next_token(
    stage: str, settings: config.Training, tokenizer: Any, name: str, split: Sequence[Example], _: Sequence[str]
) -> Laid:
    pieces = tokenize(tokenizer, [text for text, _ in split], settings.max_tokens, end=True)
    if max(map(len, pieces)) < 2:
        raise UserError(
            f"{stage}: no text of the {name} has a second token, which a causal model could learn to predict. Add "
            "longer texts, or check the text column."
        )
    return _laid(settings, pieces)


def _hidden_tokens(
    _: str, settings: config.Training, tokenizer: Any, __: str, split: Sequence[Example], ___: Sequence[str]
) -> Laid:
    return _laid(settings, tokenize(tokenizer, [text for text, _ in split], settings.max_tokens, end=False))


def _laid(settings: config.Training, pieces: list[np.ndarray]) -> Laid:
    return pack(pieces, settings.max_tokens) if settings.pack else one_by_one(pieces), len(pieces), 0


def _answers(
    stage: str, settings: config.Training, tokenizer: Any, name: str, split: Sequence[Example], _: Sequence[str]
) -> Laid:
    """A piece for each conversation that has some of an answer within max_tokens; the others count as cut."""
    found, refused = [], []
    for text, _label in split:
        try:
            found.append(chat.encode(tokenizer, turns.read(text), settings.max_tokens))
        except chat.Refused as error:
            refused.append(str(error))
    if refused:
        raise UserError(
            f"{stage}: the chat template does not take {len(refused):,} of the {len(split):,} conversations of the "
            f"{name}: {refused[0]}. Take them out, or give another model.chat_template."
        )
    kept = [piece for piece in found if piece.learnt[1:].any()]
    if not kept:
        raise UserError(
            f"{stage}: no conversation of the {name} has an answer within {stage}.max_tokens ({settings.max_tokens}). "
            "Raise it."
        )
    ids, learnt = [piece.ids for piece in kept], [piece.learnt for piece in kept]
    rows = pack(ids, settings.max_tokens, learnt) if settings.pack else one_by_one(ids, learnt=learnt)
    return rows, len(kept), sum(piece.cut for piece in found)


def _masking(settings: config.Training, tokenizer: Any, seed: int) -> Masking:
    special = tuple(tokenizer.all_special_ids)
    return Masking(settings.mask_share, tokenizer.mask_token_id, len(tokenizer), special, seed)


def _classes(
    stage: str,
    settings: config.Training,
    tokenizer: Any,
    name: str,
    split: Sequence[Example],
    labels: Sequence[str],
) -> Laid:
    """A row for each text: of too long ones the beginning, where the settings allow that."""
    assert isinstance(settings, config.Finetune)
    texts = [text for text, _ in split]
    encoded = tokenizer(texts, verbose=False)["input_ids"]
    long = sum(len(ids) > settings.max_tokens for ids in encoded)
    if long and not settings.truncate:
        raise UserError(
            f"{stage}: {long:,} of {len(texts):,} texts of the {name} to classify have more than "
            f"{settings.max_tokens} tokens, the longest {max(map(len, encoded)):,}. Raise {stage}.max_tokens, or set "
            f"{stage}.truncate to true."
        )
    cut = tokenizer(texts, truncation=True, max_length=settings.max_tokens)["input_ids"]
    pieces = [np.asarray(ids, np.int32) for ids in cut]
    return one_by_one(pieces, [labels.index(label or "") for _, label in split]), len(pieces), long


OBJECTIVES = {
    "causal": Objective("AutoModelForCausalLM", _next_token, ("CausalLM", "LMHeadModel"), causal=True),
    "sft": Objective("AutoModelForCausalLM", _answers, causal=True, converses=True),
    "masked": Objective("AutoModelForMaskedLM", _hidden_tokens, ("MaskedLM",), masking=_masking),
    "classification": Objective("AutoModelForSequenceClassification", _classes, classifies=True),
}
"""By name."""
