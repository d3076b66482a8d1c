"""What reading came upon, counted: rows and documents, what was left out and why, which configured names were found."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.filesystems import shown
from gotd_ray.text.formats import FAULTS
from gotd_ray.text.names import one_line
from gotd_ray.text.rows import AUTO, Columns
from gotd_ray.text.turns import LAYOUTS, layout_of

BAD_ROWS = FAULTS | {
    "empty_text",
    "too_long",
    "not_a_string",
    "missing_column",
    "invalid_utf8",
    "bad_weight",
    "bad_source",
    "no_label",
    "bad_label",
    "bad_turns",
    "unknown_role",
    "empty_turn",
    "no_answer",
}
"""Reasons that mean a fault of the data. The others are choices: too_short, excluded_source, not_sampled, sieved_out,
not_text."""

_EXAMPLES = 3
_DETAIL_CHARS = 80
_NAMES = 20
_NAME_CHARS = 60


@dataclass
class Tally:
    """What reading came upon. Tallies merge to the same one in any order.

    Attributes:
        rows: rows read, whatever became of them.
        documents: candidates given.
        reasons: how many rows (pieces, for too_short, not_sampled and sieved_out) were left out, by reason.
        examples: the first three (path, row, detail) of each reason; details are escaped and hold no text.
        named_rows: of the rows, those whose parts have names: readable rows of formats with columns.
        columns: of those, how many have each column or key that the settings name.
        unnamed: rows that should name their source and do not; they took the one that their file's address names.
        excluded: rows left out by their source, by source.
        layouts: of the rows that hold conversations, how many stand in which columns.
        seen: some names that rows without a wanted one have: the first 20 in order, cut, safe to print.
    """

    rows: int = 0
    documents: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    named_rows: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    unnamed: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    seen: list[str] = field(default_factory=list)

    @property
    def bad_rows(self) -> int:
        """Rows that the data's own faults made unusable."""
        return sum(count for reason, count in self.reasons.items() if reason in BAD_ROWS)

    def add(self, reason: str, path: str, row: int = -1, detail: str = "") -> None:
        """Count one; ``row`` is -1 for a whole file."""
        self.reasons[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _EXAMPLES or (path, row) < kept[-1][:2]:
            kept.append((path, row, _escaped(detail, _DETAIL_CHARS)))
            kept.sort()
            del kept[_EXAMPLES:]

    def look_for(self, wanted: Collection[str], keys: Collection[str]) -> None:
        """Count which of the wanted names are among a row's."""
        self.named_rows += 1
        missing = False
        for name in wanted:
            if name in keys:
                self.columns[name] += 1
            else:
                missing = True
        if missing:
            self._show(map(_printable, keys))

    def _show(self, names: Iterable[str]) -> None:
        full = len(self.seen) == _NAMES
        if new := {name for name in names if name not in self.seen and not (full and name > self.seen[-1])}:
            self.seen = sorted([*self.seen, *new])[:_NAMES]

    def merge(self, other: Tally) -> None:
        """Take in what another tally counted."""
        self.rows += other.rows
        self.documents += other.documents
        self.reasons.update(other.reasons)
        for reason, examples in other.examples.items():
            self.examples[reason] = sorted([*self.examples.get(reason, []), *examples])[:_EXAMPLES]
        self.named_rows += other.named_rows
        self.columns.update(other.columns)
        self.unnamed += other.unnamed
        self.excluded.update(other.excluded)
        self.layouts.update(other.layouts)
        self._show(other.seen)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, in a fixed order."""
        counts = vars(self).items()
        return {name: dict(sorted(one.items())) if isinstance(one, dict) else one for name, one in counts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """The tally that ``to_dict`` wrote; what is not in it is 0."""
        counters = {name: Counter(data.get(name, {})) for name in ("reasons", "columns", "excluded", "layouts")}
        examples = {reason: [(p, r, d) for p, r, d in kept] for reason, kept in data["examples"].items()}
        return cls(**dict(data) | counters | {"examples": examples})

    def why(self) -> str:
        """What was left out, in words."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.reasons.items()))
        return f"{self.rows:,} rows read, left out: {reasons or 'none'}"

    def faults(self) -> str:
        """Where the first row of some faults stands, in words."""
        found = []
        for reason in sorted(BAD_ROWS.intersection(self.examples))[:_EXAMPLES]:
            path, row, detail = self.examples[reason][0]
            found.append(f"{shown(path)} row {row}: {reason}" + (f" ({detail})" if detail else ""))
        return "; ".join(found)


@lru_cache(maxsize=4096)
def _printable(key: str) -> str:
    return shown(key)[:_NAME_CHARS]


def _escaped(text: str, chars: int) -> str:
    return ascii(text)[1:-1][:chars]


def check_bad_files(where: str, bad: Sequence[str], files: int, text: config.Text, section: str) -> None:
    """Hold the files that cannot be read against the limit.

    Args:
        where: what was read; section: where the limit stands.
        bad: of each such file, its address and what is wrong with it; files: of all there are.

    Raises:
        UserError: they are more.
    """
    if len(bad) > text.max_bad_files * files:
        raise UserError(
            f"{where}: {len(bad):,} of {files:,} files cannot be read, and {section}.max_bad_files allows a share of "
            f"{text.max_bad_files:g}. Repair or remove them, or raise it. {'; '.join(bad[:_EXAMPLES])}"
        )


def check_bad_rows(where: str, tally: Tally, text: config.Text, section: str) -> None:
    """Hold the rows that are at fault against the limit.

    Args:
        where: what was read; section: where the limit stands.

    Raises:
        UserError: they are more.
    """
    if tally.bad_rows > text.max_bad_rows * tally.rows:
        columns = f" The columns are {_listed(tally.seen)}." if tally.reasons["missing_column"] and tally.seen else ""
        raise UserError(
            f"{where}: {tally.bad_rows:,} of {tally.rows:,} rows are unusable ({dict(sorted(tally.reasons.items()))}), "
            f"and {section}.max_bad_rows allows a share of {text.max_bad_rows:g}. Correct the data, name the right "
            f"columns, or raise it.{columns} {tally.faults()}"
        )


def check_names(
    where: str, tally: Tally, text: config.Text, section: str, exact: bool, sources: Collection[str] = ()
) -> list[str]:
    """Hold the names in the settings against those that the rows have.

    Args:
        where: what was read.
        section: where the settings stand that it was read by; ``where`` itself if they are its own. A set that borrows
            them (a development set those of the target) need not hold the sources that they exclude.
        exact: all of it was read; else a name that was not found may stand in what was not.
        sources: some that were found, to show.

    Returns:
        Sentences to tell: names that not all rows have, and, unless ``exact``, those that none of the rows read has.

    Raises:
        UserError: ``exact``, and a name matches nothing.
    """
    unread = sum(tally.reasons[reason] for reason in FAULTS | {"invalid_utf8", "too_long"})
    if not tally.named_rows and unread == tally.rows:
        return []
    own = where == section
    columns = Columns.of(text)
    missing, told = [], []
    for key, name in columns.keys:
        found = tally.columns[name]
        if not found and _needed(key, tally, text, own):
            missing.append(f"{where} has no column '{name}' ({key}); {_has(tally, name)}{_hint(key, tally, section)}")
        elif key == "source_column":
            if tally.unnamed and own:
                told.append(
                    f"{where}: {tally.unnamed:,} of {tally.rows:,} rows name no source in '{name}' (source_column): "
                    "theirs is that of their file's name"
                )
        elif found < tally.named_rows:
            others = key == "text_column" and len(columns.texts) > 1
            others = others or (key == "turns" and len(columns.turns) > 2 and name in columns.turns[1:-1])
            what = "their text is that of the other columns" if others else "they are left out"
            told.append(
                f"{where}: {tally.named_rows - found:,} of {tally.named_rows:,} rows have no '{name}' ({key}): {what}"
            )
    if text.turns == AUTO and tally.layouts:
        among = ", ".join(f"{count:,} in {name}" for name, count in sorted(tally.layouts.items()))
        told.append(
            f"{where}: {tally.layouts.total():,} of {tally.rows:,} rows hold conversations: {among} (turns: auto)"
        )
    if own and not tally.named_rows and text.text_column != config.Text.model_fields["text_column"].default:
        told.append(f"{where}: its files have no columns, so text_column '{text.text_column}' does nothing")
    for name in text.exclude_sources if own else ():
        if not tally.excluded[one_line(name)]:
            like = nearest(name, sources)
            missing.append(f"{section}.exclude_sources names '{name}', but no row is of that source{like}")
    if missing and exact:
        raise UserError(f"{missing[0]}. Correct the name, or leave it out.")
    return [f"{words} (only a part was read)" for words in missing] + told


def _needed(key: str, tally: Tally, text: config.Text, own: bool) -> bool:
    """Whether a name that no row has makes a difference."""
    if key == "text_column":
        return tally.named_rows > 0  # a whole file is a text, whatever the column is called
    return own or key != "source_column" or bool(text.exclude_sources)


def _hint(key: str, tally: Tally, section: str) -> str:
    looks = key == "text_column" and layout_of(LAYOUTS, tally.seen, {})
    return f". Its rows look like conversations: then set {section}.turns to {AUTO}" if looks else ""


def _has(tally: Tally, name: str) -> str:
    if not tally.named_rows:
        return "its files have no columns"
    return f"it has {_listed(tally.seen)}{nearest(name, tally.seen)}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def nearest(name: str, known: Collection[str]) -> str:
    """A question that offers the likeliest of some names, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
