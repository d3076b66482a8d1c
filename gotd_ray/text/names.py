"""Names out of data, those of sources and of labels."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from gotd_ray.text.clean import clean

MOST_CHARS = 200
"""Characters of a name; longer ones are cut, as they go into reports."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A stored value that is neither text nor number nor truth value, by its kind."""

    kind: str


class NotAName(TypeError):  # noqa: N818 - said of a value
    """A value that names nothing, such as a list."""


def name_of(value: object) -> str | None:
    """The name that a value stands for, the same in every format; None where there is none (null, NaN, blank).

    Numbers of one value have one name, whatever their type: 1, 1.0 and "1" are "1". Truth values are "true" and
    "false", as JSON spells them.

    Raises:
        NotAName: the value is a list, an object, bytes or an infinite number.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return one_line(value) or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, int | float | Decimal):
        raise NotAName(kind_of(value))
    if value != value:
        return None
    if not isinstance(value, int) and abs(value) == float("inf"):
        raise NotAName("infinite")
    return one_line(str(int(value)) if value == int(value) else str(value))


def kind_of(value: object) -> str:
    """What a value is, for a message that must not hold it."""
    return value.kind if isinstance(value, Foreign) else "null" if value is None else type(value).__name__


@lru_cache(maxsize=4096)
def one_line(raw: str) -> str:
    """On one line and of bounded length: it comes out of the data and goes into reports."""
    return " ".join(clean(raw).split())[:MOST_CHARS].strip()
