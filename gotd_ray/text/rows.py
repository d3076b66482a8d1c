"""What a reader gives: a row with its text, or with what is wrong with it, and the names that it carries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

from gotd_ray import config
from gotd_ray.config.text import columns_of
from gotd_ray.text.names import NotAName, kind_of, name_of
from gotd_ray.text.turns import LAYOUTS, Conversation, NoConversation, conversation, layout_of, text_of

BOM = b"\xef\xbb\xbf"
"""The mark of byte order, which some editors put before UTF-8."""

AUTO = "auto"

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
        turns: the conversation that it holds, where such are read; its content is made of them.
        layout: the columns that these stand in.
    """

    number: int
    content: str | Problem
    source: str | None = None
    weight: float = 1.0
    label: str | None = None
    keys: Collection[str] | None = None
    turns: Conversation | None = None
    layout: tuple[str, ...] | None = None


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
class Columns:
    """The columns or keys that the settings name."""

    texts: tuple[str, ...]
    source: str | None
    weight: str | None
    label: str | None
    layouts: tuple[tuple[str, ...], ...] = ()
    """Of conversations, one of which a row may have; then no column is a text by itself."""
    text_from: str = "all"

    @classmethod
    def of(cls, text: config.Text) -> Columns:
        label = getattr(text, "label_column", None)
        others = text.source_column, text.weight_column, label
        if text.turns is None:
            return cls(tuple(columns_of(text.text_column)), *others)
        return cls((), *others, LAYOUTS if text.turns == AUTO else (tuple(columns_of(text.turns)),), text.text_from)

    @cached_property
    def keys(self) -> list[tuple[str, str]]:
        """The setting that names it, and its name."""
        others = {"source_column": self.source, "weight_column": self.weight, "label_column": self.label}
        turns = self.turns if len(self.layouts) == 1 else []  # of several layouts a row has but one
        return [
            *(("text_column", name) for name in self.texts),
            *(("turns", name) for name in turns),
            *((key, name) for key, name in others.items() if name),
        ]

    @cached_property
    def turns(self) -> list[str]:
        """The columns of all layouts."""
        return [name for layout in self.layouts for name in layout]

    @cached_property
    def others(self) -> list[str]:
        """The names of those that hold no text, each once."""
        return list(dict.fromkeys(name for key, name in self.keys if key not in ("text_column", "turns")))

    @cached_property
    def all(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys([*(name for _, name in self.keys), *self.turns]))

    @cached_property
    def words(self) -> list[str]:
        """Keys that may be written in an object: the names, and the parts of those with dots."""
        return list(dict.fromkeys(part for name in self.all for part in (name, *name.split("."))))

    @cached_property
    def dotted(self) -> list[str]:
        """Those of them that may lead into an object: ``meta.text``."""
        return [name for name in self.all if "." in name]

    def held(self, names: Sequence[str]) -> list[str]:
        """Those that a table has.

        Raises:
            BadFile: it has one of them twice.
        """
        for name in self.all:
            if names.count(name) > 1:
                raise BadFile("ambiguous_column", f"{names.count(name)} columns are called {name!r}", transient=False)
        return [name for name in self.all if name in names]


NOWHERE = object()
"""What ``reach`` gives where there is nothing."""


def reach(record: Mapping[str, Any], name: str) -> Any:
    """The value of a name, or of one with dots, such as ``meta.text``, in the objects that it leads through.

    A key that holds the dots itself comes first.
    """
    if name in record:
        return record[name]
    for place in (place for place, sign in enumerate(name) if sign == "."):
        inner = record.get(name[:place])
        if isinstance(inner, Mapping) and (found := reach(inner, name[place + 1 :])) is not NOWHERE:
            return found
    return NOWHERE


def decoded(value: bytes | None, limit: int) -> str | Problem:
    """The text of at most ``limit`` bytes of UTF-8."""
    if value is None:
        return Problem("empty_text", "null")
    if len(value) > limit:
        return too_long(limit)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem("invalid_utf8", f"{error.reason} at byte {error.start}")


def too_long(limit: int) -> Problem:
    return Problem("too_long", f"more than {limit:,} bytes")


def joined(parts: Sequence[str | Problem], columns: Columns) -> str | Problem:
    """Columns joined by a blank line; null and empty ones are passed over, any other problem spoils the row."""
    if not parts:
        return Problem("missing_column", f"no {', '.join(columns.texts)}")
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if isinstance(part, Problem) and part.reason != "empty_text":
            return part
    texts = [part for part in parts if isinstance(part, str) and part]
    return "\n\n".join(texts) if texts else Problem("empty_text")


def row_of(
    number: int, content: str | Problem, keys: Collection[str], columns: Columns, record: Mapping[str, object]
) -> Row:
    """A row of columns or keys; what is wrong with its source, label or weight is its content's problem.

    Args:
        content: its text, where no conversations are read.
        keys: all that it has; record: at least its values of ``columns.others`` and ``columns.turns``, as they were
            stored; of texts of these what ``decoded`` gives.
    """
    source = label = turns = layout = None
    if columns.layouts:
        content, turns, layout = _conversation(keys, columns, record)
    try:
        source = name_of(record.get(columns.source)) if columns.source else None
    except NotAName as error:
        content = _first(content, Problem("bad_source", str(error)))
    if columns.label:
        value = record.get(columns.label)
        try:
            label = name_of(value)
            content = content if label else _first(content, Problem("no_label", kind_of(value)))
        except NotAName as error:
            content = _first(content, Problem("bad_label", str(error)))
    content, weight = _weighed(content, record.get(columns.weight) if columns.weight else 1.0)
    return Row(number, content, source, weight, label, keys, turns, layout)


def _conversation(
    keys: Collection[str], columns: Columns, record: Mapping[str, object]
) -> tuple[str | Problem, Conversation | None, tuple[str, ...] | None]:
    """The text of a row's turns, or what is wrong with them; the turns; the columns that they stand in."""
    layout = layout_of(columns.layouts, keys, record)
    if layout is None:
        return Problem("missing_column", f"no {' nor '.join(' and '.join(one) for one in columns.layouts)}"), None, None
    for name in layout:
        if isinstance(value := record.get(name), Problem) and value.reason != "empty_text":
            return value, None, layout
    try:
        turns = conversation(layout, record)
    except NoConversation as error:
        return Problem(error.reason, error.detail), None, layout
    return text_of(turns, columns.text_from), turns, layout


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


def without_columns(number: int, content: str | Problem, columns: Columns) -> Row:
    """A row of a format that has no columns: it names no source, and lacks a weight or label that it should have."""
    if columns.layouts:
        content = _first(content, Problem("bad_turns", "a file without columns"))
    if columns.label or columns.weight:
        content = _first(content, Problem("no_label" if columns.label else "bad_weight", "a file without columns"))
    return Row(number, content, weight=0.0 if isinstance(content, Problem) else 1.0)
