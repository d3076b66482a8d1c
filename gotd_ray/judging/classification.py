"""What a classifier says of labelled texts, text by text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.judging.batches import by_length, check_numbers
from gotd_ray.judging.intervals import Examples, Metric, ratio, with_count
from gotd_ray.judging.judge import Case, Columns, Judge, Known, Subject
from gotd_ray.text.documents import Document, Labelled


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


def classify(subject: Subject, texts: list[str], labels: Sequence[str]) -> dict[str, np.ndarray]:
    """The class of each of n texts, by a model that names its classes; of longer ones the first tokens count.

    Args:
        labels: (n,) the true classes, each one of the model's.

    Returns:
        ``predicted`` (n,) names of classes, ``score`` (n,) their probability, ``nll`` (n,) minus the logarithm of the
        true one's, ``cut`` (n,) whether the text was cut.

    Raises:
        UserError: the probabilities are not numbers.
    """
    model, tokenizer, limit = subject.model, subject.tokenizer, subject.window
    sizes = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    encoded = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    pad = model.config.pad_token_id or 0
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    true = [names.index(label) for label in labels]
    found, scores, nll = np.empty(len(texts), object), np.zeros(len(texts)), np.zeros(len(texts))
    with torch.inference_mode():
        for batch in by_length([len(ids) for ids in encoded], subject.batch_tokens):
            width = len(encoded[batch[0]])
            rows = [encoded[number] + [pad] * (width - len(encoded[number])) for number in batch]
            seen = [[1] * len(encoded[number]) + [0] * (width - len(encoded[number])) for number in batch]
            inputs, mask = (torch.tensor(part, device=model.device) for part in (rows, seen))
            with subject.cast():
                logits = model(input_ids=inputs, attention_mask=mask).logits
            shares = logits.float().softmax(dim=1)
            check_numbers(shares)
            best = shares.max(dim=1)
            wanted = torch.tensor([true[number] for number in batch], device=model.device)
            nll[batch] = cross_entropy(logits.float(), wanted, reduction="none").double().cpu().numpy()
            for number, value, place in zip(batch, best.values.tolist(), best.indices.tolist(), strict=True):
                found[number], scores[number] = names[place], value
    return {"predicted": found, "score": scores, "nll": nll, "cut": np.array(sizes) > limit}


def _per_class(examples: Examples) -> np.ndarray:
    """(n, 3 c): for each of the c classes seen whether it was hit, predicted, and true."""
    both = np.concatenate([np.asarray(examples["label"]), np.asarray(examples["predicted"])])
    codes = np.unique(both, return_inverse=True)[1].reshape(2, -1)
    true, predicted = (row[:, None] == np.arange(codes.max() + 1) for row in codes)
    return np.concatenate([true & predicted, predicted, true], axis=1).astype(np.float64)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    """Mean over the classes that are true or predicted somewhere of 2 hit / (predicted + true)."""
    hit, predicted, true = np.split(sums, 3, axis=1)
    seen = predicted + true
    f1 = np.divide(2 * hit, seen, out=np.zeros_like(hit), where=seen > 0)
    return f1.sum(axis=1) / (seen > 0).sum(axis=1)


def _micro_f1(sums: np.ndarray) -> np.ndarray:
    """2 hits / (predictions + truths), over all classes; with one label an example this is the accuracy."""
    hit, predicted, true = (part.sum(axis=1) for part in np.split(sums, 3, axis=1))
    return 2 * hit / (predicted + true)


def _mcc(sums: np.ndarray) -> np.ndarray:
    """Matthews's correlation for c classes (Gorodkin, 2004); 0 where labels or predictions are all the same."""
    hit, predicted, true = np.split(sums, 3, axis=1)
    count = true.sum(axis=1)
    covariance = hit.sum(axis=1) * count - (predicted * true).sum(axis=1)
    spread = (count**2 - (predicted**2).sum(axis=1)) * (count**2 - (true**2).sum(axis=1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=spread > 0)


def _right(examples: Examples) -> np.ndarray:
    return np.asarray(examples["label"]) == np.asarray(examples["predicted"])


def _cases(
    section: config.Classification, text: config.Text, finetune: config.Finetune | None
) -> Iterator[tuple[str, dict[str, Any], dict[str, config.Text]]]:
    assert finetune and finetune.label_column
    labelled = Labelled.of(text, finetune.label_column, section.paths)
    yield "test", {"cut_at": finetune.max_tokens}, {"evaluate.classification": labelled}


def _check(cases: Sequence[Case], known: Known) -> None:
    labels = known.labels[cases[0].reads[0].where]
    if labels and (learnt := known.learnt()):
        check_labels(sorted(learnt), sorted(labels))


def _judge(case: Case, subject: Subject) -> dict[str, Columns]:
    rows = case.reads[0].read().documents
    labels = [one.label or "" for one in rows]
    check_labels(list(subject.model.config.id2label.values()), labels)
    subject = replace(subject, window=min(case.settings["cut_at"], subject.window))
    found = classify(subject, [one.text for one in rows], labels)
    named = {"example": _names(rows), "label": np.array(labels, object)} | case.reads[0].modes(rows)
    return {case.set: found | named}


def _names(rows: list[Document]) -> np.ndarray:
    """A name for each row; equal texts are told apart by their label and a number."""
    held: Counter[tuple[str, str | None]] = Counter()
    names: list[str] = []
    for row in rows:
        held[row.doc_id, row.label] += 1
        names.append(f"{row.doc_id}-{row.label}-{held[row.doc_id, row.label]}")
    return np.array(names, object)


JUDGE = Judge(
    version=4,
    kind="classification",
    metrics=(
        Metric("accuracy", "higher", with_count(_right), ratio),
        Metric("macro_f1", "higher", _per_class, _macro_f1),
        Metric("micro_f1", "higher", _per_class, _micro_f1),
        Metric("mcc", "higher", _per_class, _mcc),
        Metric("log_loss", "lower", with_count(lambda rows: np.asarray(rows["nll"])), ratio),
    ),
    columns={
        "label": pa.string(),
        "predicted": pa.string(),
        "score": pa.float64(),
        "nll": pa.float64(),
        "cut": pa.bool_(),
    },
    cases=_cases,
    judge=_judge,
    check=_check,
    cut="their first tokens count",
    modes=True,
)
