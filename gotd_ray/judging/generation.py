"""Continuations of prompts, drawn from the nucleus (Holtzman et al., 2020) by a seed for each prompt; and answers in
conversations, the likeliest token at a time.

Every draw is one uniform number of the prompt's own stream, so that a prompt has the same continuations in whatever
batch it stands, up to the rounding of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from gotd_ray.errors import UserError
from gotd_ray.judging.batches import by_length, check_numbers
from gotd_ray.judging.judge import Subject
from gotd_ray.models import chat
from gotd_ray.text.turns import ANSWER, USER, Conversation


class _Drawn(LogitsProcessor):
    """Leaves of each row's logits the one token that its next uniform number picks; the search that follows takes it.

    The nucleus is the smallest set of the likeliest tokens that holds at least ``top_p``.
    """

    def __init__(self, uniforms: np.ndarray, top_p: float):
        self._uniforms = torch.from_numpy(uniforms)  # (tokens, rows)
        self._top_p = top_p
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        shares = scores.double().softmax(dim=1)
        check_numbers(shares)
        ordered = shares.sort(dim=1, descending=True)
        upto = ordered.values.cumsum(dim=1)
        inside = (upto - ordered.values < self._top_p).double()
        mass = (ordered.values * inside).sum(dim=1)
        wanted = self._uniforms[self._step].to(scores.device) * mass
        self._step += 1
        place = ((upto <= wanted[:, None]) & (inside > 0)).sum(dim=1).clamp(max=scores.shape[1] - 1)
        token = ordered.indices.gather(1, place[:, None])
        return torch.full_like(scores, float("-inf")).scatter(1, token, 0.0)


def stream(seed: int, prompt: str) -> np.random.Generator:
    """The random numbers of one prompt."""
    return np.random.default_rng([seed, *blake2b(prompt.encode(), digest_size=16).digest()])


def continuations(
    subject: Subject, prompts: list[str], each: int, new_tokens: int, top_p: float, seed: int
) -> list[list[str]]:
    """``each`` continuations of each of n prompts, at temperature 1.

    A tokenizer without padding token will do: rows are padded with a token that the mask hides.

    Args:
        subject: a causal model.
        prompts: the prompts; of those too long for the model the end counts.
        each: continuations of a prompt.
        new_tokens: tokens of a continuation at the most; the end-of-text token ends it.
        top_p: share of the probability in the nucleus.
        seed: of the draws.

    Raises:
        UserError: the model's likelihoods are not numbers.
    """
    model, tokenizer, room = subject.model, subject.tokenizer, subject.window - new_tokens
    start_of_text = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), 0)
    encoded = [ids[-room:] or [start_of_text] for ids in tokenizer(prompts, verbose=False)["input_ids"]]
    pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)
    found: list[list[str]] = [[] for _ in prompts]
    for batch in by_length([each * (len(ids) + new_tokens) for ids in encoded], subject.batch_tokens):
        width = len(encoded[batch[0]])
        rows = [[pad] * (width - len(encoded[number])) + encoded[number] for number in batch]
        mask = [[0] * (width - len(encoded[number])) + [1] * len(encoded[number]) for number in batch]
        uniforms = np.concatenate([stream(seed, prompts[number]).random((new_tokens, each)) for number in batch], 1)
        inputs, seen = (torch.tensor(part, device=model.device).repeat_interleave(each, dim=0) for part in (rows, mask))
        with torch.inference_mode(), subject.cast():
            made = model.generate(
                input_ids=inputs,
                attention_mask=seen,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                max_new_tokens=new_tokens,
                pad_token_id=pad,
                eos_token_id=tokenizer.eos_token_id,
                logits_processor=LogitsProcessorList([_Drawn(uniforms, top_p)]),
            )
        texts = tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
        for place, number in enumerate(batch):
            found[number] = texts[place * each : (place + 1) * each]
    return found


def too_long(subject: Subject, prompts: list[str], new_tokens: int) -> np.ndarray:
    """(n,) bool, of which prompts only the end counts; see ``continuations``."""
    room = subject.window - new_tokens
    return np.array([len(ids) > room for ids in subject.tokenizer(prompts, verbose=False)["input_ids"]], bool)


class _Numbers(LogitsProcessor):
    """Holds likelihoods to being numbers."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        check_numbers(scores)
        return scores


class _Stopped(StoppingCriteria):
    """Ends the rows that have come to one of some strings."""

    def __init__(self, tokenizer: Any, width: int, stops: Sequence[str]):
        self._tokenizer, self._width, self._stops = tokenizer, width, stops

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
        texts = self._tokenizer.batch_decode(input_ids[:, self._width :])
        found = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(found, device=input_ids.device)


def end_mark(tokenizer: Any) -> str:
    """What the chat template puts behind an answer; empty where it puts nothing but white space."""
    said = "an answer"
    text = chat.render(tokenizer, ((USER, "a question"), (ANSWER, said)), asks=False)
    return text.rpartition(said)[2].strip()


def answer(
    subject: Subject, prompts: Sequence[Conversation], new_tokens: int, stop: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The likeliest answer, token by token, to each of n conversations, laid out by the chat template.

    Args:
        subject: a causal model, with a template.
        prompts: of those too long for the model the end counts.
        new_tokens: tokens of an answer at the most.
        stop: strings that end it, besides the end-of-text token and the template's mark; none of them is part of it.

    Returns:
        The answers, (n,) bool which of them came to an end, (n,) bool which prompts were cut.

    Raises:
        UserError: the model's likelihoods are not numbers, or the template does not take a conversation.
    """
    model, tokenizer, room = subject.model, subject.tokenizer, subject.window - new_tokens
    try:
        texts = [chat.render(tokenizer, turns, asks=True) for turns in prompts]
        stops = [one for one in (tokenizer.eos_token, end_mark(tokenizer), *stop) if one]
    except chat.Refused as error:
        raise UserError(
            f"the chat template does not take a conversation: {error}. Take it out of the set, or give another "
            "model.chat_template."
        ) from None
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    cut = np.array([len(ids) > room for ids in encoded], bool)
    encoded = [ids[-room:] for ids in encoded]
    pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)
    found, ended = [""] * len(texts), np.zeros(len(texts), bool)
    for batch in by_length([len(ids) + new_tokens for ids in encoded], subject.batch_tokens):
        width = len(encoded[batch[0]])
        rows = [[pad] * (width - len(encoded[number])) + encoded[number] for number in batch]
        mask = [[0] * (width - len(encoded[number])) + [1] * len(encoded[number]) for number in batch]
        with torch.inference_mode(), subject.cast():
            made = model.generate(
                input_ids=torch.tensor(rows, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                do_sample=False,
                num_beams=1,
                use_cache=True,
                max_new_tokens=new_tokens,
                pad_token_id=pad,
                eos_token_id=tokenizer.eos_token_id,
                logits_processor=LogitsProcessorList([_Numbers()]),
                stopping_criteria=StoppingCriteriaList([_Stopped(tokenizer, width, stops)]),
            )
        for number, text in zip(batch, tokenizer.batch_decode(made[:, width:]), strict=True):
            places = [place for one in stops if (place := text.find(one)) >= 0]
            found[number], ended[number] = text[: min(places, default=len(text))].strip(), bool(places)
    return found, ended, cut
