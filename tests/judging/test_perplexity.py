"""Perplexity against transformers' own loss, whatever the batches, and text by text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import texts

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.judging.cases import window_tokens
from gotd_ray.judging.judge import Subject
from gotd_ray.judging.perplexity import perplexity, windows
from gotd_ray.models import language


@pytest.fixture(scope="module")
def loaded(llama: Path) -> tuple[object, object]:
    base = language.find(config.Model(base=str(llama)), config.Storage())
    return language.load(base, "causal", 0).eval(), language.load_tokenizer(base, None)


def test_a_text_s_likelihood_is_that_of_transformers_own_loss(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    some = [text[:150] for text in texts(20)]
    found = perplexity(Subject(model, tokenizer, 128, 256), some)
    for text, nll, tokens, size in zip(some, found["nll"], found["tokens"], found["bytes"], strict=True):
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
        loss = model(input_ids=ids, labels=ids).loss.detach()
        assert tokens == ids.shape[1] - 1 and size == len(text.encode())
        assert nll == pytest.approx(float(loss) * tokens, rel=1e-5)


def test_batches_and_the_order_of_texts_change_nothing(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    one = perplexity(Subject(model, tokenizer, 64, 64), texts(30))
    other = perplexity(Subject(model, tokenizer, 64, 1000), texts(30)[::-1])
    assert np.array_equal(one["tokens"], other["tokens"][::-1])
    np.testing.assert_allclose(one["nll"], other["nll"][::-1], rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 12, 13, 40, 41])
def test_windows_predict_every_token_but_the_first_once_and_with_context(count: int) -> None:
    tokens, length = np.arange(count), 8
    told: list[int] = []
    for window in windows(tokens, length):
        assert len(window.tokens) <= length
        assert np.array_equal(window.tokens, np.arange(window.tokens[0], window.tokens[0] + len(window.tokens)))
        assert window.tokens[0] == 0 or window.known >= length // 2
        told += window.tokens[window.known :].tolist()
    assert told == list(range(1, count))


def test_a_long_text_is_the_sum_of_its_windows(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    text = " ".join(texts(40))
    found = perplexity(Subject(model, tokenizer, 32, 200), [text])
    ids = [tokenizer.eos_token_id, *tokenizer(text, verbose=False)["input_ids"]]
    assert found["tokens"][0] == len(ids) - 1 > 32
    alone = 0.0
    for window in windows(np.array(ids), 32):
        row = torch.from_numpy(window.tokens)[None]
        told = torch.log_softmax(model(input_ids=row).logits[0, :-1].detach(), -1)
        alone -= float(told[torch.arange(row.shape[1] - 1), row[0, 1:]][window.known - 1 :].sum())
    assert found["nll"][0] == pytest.approx(alone, rel=1e-5)


def test_what_cannot_be_measured_is_refused_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"evaluate.max_tokens is 300, but the model takes 128 at most. Lower it"):
        window_tokens(300, 128)
    assert [window_tokens(None, 128), window_tokens(None, None), window_tokens(64, 128)] == [128, 1024, 64]
