"""From texts to a training's rows and steps; every fault of the data is said before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_task, texts

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.training.dataset import Dataset, Example, prepare, rows_of
from gotd_ray.training.job import micro_batch


def made(folder: Path, kind: Any, train: list[Example], dev: list[Example] | None = None, **keys: Any) -> Dataset:
    pad_token = keys.pop("pad_token", None)
    task = make_task(folder, kind, config.Finetune(**{"max_tokens": 64} | keys), pad_token=pad_token)
    return prepare(replace(task, stage="finetune"), train, dev)


PLAIN: list[Example] = [(text, None) for text in texts(20)]
CLASSES: list[Example] = [(text[:60], "odd" if number % 2 else "even") for number, text in enumerate(texts(20))]


def test_labels_are_numbered_in_their_order(bert: Path) -> None:
    data = made(bert, "classification", CLASSES, CLASSES[:4])
    assert data.labels == ("even", "odd")
    assert data.train.classes is not None and data.train.classes.tolist() == [0, 1] * 10
    assert data.dev is not None and len(data.dev) == 4


@pytest.mark.parametrize(
    ("keys", "steps"),
    [({"epochs": 2.0}, 2), ({"epochs": 0.1}, 1), ({"steps": 7}, 7), ({"tokens": 1}, 1)],
    ids=str,
)
def test_steps_from_epochs_steps_or_tokens(bert: Path, keys: dict[str, Any], steps: int) -> None:
    assert (
        made(bert, "classification", CLASSES, batch_size=20, **keys).steps(
            config.Finetune(max_tokens=64, batch_size=20, **keys)
        )
        == steps
    )


def test_a_budget_in_tokens_is_met_within_a_step(llama: Path) -> None:
    settings = config.Training(max_tokens=64, batch_size=4, tokens=5000)
    data = made(llama, "causal", PLAIN, batch_size=4, tokens=5000)
    per_step = 4 * len(data.train.tokens) / len(data.train)
    assert 5000 <= data.steps(settings) * per_step < 5000 + per_step


def refused(*arguments: Any, **keys: Any) -> str:
    with pytest.raises(UserError) as raised:
        made(*arguments, **keys)
    return str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("masked", [], None, {}),
            "finetune: the training data has no text. Check the paths, the text column and chunks.min_chars.",
        ),
        (
            ("masked", PLAIN, [], {}),
            "finetune: the dev has no text. Check the paths, the text column and chunks.min_chars.",
        ),
        (
            ("classification", CLASSES, [("x", "neither")], {}),
            "finetune: dev has the labels neither, which the training data has not; it has even, odd. Correct the "
            "files, or name the right label_column.",
        ),
        (
            ("classification", CLASSES[::2], None, {}),
            "finetune: the training data has the one label 'even'; a classifier needs two. Name the right "
            "label_column.",
        ),
        (
            ("classification", [*CLASSES, ("word " * 90, "odd")], None, {}),
            "finetune: 1 of 21 texts of the training data to classify have more than 64 tokens, the longest 272. Raise "
            "finetune.max_tokens, or set finetune.truncate to true.",
        ),
        (
            ("masked", PLAIN, None, {"max_tokens": 256}),
            "finetune.max_tokens is 256, but 'NAME' takes 128 at most. Lower it.",
        ),
    ],
    ids=["empty", "empty-dev", "unknown-label", "one-label", "too-long", "beyond-context"],
)
def test_faults_of_the_data_are_refused(arguments: Any, message: str, bert: Path) -> None:
    kind, train, dev, keys = arguments
    assert refused(bert, kind, train, dev, **keys) == message.replace("NAME", bert.name)


def test_texts_that_are_cut_are_counted(bert: Path) -> None:
    long = [("word " * 90, "odd"), ("word " * 99, "even")]
    facts = made(bert, "classification", [*CLASSES, *long], long[:1], truncate=True).facts
    assert (facts["texts"], facts["cut"], facts["dev_texts"], facts["dev_cut"]) == (22, 2, 1, 1)


def test_texts_without_a_token_to_predict_are_refused(llama: Path) -> None:
    tokenizer = language.load_tokenizer(language.find(config.Model(base=str(llama)), config.Storage()), None)
    tokenizer.eos_token = None
    one: list[Example] = [("a", None)]
    task = replace(make_task(llama, "causal", config.Finetune(max_tokens=64)), stage="finetune")
    for name in ("training data", "dev"):
        with pytest.raises(UserError) as raised:
            rows_of(task, tokenizer, name, one, ())
        assert str(raised.value) == (
            f"finetune: no text of the {name} has a second token, which a causal model could learn to predict. Add "
            "longer texts, or check the text column."
        )


def test_a_tokenizer_that_cannot_pad_or_mask_is_refused(llama: Path) -> None:
    assert refused(llama, "causal", PLAIN, pack=False) == (
        f"the tokenizer of '{llama.name}' has no padding token, and finetune pads its rows. Set model.pad_token to a "
        "token that it has, such as '<end>'."
    )
    assert len(made(llama, "causal", PLAIN, pack=False, pad_token="<end>").train) > 0
    assert refused(llama, "masked", PLAIN) == (
        f"the tokenizer of '{llama.name}' has no mask token. Set finetune.objective to causal, or choose a model.base "
        "that was made for masked language modelling."
    )


def test_a_batch_is_dealt_out_evenly_or_refused() -> None:
    assert micro_batch(config.Training(batch_size=64), 4, "pretune") == 8
    assert micro_batch(config.Training(batch_size=12), 2, "pretune") == 6
    with pytest.raises(UserError) as raised:
        micro_batch(config.Training(batch_size=10), 4, "pretune")
    assert str(raised.value) == (
        "pretune.batch_size is 10, which 4 workers cannot take 1 rows at a time each. Make it a multiple of 4, or "
        "change micro_batch or workers."
    )


def test_a_preset_fills_what_is_not_set_and_the_papers_values_are_in_it() -> None:
    detox = config.Training.model_validate({"preset": "detox", "epochs": 1})
    assert (detox.learning_rate, detox.weight_decay, detox.beta2, detox.adam_epsilon) == (2e-5, 0.1, 0.95, 1e-5)
    assert detox.epochs == 1
    domain = config.Training.model_validate({"preset": "domain_pretune"})
    assert (domain.objective, domain.learning_rate, domain.batch_size, domain.max_tokens) == ("masked", 1e-4, 64, 295)
