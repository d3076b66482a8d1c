"""The static encoder: a weighted average of what the transformer makes of single tokens, made once on a machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gotd_ray.config import Encoder
from gotd_ray.errors import UserError
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.models.encoders import static, transformer

TEXTS = ["the house and the tree", "a b", "", "river " * 500]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gotd_ray" / "static"


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make(folder: Path, **settings: object) -> TextEncoder:
    return TextEncoder(Encoder.model_validate({"kind": "static", "model": str(folder), "max_tokens": 40} | settings))


def test_a_vector_is_the_average_of_the_tokens_centred_and_weighted(bert: Path) -> None:
    ours = make(bert)
    one = transformer.Encoder(Encoder(model=str(bert), precision="float32", max_tokens=8))
    first, last = one.tokenize([""])[0][0]
    ids = [np.array([first, token, last]) for token in range(len(one.tokenize.vocabulary))]
    *tokens, empty = one.encode_ids([*ids, np.array([first, last])]).astype(np.float64)
    p = static.guessed(one.tokenize.vocabulary)
    weights = static.RARE / (static.RARE + p)
    mean = np.average(tokens, 0, p * weights)
    for text, vector in zip(TEXTS, ours.encode(TEXTS), strict=True):
        own = ours.tokenize([text])[0][0][1:-1]
        expected = (weights[own, None] * (np.array(tokens)[own] - mean)).mean(0) if len(own) else empty - mean
        np.testing.assert_allclose(vector, unit(expected), atol=3e-3)


def test_a_frequency_is_guessed_from_the_rank_among_words() -> None:
    found = static.guessed(
        ["[PAD]", "[unused1]", "<s>", "!", "\N{GREEK SMALL LETTER ALPHA}", "the", "##s", "of", "##ing"]
    )
    rank = np.array([3000, 3000, 3000, 10, 3000, 1, 10, 2, 3])
    np.testing.assert_allclose(found, 1 / rank / (1 / rank).sum())


def test_an_empty_text_has_a_vector_of_length_1(bert: Path) -> None:
    vectors = make(bert).encode(["", "\x00", "the house"])
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)
    assert np.array_equal(vectors[0], make(bert).encode([""])[0]) and not np.array_equal(vectors[0], vectors[2])


def test_tokens_are_counted_as_the_transformer_does(bert: Path) -> None:
    other = TextEncoder(Encoder(model=str(bert), max_tokens=40, prefix="query: "))
    np.testing.assert_array_equal(make(bert, prefix="query: ").tokenize(TEXTS)[1], other.tokenize(TEXTS)[1])


def test_the_table_is_made_once_for_a_model_and_its_prefix(
    bert: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = make(bert).encode(TEXTS)
    (folder,) = cache.iterdir()
    assert [file.name for file in folder.iterdir()] == [static.TABLE]
    other = make(bert, prefix="query: ").encode(TEXTS)
    assert len(list(cache.iterdir())) == 2 and not np.array_equal(other, vectors)
    monkeypatch.setattr(transformer, "_load", None)  # no model runs again
    assert np.array_equal(make(bert).encode(TEXTS), vectors)
    longer = make(bert, normalize=False, max_tokens=60).encode(TEXTS)
    np.testing.assert_allclose(unit(longer.astype(np.float64))[:3], vectors[:3], atol=2e-3)
    assert not np.allclose(np.linalg.norm(longer.astype(np.float64), axis=1), 1, atol=0.1)


def test_its_identity_is_its_own(bert: Path) -> None:
    ours, theirs = make(bert), TextEncoder(Encoder(model=str(bert), max_tokens=40, precision="float32"))
    differ = {name for name in ours.identity if ours.identity[name] != theirs.identity[name]}
    assert differ == {"kind"} and ours.identity["precision"] == "float32"
    assert make(bert, precision="float16").identity == ours.identity


def test_a_cache_that_cannot_be_written_is_said(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"^the vectors of the encoder's tokens cannot be written to .* Set XDG_CACHE"):
        make(bert).encode(TEXTS)
