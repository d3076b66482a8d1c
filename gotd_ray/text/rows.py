"""What a reader gives: a row with its text, or with what is wrong with it, and the names that it carries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from gotd_ray import config
from gotd_ray.text.names import NotAName, kind_of, name_of, text_names

_LARGEST_WEIGHT = 3.4e38  # what the index's float32 holds


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row gives no text: a reason to count by, and a detail that never holds the text."""

    reason: str
    detail: str = ""


class Row(NamedTuple):
    """A row of a file, a line, or a record.

    Attributes:
        number: in the file, from 0.
        content: its text, or what is wrong with it.
        source: the source that it names, if it does.
        weight: of its text; 0 where there is a problem.
        label: the label that it names, if labels are read and it has one.
        keys: names of its columns or keys; None where it has none, or cannot be read.
    """

    number: int
    content: str | Problem
    source: str | None = None
    weight: float = 1.0
    label: str | None = None
    keys: Collection[str] | None = None


class BadFile(Exception):  # noqa: N818 - named for what it counts
    """A file that broke while it was read; the rows before the break were already given.

    Attributes:
        reason: ``vanished``, ``no_permission``, ``io_error`` (transient), ``truncated``, ``unreadable``,
            ``ambiguous_column`` (not).
        detail: what the storage or the decoder said.
        transient: whether reading again may help.
    """

    def __init__(self, reason: str, detail: str, transient: bool) -> None:
        super().__init__(reason, detail, transient)
        self.reason, self.detail, self.transient = reason, detail, transient

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class Wanted:
    """The columns or keys that the settings name."""

    texts: tuple[str, ...]
    source: str | None
    weight: str | None
    label: str | None

    @classmethod
    def of(cls, text: config.Text) -> Wanted:
        label = getattr(text, "label_column", None)
        return cls(tuple(text_names(text)), text.source_column, text.weight_column, label)

    @property
    def others(self) -> list[str]:
        """Those that hold no text."""
        return list(dict.fromkeys(name for name in (self.source, self.weight, self.label) if name))

    @cached_property
    def all(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys([*self.texts, *self.others]))


def decoded(value: bytes | None, limit: int) -> str | Problem:
    """The text of at most ``limit`` bytes of UTF-8."""
    if value is None:
        return Problem("empty_text", "null")
    if len(value) > limit:
        return Problem("too_long", f"more than {limit:,} bytes")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem("invalid_utf8", f"{error.reason} at byte {error.start}")


def joined(parts: Sequence[str | Problem], wanted: Wanted) -> str | Problem:
    """Columns joined by a blank line; null and empty ones are passed over, any other problem spoils the row."""
    if not parts:
        return Problem("missing_column", f"no {', '.join(wanted.texts)}")
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if isinstance(part, Problem) and part.reason != "empty_text":
            return part
    texts = [part for part in parts if isinstance(part, str) and part]
    return "\n\n".join(texts) if texts else Problem("empty_text")


def row_of(
    number: int, content: str | Problem, keys: Collection[str], wanted: Wanted, record: Mapping[str, object]
) -> Row:
    """A row of columns or keys; what is wrong with its source, label or weight is its content's problem.

    Args:
        keys: all that it has; record: at least its values of ``wanted.others``, as they were stored.
    """
    source = label = None
    try:
        source = name_of(record.get(wanted.source)) if wanted.source else None
    except NotAName as error:
        content = _first(content, Problem("bad_source", str(error)))
    if wanted.label:
        value = record.get(wanted.label)
        try:
            label = name_of(value)
            content = content if label else _first(content, Problem("no_label", kind_of(value)))
        except NotAName as error:
            content = _first(content, Problem("bad_label", str(error)))
    content, weight = _weighed(content, record.get(wanted.weight) if wanted.weight else 1.0)
    return Row(number, content, source, weight, label, keys)


def _first(content: str | Problem, problem: Problem) -> Problem:
    return content if isinstance(content, Problem) else problem


def _weighed(content: str | Problem, value: object) -> tuple[str | Problem, float]:
    """The text with its weight, a finite number of at least 0, or what is wrong with either."""
    if isinstance(content, Problem):
        return content, 0.0
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return Problem("bad_weight", kind_of(value)), 0.0
    if not 0 <= value <= _LARGEST_WEIGHT:
        detail = "not a number" if value != value else "negative" if value < 0 else "too large"
        return Problem("bad_weight", detail), 0.0
    return content, float(value)


def without_columns(number: int, content: str | Problem, wanted: Wanted) -> Row:
    """A row of a format that has no columns: it names no source, and lacks a weight or label that it should have."""
    if wanted.label or wanted.weight:
        content = _first(content, Problem("no_label" if wanted.label else "bad_weight", "a file without columns"))
    return Row(number, content, weight=0.0 if isinstance(content, Problem) else 1.0)
