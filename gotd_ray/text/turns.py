"""Conversations: rows of several layouts to one form, a tuple of (role, content), and to the text that is embedded.

Contents stay as they are stored: white space counts in code and tables. What is embedded is cleaned like any text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from gotd_ray.text.names import kind_of

Conversation = tuple[tuple[str, str], ...]
"""Turns of (role, content), where a role is ``system``, ``user`` or ``assistant``."""

SYSTEM, USER, ANSWER = "system", "user", "assistant"

LAYOUTS = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "input", "output"))
"""What ``auto`` looks for, in this order: a column of turns, or columns of texts of which the last is the answer."""

_ROLES = {"system": SYSTEM, "user": USER, "human": USER, "assistant": ANSWER, "gpt": ANSWER}
"""Those of messages, and ShareGPT's."""

_ROLE_CHARS = 20


class NoConversation(ValueError):  # noqa: N818 - said of a row
    """Why a row holds none: a reason to count by, and a detail that never holds its text."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def layout_of(
    layouts: Sequence[tuple[str, ...]], keys: Collection[str], record: Mapping[str, object]
) -> tuple[str, ...] | None:
    """The first layout whose columns a row has; the middle ones may be absent. One that is null gives way to the next.

    Args:
        keys: all that the row has; record: at least its values of the layouts' columns.
    """
    there = [one for one in layouts if one[0] in keys and one[-1] in keys]
    return next((one for one in there if record.get(one[0]) is not None), there[0] if there else None)


def conversation(layout: tuple[str, ...], record: Mapping[str, object]) -> Conversation:
    """The turns of a row.

    Raises:
        NoConversation: it has none, or a bad one.
    """
    turns = tuple(_listed(record.get(layout[0])) if len(layout) == 1 else _of_texts(layout, record))
    if not any(role == ANSWER for role, _ in turns):
        raise NoConversation("no_answer", f"{len(turns)} turns")
    for number, (_, content) in enumerate(turns):
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise NoConversation("invalid_utf8", f"turn {number}: {error.reason} at character {error.start}") from None
    return turns


def _listed(value: object) -> Iterator[tuple[str, str]]:
    """Of role and content, or from and value; an empty system turn says nothing, and is passed over."""
    if not isinstance(value, list | tuple):
        raise NoConversation("bad_turns", kind_of(value))
    for number, turn in enumerate(value):
        if not isinstance(turn, Mapping):
            raise NoConversation("bad_turns", f"turn {number}: {kind_of(turn)}")
        named = turn.get("role") or turn.get("from")
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        role = _ROLES.get(named.strip().lower()) if isinstance(named, str) else None
        if role is None:
            known = named[:_ROLE_CHARS] if isinstance(named, str) else kind_of(named)
            raise NoConversation("unknown_role", f"turn {number}: {known}")
        if content is not None and not isinstance(content, str):
            raise NoConversation("bad_turns", f"turn {number}: its content is {kind_of(content)}")
        if content and content.strip():
            yield role, content
        elif role != SYSTEM:
            raise NoConversation("empty_turn", f"turn {number}")


def _of_texts(layout: tuple[str, ...], record: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """A prompt, of texts joined by a blank line, and an answer; empty parts of a prompt are passed over."""
    texts: list[str] = []
    for name in layout:
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            raise NoConversation("not_a_string", f"{name}: {kind_of(value)}")
        texts.append(value or "")
    prompt = "\n\n".join(text for text in texts[:-1] if text.strip())
    if not prompt:
        raise NoConversation("empty_turn", "prompt")
    if not texts[-1].strip():
        raise NoConversation("no_answer", layout[-1])
    yield from ((USER, prompt), (ANSWER, texts[-1]))


def text_of(turns: Conversation, text_from: str) -> str:
    """Contents joined by a blank line: of all turns, of the answers (``completion``), or of the others (``prompt``)."""
    wanted = {"all": lambda _: True, "prompt": lambda role: role != ANSWER, "completion": lambda role: role == ANSWER}
    return "\n\n".join(content for role, content in turns if wanted[text_from](role))


def as_messages(turns: Conversation) -> list[dict[str, str]]:
    """As chat templates and other tools take them."""
    return [{"role": role, "content": content} for role, content in turns]


def of_messages(messages: Iterable[Mapping[str, str]]) -> Conversation:
    """What ``as_messages`` gave."""
    return tuple((turn["role"], turn["content"]) for turn in messages)


def written(turns: Conversation) -> str:
    """As a text that holds all of it, for where a text is asked for."""
    return json.dumps(turns, ensure_ascii=False)


def read(text: str) -> Conversation:
    """What ``written`` gave."""
    return tuple((role, content) for role, content in json.loads(text))
