"""Conversations to tokens by a tokenizer's chat template, and which of the tokens are an answer's.

What an answer is, the template says by itself: what it puts behind the prompt with which the model is asked for it, up
to the mark that ends it. The mark is learnt, or a model would not know when to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jinja2 import TemplateError

from gotd_ray.text.turns import ANSWER, Conversation, as_messages

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What ``chatml`` stands for in the settings."""


class Refused(ValueError):  # noqa: N818 - said of a conversation
    """A template that cannot lay a conversation out, and why."""


class Piece(NamedTuple):
    """k tokens of a conversation.

    Attributes:
        ids: (k,) int32.
        learnt: (k,) bool, those of the answers.
        cut: whether an answer goes on behind them.
    """

    ids: np.ndarray
    learnt: np.ndarray
    cut: bool


def template_of(given: str | None) -> str | None:
    """The template that the settings mean."""
    return CHATML if given == "chatml" else given


def render(tokenizer: Any, turns: Sequence[tuple[str, str]], *, asks: bool) -> str:
    """A conversation as the model sees it; ``asks``: up to where an answer begins.

    Raises:
        Refused: the template does not take it.
    """
    try:
        return tokenizer.apply_chat_template(as_messages(tuple(turns)), tokenize=False, add_generation_prompt=asks)
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        roles = ", ".join(role for role, _ in turns[:6])
        raise Refused(f"{type(error).__name__}: {' '.join(str(error).split())[:120]} (turns of {roles})") from None


def answers_in(tokenizer: Any, turns: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as the model sees it, and where in it the answers with their end marks stand, in characters.

    Raises:
        Refused: the template does not take it, or writes the beginning of a conversation otherwise once it goes on, so
            that it cannot be told where an answer stands.
    """
    text, spans = render(tokenizer, turns, asks=False), []
    for number, (role, content) in enumerate(turns):
        if role != ANSWER:
            continue
        before = render(tokenizer, turns[:number], asks=True)
        upto = render(tokenizer, turns[: number + 1], asks=False)
        if not (text.startswith(upto) and upto.startswith(before)):
            raise Refused(f"it writes turn {number} otherwise once the conversation goes on")
        start = len(before)
        if not upto[start:].startswith(content):  # a template that strips, or does not ask
            start = max(start, upto.find(content.strip(), start))
        spans.append((start, len(upto.rstrip())))
    return text, spans


def encode(tokenizer: Any, turns: Conversation, max_tokens: int) -> Piece:
    """The first ``max_tokens`` tokens up to the last answer's end; where the template marks no end, or not by the
    end-of-text token, that token follows the last turn's answer.

    A token that is partly of a prompt is none of the answer.

    Raises:
        Refused: see :func:`answers_in`.
    """
    text, spans = answers_in(tokenizer, turns)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, places = list(encoded["input_ids"]), np.array(encoded["offset_mapping"]).reshape(-1, 2)
    learnt = np.zeros(len(ids), bool)
    for start, end in spans:
        learnt |= (places[:, 0] >= start) & (places[:, 1] <= end) & (places[:, 0] < places[:, 1])
    size = int(np.flatnonzero(learnt).max(initial=-1)) + 1
    ids, learnt = ids[:size], learnt[:size]
    stop = tokenizer.eos_token_id
    if stop is not None and turns[-1][0] == ANSWER and ids[-1:] != [stop]:
        ids, learnt = [*ids, stop], np.append(learnt, True)
    return Piece(np.array(ids[:max_tokens], np.int32), learnt[:max_tokens], len(ids) > max_tokens)
