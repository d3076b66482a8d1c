"""How well a causal language model predicts texts: per text the summed negative log likelihood.

Corpus perplexity is exp(sum nll / sum tokens): it depends on the tokenizer. Bits per byte, sum nll / (ln 2 sum bytes),
compares models with different tokenizers. Texts are rows, so that two models can be compared text by text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.judging.batches import by_length, check_numbers
from gotd_ray.judging.intervals import Metric, columns, ratio
from gotd_ray.judging.judge import Case, Columns, Judge, Subject


@dataclass(frozen=True)
class _Window:
    """Tokens that are fed at once, of which the first ``known`` are context only."""

    text: int
    tokens: np.ndarray
    known: int


def windows(tokens: np.ndarray, length: int, text: int = 0) -> Iterator[_Window]:
    """Windows of at most ``length`` tokens that predict every token but the first exactly once.

    They overlap by half, so that beyond the first window every token has at least ``length`` / 2 before it.
    """
    done = 1
    while done < len(tokens):
        end = min(len(tokens), length if done == 1 else done + length - length // 2)
        start = max(0, end - length)
        yield _Window(text, tokens[start:end], done - start)
        done = end


def perplexity(subject: Subject, texts: list[str]) -> dict[str, np.ndarray]:
    """What a causal model makes of each of n texts; those longer than its window take several.

    Before a text stands the beginning-of-text token, or else the end-of-text token, so that its first token counts too;
    with a tokenizer that has neither, the first token is not predicted.

    Returns:
        ``nll`` (n,) float64 in nats, ``tokens`` (n,) int64 predicted, ``bytes`` (n,) int64 of the texts in UTF-8.

    Raises:
        UserError: the likelihoods are not numbers, or there is none.
    """
    tokenizer = subject.tokenizer
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    before = [] if prefix is None else [prefix]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    pieces = [
        window
        for number, ids in enumerate(encoded)
        for window in windows(np.array(before + ids), subject.window, number)
    ]
    found = {"nll": np.zeros(len(texts)), "tokens": np.zeros(len(texts), np.int64)}
    with torch.inference_mode():
        for numbers in by_length([len(window.tokens) for window in pieces], subject.batch_tokens):
            batch = [pieces[number] for number in numbers]
            with subject.cast():
                losses = _losses(subject.model, batch)
            for window, loss in zip(batch, losses, strict=True):
                found["nll"][window.text] += loss
                found["tokens"][window.text] += len(window.tokens) - window.known
    check_numbers(torch.from_numpy(found["nll"]))
    if not found["tokens"].any():
        raise UserError("the texts have no token to predict. Give longer ones.")
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


def _cases(section: Mapping[str, list[str]], text: config.Text, _: Any) -> Iterator[tuple[str, dict[str, Any], Any]]:
    for name, paths in section.items():
        yield name, {}, {f"evaluate.perplexity.{name}": text.model_copy(update={"paths": paths})}


def _judge(case: Case, subject: Subject) -> dict[str, Columns]:
    documents = {one.doc_id: one for one in reversed(case.reads[0].read().documents)}  # the first of equal ones
    found = perplexity(subject, [one.text for one in documents.values()])
    names = {"example": np.array(list(documents), object)}
    return {case.set: found | names | case.reads[0].modes(documents.values())}


JUDGE = Judge(
    version=3,
    kind="causal",
    metrics=(
        Metric("perplexity", "lower", columns("nll", "tokens"), lambda sums: np.exp(ratio(sums))),
        Metric("bits_per_byte", "lower", columns("nll", "bytes"), lambda sums: ratio(sums) / np.log(2)),
    ),
    columns={"nll": pa.float64(), "tokens": pa.int64(), "bytes": pa.int64()},
    cases=_cases,
    judge=_judge,
    distinct=True,
    modes=True,
)
