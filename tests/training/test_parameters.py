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


ATTENTION = {  # weights of one layer's attention, width 32
    "causal": 4 * 32 * 32,
    "masked": 4 * (32 * 32 + 32) + 2 * 32,
    "classification": 4 * (32 * 32 + 32) + 2 * 32,
}
HEAD = 32 * 32 + 32 + 2 * 32 + 2
"""Of a new classifier for two classes on the tiny masked model: its pooler and its own."""


def trained_of(model: Any, parameters: str, **changes: Any) -> dict[str, int]:
    """Names and sizes of what is trained."""
    settings = config.Training.model_validate({"parameters": parameters})
    new_head = "Classification" in type(model).__name__
    chosen = choose(model, settings, new_head=new_head, **changes)
    return {name: parameter.numel() for name, parameter in chosen.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", ["causal", "masked", "classification"])
def test_attention_alone_is_that_of_every_layer_and_a_new_head(kind: Any, llama: Path, bert: Path) -> None:
    trained = trained_of(load(llama if kind == "causal" else bert, kind), "attention")
    head = {name: size for name, size in trained.items() if "pooler" in name or name.startswith("classifier")}
    assert sum(head.values()) == (HEAD if kind == "classification" else 0)
    own = trained.keys() - head.keys()
    assert sum(trained[name] for name in own) == 2 * ATTENTION[kind]
    assert all("attn" in name or "attention" in name for name in own)


@pytest.mark.parametrize("kind", ["masked", "classification"])
def test_biases_alone_are_all_there_are_and_a_new_head(kind: Any, bert: Path) -> None:
    model = load(bert, kind)
    trained = trained_of(model, "bias")
    # A layer: four of attention, two norms, the way up (64) and down; the norm of the embeddings besides.
    layers = 2 * (4 * 32 + 2 * 32 + 64 + 32) + 32
    vocabulary = model.config.vocab_size
    assert sum(trained.values()) == layers + (HEAD if kind == "classification" else 32 + 32 + vocabulary)
    assert all(name.endswith("bias") or "pooler" in name or name.startswith("classifier") for name in trained)


def test_a_model_without_biases_is_refused_with_what_could_be_trained(llama: Path) -> None:
    with pytest.raises(UserError, match=r"LlamaForCausalLM of this config has no biases .*attention, half or lora"):
        trained_of(load(llama, "causal"), "bias")


def test_a_model_without_attention_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gotd_ray.training.parameters._is_attention", lambda _: False)
    with pytest.raises(UserError, match="have no attention that could be trained alone"):
        trained_of(load(llama, "causal"), "attention")


@pytest.mark.parametrize("kind", ["causal", "masked", "classification"])
def test_half_takes_half_of_each_kind_of_part_by_the_seed(kind: Any, llama: Path, bert: Path) -> None:
    folder = llama if kind == "causal" else bert
    model = load(folder, kind)
    parts = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    found = {
        seed: {name.rpartition(".")[0] for name in trained_of(load(folder, kind), "half", seed=seed)}
        for seed in range(4)
    }
    again = {name.rpartition(".")[0] for name in trained_of(load(folder, kind), "half", seed=2)}
    assert again == found[2] and len({frozenset(one) for one in found.values()}) > 1
    for trained in found.values():
        outside = {part for part in parts if ".layers." not in part and ".layer." not in part}
        assert outside <= trained
        for layer in ("layers.0.", "layers.1.") if kind == "causal" else ("layer.0.", "layer.1."):
            inside = {part for part in parts if layer in part}
            for match in (
                lambda part: "Norm" in part or "norm" in part,
                lambda part: ("attn" in part or "attention" in part) and "orm" not in part,
                lambda part: not ("attn" in part or "attention" in part or "orm" in part),
            ):
                some = {part for part in inside if match(part)}
                assert abs(len(some & trained) - len(some) / 2) <= 0.5, (layer, some, trained)
    if kind == "causal":  # of an odd number, three matrices, one more in every other layer: exactly half in all
        inside = {part for part in parts if ".layers." in part}
        assert {len(inside & trained) for trained in found.values()} == {len(inside) // 2}


def test_gpt_2_whose_matrices_are_no_linear_layers_is_known_too() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=16))
    assert sum(trained_of(model, "attention").values()) == 2 * (32 * 96 + 96 + 32 * 32 + 32)
    half = trained_of(model, "half", seed=1)
    assert len({name.rpartition(".")[0] for name in half if ".h." in name}) == 2 * 6 // 2
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    # A layer: two norms, attention's 96 and 32, the way up (128) and down; the last norm besides.
    assert sum(trained_of(model, "bias").values()) == 2 * (2 * 32 + 96 + 32 + 128 + 32) + 32
