"""How well a causal language model foretells texts: per text the summed negative log likelihood.

Corpus perplexity is exp(sum nll / sum tokens): it depends on the tokenizer. Bits per byte, sum nll / (ln 2 sum bytes),
compares models with different tokenizers. Texts are rows, so that two models can be compared text by text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.models.batches import by_length, check_numbers

MAX_TOKENS = 1024
"""Tokens of a window where the settings do not say; the model's own limit where that is less."""


@dataclass(frozen=True)
class _Window:
    """Tokens that are fed at once, of which the first ``known`` are context only."""

    text: int
    tokens: np.ndarray
    known: int


def refuse(judge: str, kind: language.Kind, name: str) -> None:
    """Only a causal model gives texts a likelihood, and goes on with a prompt.

    Raises:
        UserError: it is another one.
    """
    if kind != "causal":
        raise UserError(
            f"evaluate.{judge} needs a causal language model, but {name} is a {kind} one, which gives a text no "
            f"likelihood. Drop evaluate.{judge}, name other evaluate.models, or take a causal model.base."
        )


def window_tokens(wanted: int | None, limit: int | None) -> int:
    """Tokens of a window.

    Args:
        wanted: by the settings; None takes up to ``MAX_TOKENS``.
        limit: the model's; None where it states none.

    Raises:
        UserError: more than the model takes.
    """
    if wanted and limit and wanted > limit:
        raise UserError(f"evaluate.max_tokens is {wanted}, but the model takes {limit} at most. Lower it.")
    return wanted or min(limit or MAX_TOKENS, MAX_TOKENS)


def windows(tokens: np.ndarray, length: int, text: int = 0) -> Iterator[_Window]:
    """Windows of at most ``length`` tokens that foretell every token but the first exactly once.

    They overlap by half, so that beyond the first window every token has at least ``length`` / 2 before it.
    """
    done = 1
    while done < len(tokens):
        end = min(len(tokens), length if done == 1 else done + length - length // 2)
        start = max(0, end - length)
        yield _Window(text, tokens[start:end], done - start)
        done = end


def perplexity(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    max_tokens: int,
    batch_tokens: int,
    autocast: AbstractContextManager[Any] | None = None,
) -> dict[str, np.ndarray]:
    """What a model makes of each of n texts.

    Before a text stands the beginning-of-text token, or else the end-of-text token, so that its first token counts too;
    with a tokenizer that has neither, the first token is not foretold.

    Args:
        model: a causal model, on its device.
        tokenizer: its tokenizer.
        texts: the texts.
        max_tokens: tokens of a window; longer texts take several.
        batch_tokens: tokens of a batch, padding counted; one window at the least.
        autocast: the arithmetic; None as the weights are.

    Returns:
        ``nll`` (n,) float64 in nats, ``tokens`` (n,) int64 foretold, ``bytes`` (n,) int64 of the texts in UTF-8.

    Raises:
        UserError: the likelihoods are not numbers, or there is none.
    """
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    before = [] if prefix is None else [prefix]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    pieces = [
        window for number, ids in enumerate(encoded) for window in windows(np.array(before + ids), max_tokens, number)
    ]
    found = {"nll": np.zeros(len(texts)), "tokens": np.zeros(len(texts), np.int64)}
    with torch.inference_mode():
        for numbers in by_length([len(window.tokens) for window in pieces], batch_tokens):
            batch = [pieces[number] for number in numbers]
            with autocast or nullcontext():
                losses = _losses(model, batch)
            for window, loss in zip(batch, losses, strict=True):
                found["nll"][window.text] += loss
                found["tokens"][window.text] += len(window.tokens) - window.known
    check_numbers(torch.from_numpy(found["nll"]))
    if not found["tokens"].any():
        raise UserError("the texts have no token that could be foretold: give longer ones.")
    return found | {"bytes": np.array([len(text.encode()) for text in texts], np.int64)}


def _losses(model: Any, batch: list[_Window]) -> np.ndarray:
    """(rows,) float64, the sum over each window's tokens that are not context."""
    width = len(batch[0].tokens)
    ids = np.zeros((len(batch), width), np.int64)
    labels = np.full((len(batch), width), -100)
    mask = np.zeros((len(batch), width), np.int64)
    for row, window in enumerate(batch):
        size = len(window.tokens)
        ids[row, :size] = window.tokens
        labels[row, window.known : size] = window.tokens[window.known :]
        mask[row, :size] = 1
    inputs, wanted, seen = (torch.from_numpy(array).to(model.device) for array in (ids, labels, mask))
    logits = model(input_ids=inputs, attention_mask=seen, use_cache=False).logits
    rows = [
        cross_entropy(row[:-1].float(), target[1:], ignore_index=-100, reduction="none").double().sum()
        for row, target in zip(logits, wanted, strict=True)
    ]
    return torch.stack(rows).cpu().numpy()
