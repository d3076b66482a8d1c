"""What a classifier says of labelled texts, text by text; the metrics are in ``intervals``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from gotd_ray.errors import UserError
from gotd_ray.models.batches import by_length, check_numbers


def check_labels(known: list[str], given: list[str]) -> None:
    """Every label of the evaluation set must be one of the model's.

    Raises:
        UserError: with the unknown ones.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(
            f"evaluate.classification has the labels {', '.join(unknown[:5])}, which the model does not know; it was "
            f"trained on {', '.join(known[:10])}. Correct the files, or train on data that has all labels."
        )


def classify(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    max_tokens: int,
    batch_tokens: int,
    autocast: AbstractContextManager[Any] | None = None,
) -> dict[str, np.ndarray]:
    """The class of each of n texts.

    Args:
        model: a sequence classifier that names its classes, on its device.
        tokenizer: its tokenizer.
        texts: the texts; of longer ones the first ``max_tokens`` count.
        max_tokens: tokens of a text.
        batch_tokens: tokens of a batch, padding counted; one text at the least.
        autocast: the arithmetic; None as the weights are.

    Returns:
        ``predicted`` (n,) names of classes, ``score`` (n,) their probability, ``cut`` (n,) whether the text was cut.

    Raises:
        UserError: the probabilities are not numbers.
    """
    sizes = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    encoded = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
    pad = model.config.pad_token_id or 0
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    found, scores = np.empty(len(texts), object), np.zeros(len(texts))
    with torch.inference_mode():
        for batch in by_length([len(ids) for ids in encoded], batch_tokens):
            width = len(encoded[batch[0]])
            rows = [encoded[number] + [pad] * (width - len(encoded[number])) for number in batch]
            seen = [[1] * len(encoded[number]) + [0] * (width - len(encoded[number])) for number in batch]
            inputs, mask = (torch.tensor(part, device=model.device) for part in (rows, seen))
            with autocast or nullcontext():
                logits = model(input_ids=inputs, attention_mask=mask).logits
            shares = logits.float().softmax(dim=1)
            check_numbers(shares)
            best = shares.max(dim=1)
            for number, value, place in zip(batch, best.values.tolist(), best.indices.tolist(), strict=True):
                found[number], scores[number] = names[place], value
    return {"predicted": found, "score": scores, "cut": np.array(sizes) > max_tokens}
