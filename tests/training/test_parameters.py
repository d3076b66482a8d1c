"""What is trained, and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.training.parameters import choose, depths, groups


def load(folder: Path, kind: Any) -> Any:
    return language.load(language.find(config.Model(base=str(folder)), config.Storage()), kind, 0, ["a", "b"])


@pytest.mark.parametrize("kind", ["causal", "masked", "classification"])
def test_embeddings_come_before_the_layers_and_heads_after(kind: Any, llama: Path, bert: Path) -> None:
    model = load(llama if kind == "causal" else bert, kind)
    found, count = depths(model)
    assert count == 2
    for name, depth in found.items():
        if "embed" in name:
            assert depth == 0, name
        elif "layers.0." in name or "layer.0." in name:
            assert depth == 1, name
        elif "layers.1." in name or "layer.1." in name:
            assert depth == 2, name
        else:
            assert depth == 3, name


def test_more_last_layers_than_there_are_is_refused(llama: Path) -> None:
    with pytest.raises(UserError, match="last_layers is 9, but the model has 2 layers"):
        choose(load(llama, "causal"), config.Training(parameters="last", last_layers=9), new_head=False)


def test_rates_fall_with_depth(bert: Path) -> None:
    model = load(bert, "classification")
    settings = config.Training(layer_decay=0.5, learning_rate=0.8, weight_decay=0.1)
    decayed = {name for name, _ in model.named_parameters() if name.endswith("weight")}
    found = groups(model, settings, decayed)
    assert sum(len(group["params"]) for group in found) == len(list(model.parameters()))
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in found for p in group["params"]}
    assert rates[id(model.classifier.weight)] == (0.8, 0.1)
    assert rates[id(model.bert.encoder.layer[1].output.dense.bias)] == (0.4, 0.0)
    assert rates[id(model.bert.encoder.layer[0].output.dense.weight)] == (0.2, 0.1)
    assert rates[id(model.bert.embeddings.word_embeddings.weight)] == (0.1, 0.1)


def test_under_lora_the_base_is_frozen_and_a_new_head_is_trained(bert: Path) -> None:
    model = choose(load(bert, "classification"), config.Training(parameters="lora", lora_rank=2), new_head=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name or "classifier" in name for name in trained)
    assert any("classifier" in name for name in trained)
