"""Continuations: drawn from the nucleus in the right shares, and the same ones in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import texts
from transformers import TopPLogitsWarper

from gotd_ray import config
from gotd_ray.judging.generation import _Drawn, continuations, stream
from gotd_ray.judging.judge import Subject
from gotd_ray.models import language

PROMPTS = [text[: 20 + 5 * number] for number, text in enumerate(texts(6))]


@pytest.fixture(scope="module")
def loaded(llama: Path) -> tuple[object, object]:
    base = language.find(config.Model(base=str(llama)), config.Storage())
    tokenizer = language.load_tokenizer(base, None)
    assert tokenizer.pad_token_id is None
    return language.load(base, "causal", 0).eval(), tokenizer


def test_tokens_are_drawn_from_the_nucleus_as_transformers_cuts_it() -> None:
    torch.manual_seed(0)
    logits, rows = 2 * torch.randn(1, 30), 40_000
    wanted = TopPLogitsWarper(0.9)(None, logits).softmax(dim=1)[0].double().numpy()
    draw = _Drawn(np.random.default_rng(0).random((1, rows)), 0.9)
    shares = np.bincount(draw(None, logits.expand(rows, -1)).argmax(dim=1).numpy(), minlength=30) / rows
    assert not shares[wanted == 0].any() and 0 < (wanted > 0).sum() < 30
    assert np.abs(shares - wanted).max() < 4 * np.sqrt(0.25 / rows)


def test_the_whole_of_the_probability_and_a_single_token_can_be_drawn_from() -> None:
    logits = torch.tensor([[1.0, 9.0, 0.0]])
    assert _Drawn(np.array([[0.999]]), 0.5)(None, logits).argmax() == 1
    assert _Drawn(np.array([[1 - 1e-12]]), 1.0)(None, logits).argmax() == 2


def test_a_prompt_has_the_same_continuations_in_any_batch(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    alone = continuations(Subject(model, tokenizer, 128, 1), PROMPTS, 4, 6, 0.9, 1)
    together = continuations(Subject(model, tokenizer, 128, 10_000), PROMPTS[::-1], 4, 6, 0.9, 1)[::-1]
    assert alone == together
    assert all(len(each) == 4 for each in alone) and len({text for each in alone for text in each}) > 12
    assert continuations(Subject(model, tokenizer, 128, 1), PROMPTS[:1], 4, 6, 0.9, 2) != alone[:1]


def test_the_first_token_is_the_one_that_the_prompt_s_number_picks(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    ids = torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])
    with torch.inference_mode():
        ordered = model(input_ids=ids).logits[0, -1].double().softmax(0).sort(descending=True)
    upto = ordered.values.cumsum(0)
    mass = float(upto[int((upto < 0.9).sum())])
    numbers = stream(7, PROMPTS[0]).random((1, 3))[0]
    tokens = [int(ordered.indices[int((upto <= number * mass).sum())]) for number in numbers]
    made = continuations(Subject(model, tokenizer, 128, 1), PROMPTS[:1], 3, 1, 0.9, 7)[0]
    assert made == tokenizer.batch_decode([[token] for token in tokens], skip_special_tokens=True)


def test_a_prompt_that_is_too_long_keeps_its_end(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    long = " ".join(texts(20))
    assert len(tokenizer(long, verbose=False)["input_ids"]) > 128
    assert len(continuations(Subject(model, tokenizer, 128, 100), [long, ""], 2, 3, 0.9, 0)) == 2
