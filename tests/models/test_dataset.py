"""From texts to a training's rows and steps; every fault of the data is said before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import texts

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.models.dataset import Dataset, Example, prepare
from gotd_ray.models.job import micro_batch


def made(folder: Path, kind: Any, train: list[Example], dev: list[Example] | None = None, **keys: Any) -> Dataset:
    model = config.Model(base=str(folder), pad_token=keys.pop("pad_token", None))
    settings = config.Finetune(**{"max_tokens": 64} | keys)
    return prepare("finetune", settings, model, language.find(model, config.Storage()), kind, train, dev)


PLAIN: list[Example] = [(text, None) for text in texts(20)]
CLASSES: list[Example] = [(text[:60], "odd" if number % 2 else "even") for number, text in enumerate(texts(20))]


def test_labels_are_numbered_in_their_order(bert: Path) -> None:
    data = made(bert, "classification", CLASSES, CLASSES[:4])
    assert data.labels == ("even", "odd")
    assert data.train.classes is not None and data.train.classes.tolist() == [0, 1] * 10
    assert data.dev is not None and len(data.dev) == 4
    assert not data.packed


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("masked", [], None, {}), r"the training data has no text. Check the paths"),
        (("masked", PLAIN, [], {}), r"the dev has no text"),
        (("classification", CLASSES, [("x", "neither")], {}), r"dev has the labels neither, .* it has even, odd"),
        (("classification", CLASSES[::2], None, {}), r"the one label 'even'; a classifier needs two"),
        (
            ("classification", [*CLASSES, ("word " * 90, "odd")], None, {}),
            r"1 of 21 texts .* Raise finetune.max_tokens",
        ),
        (("masked", PLAIN, None, {"max_tokens": 256}), r"max_tokens is 256, but '.*' takes 128 at most. Lower it"),
    ],
    ids=["empty", "empty-dev", "unknown-label", "one-label", "too-long", "beyond-context"],
)
def test_faults_of_the_data_are_refused(arguments: Any, message: str, bert: Path) -> None:
    kind, train, dev, keys = arguments
    with pytest.raises(UserError, match=message):
        made(bert, kind, train, dev, **keys)


def test_a_tokenizer_that_cannot_pad_or_mask_is_refused(llama: Path) -> None:
    with pytest.raises(UserError, match=r"no padding token.*Set model.pad_token .* such as '<end>'"):
        made(llama, "causal", PLAIN, pack=False)
    assert len(made(llama, "causal", PLAIN, pack=False, pad_token="<end>").train) > 0
    with pytest.raises(UserError, match=r"no mask token. Set finetune.objective to causal"):
        made(llama, "masked", PLAIN)


def test_a_batch_is_dealt_out_evenly_or_refused() -> None:
    assert micro_batch(config.Training(batch_size=64), 4, "pretune") == 8
    assert micro_batch(config.Training(batch_size=12), 2, "pretune") == 6
    with pytest.raises(UserError, match=r"batch_size is 10, which 4 workers .* multiple of"):
        micro_batch(config.Training(batch_size=10), 4, "pretune")


def test_a_preset_fills_what_is_not_set_and_the_papers_values_are_in_it() -> None:
    detox = config.Training.model_validate({"preset": "detox", "epochs": 1})
    assert (detox.learning_rate, detox.weight_decay, detox.beta2, detox.adam_epsilon) == (2e-5, 0.1, 0.95, 1e-5)
    assert detox.epochs == 1
    domain = config.Training.model_validate({"preset": "domain_pretune"})
    assert (domain.objective, domain.learning_rate, domain.batch_size, domain.max_tokens) == ("masked", 1e-4, 64, 295)
