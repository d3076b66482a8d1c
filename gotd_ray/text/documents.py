"""From files to documents: read, clean, split, name by content; what is left out is counted with its reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.storage import StoredFile, split_name
from gotd_ray.text.chunks import split
from gotd_ray.text.clean import clean
from gotd_ray.text.readers import BadFile, Problem, read_rows

__all__ = [
    "BAD_ROWS", "BadFile", "Document", "Labelled", "Tally", "check_bad_rows", "document_id", "read_documents",
    "source_of", "split_rows",
]  # fmt: skip

BAD_ROWS = frozenset(
    {
        "empty_text",
        "too_long",
        "broken_json",
        "not_a_string",
        "missing_column",
        "invalid_utf8",
        "bad_weight",
        "no_label",
    }
)
"""Reasons that mean a fault of the data. The others are choices: too_short, excluded_source, not_sampled, not_text."""

_EXAMPLES = 3
_DETAIL_CHARS = 80
_SOURCE_CHARS = 200


def document_id(text: str) -> str:
    """The name of a cleaned text: 32 hex characters, BLAKE2b with 128 bits of its UTF-8.

    It depends on the content alone: equal texts are one document, wherever and whenever they are read.
    """
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


@dataclass(slots=True)
class Document:
    """A candidate: one piece of one row of a file.

    Attributes:
        doc_id: see ``document_id``.
        text: cleaned, at most ``chunks.max_chars`` characters.
        source: name of where it comes from, for quotas and reports.
        path: uri of the file.
        row: row, line or record in the file, from 0.
        chunk: piece of the row, from 0.
        weight: the row's, which all its pieces carry.
    """

    doc_id: str
    text: str
    source: str
    path: str
    row: int
    chunk: int
    weight: float = 1.0


@dataclass
class Tally:
    """What reading came upon. Tallies merge to the same one in any order.

    Attributes:
        rows: rows read, whatever became of them.
        documents: candidates given.
        reasons: how many rows (pieces, for too_short and not_sampled) were left out, by reason.
        examples: the first three (path, row, detail) of each reason; details are escaped and hold no text.
    """

    rows: int = 0
    documents: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)

    @property
    def bad_rows(self) -> int:
        """Rows that the data's own faults made unusable."""
        return sum(count for reason, count in self.reasons.items() if reason in BAD_ROWS)

    def add(self, reason: str, path: str, row: int = -1, detail: str = "") -> None:
        """Count one; ``row`` is -1 for a whole file."""
        self.reasons[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _EXAMPLES or (path, row) < kept[-1][:2]:
            kept.append((path, row, ascii(detail)[1:-1][:_DETAIL_CHARS]))
            kept.sort()
            del kept[_EXAMPLES:]

    def merge(self, other: Tally) -> None:
        """Take in what another tally counted."""
        self.rows += other.rows
        self.documents += other.documents
        self.reasons.update(other.reasons)
        for reason, examples in other.examples.items():
            self.examples[reason] = sorted([*self.examples.get(reason, []), *examples])[:_EXAMPLES]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, in a fixed order."""
        return {
            "rows": self.rows,
            "documents": self.documents,
            "reasons": dict(sorted(self.reasons.items())),
            "examples": {reason: [list(one) for one in self.examples[reason]] for reason in sorted(self.examples)},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """The tally that ``to_dict`` wrote."""
        examples = {reason: [(p, r, d) for p, r, d in kept] for reason, kept in data["examples"].items()}
        return cls(data["rows"], data["documents"], Counter(data["reasons"]), examples)


class Labelled(config.Text):
    """Texts with a label each, which stands in ``source_column``: a row without one is bad."""

    @classmethod
    def of(cls, text: config.Text, column: str, paths: list[str] | None = None) -> Labelled:
        """Files read as others are, but for their labels."""
        changes = {"source_column": column, "paths": text.paths if paths is None else paths}
        return cls.model_construct(**(dict(text) | changes))


def check_bad_rows(where: str, tally: Tally, text: config.Text, section: str) -> None:
    """Hold the rows that are at fault against the limit.

    Args:
        where: what was read; section: where the limit stands.

    Raises:
        UserError: they are more.
    """
    if tally.bad_rows > text.max_bad_rows * tally.rows:
        raise UserError(
            f"{where}: {tally.bad_rows:,} of {tally.rows:,} rows are unusable ({dict(tally.reasons)}), and "
            f"{section}.max_bad_rows allows a share of {text.max_bad_rows:g}. Mend the data or raise it."
        )


def read_documents(
    file: StoredFile | str, text: config.Text, chunks: config.Chunks, storage: config.Storage, tally: Tally
) -> Iterator[Document]:
    """The documents of one file, in the file's order, streamed.

    Args:
        file: a listed file or its uri.
        text: where the text stands in a row, what is left out, and ``sample``.
        chunks: how a row becomes candidates.
        storage: how the file is opened.
        tally: counts what is read and left out, as the documents are taken.

    Raises:
        BadFile: the file broke; the documents before the break were given. The tally does not count it: a caller may
            want to read a transient one again first.
        UserError: a Parquet file lacks a column, or the column holds no text.
    """
    path = file if isinstance(file, str) else file.uri
    excluded = frozenset(text.exclude_sources)
    # The first 60 bits of an id are as good as a random number, and the same on every run.
    sampled_below = text.sample * 16**15 if text.sample < 1 else None
    for row, source, content, weight in split_rows(path, text, chunks, storage):
        tally.rows += 1
        if source in excluded:
            tally.add("excluded_source", path, row, source)
            continue
        if isinstance(content, Problem):
            tally.add(content.reason, path, row, content.detail)
            continue
        for chunk, piece in enumerate(content):
            if len(piece) < chunks.min_chars:
                tally.add("too_short", path, row, f"{len(piece)} characters")
                continue
            doc_id = document_id(piece)
            if sampled_below is not None and int(doc_id[:15], 16) >= sampled_below:
                tally.add("not_sampled", path, row)
                continue
            tally.documents += 1
            yield Document(doc_id, piece, source, path, row, chunk, weight)


def split_rows(
    path: str,
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
    wanted: Collection[int] | None = None,
) -> Iterator[tuple[int, str, list[str] | Problem, float]]:
    """Row, source, the row's cleaned pieces or its problem, and its weight: the one way from a file to candidates.

    Raises:
        BadFile, UserError: as ``read_documents``.
    """
    default = source_of(path, text.source_from)
    for row, content, named, weight in read_rows(path, text, storage, wanted):
        source = _source_name(named) or default if named else default
        if isinstance(text, Labelled) and not (named and named.strip()):
            yield row, source, Problem("no_label"), weight
        elif isinstance(content, str):
            cleaned = clean(content)
            yield row, source, split(cleaned, chunks.max_chars) if cleaned else Problem("empty_text"), weight
        else:
            yield row, source, content, weight


def source_of(path: str, source_from: str) -> str:
    """The source that a file's address names, see ``Text.source_from``: that of its rows without a name of theirs."""
    name = split_name(path)[0] if source_from == "stem" else path.rstrip("/").rpartition("/")[0].rpartition("/")[2]
    return _source_name(name) or "unnamed"


@lru_cache(maxsize=4096)
def _source_name(raw: str) -> str:
    """On one line and of bounded length: it comes out of the data and goes into reports."""
    return " ".join(clean(raw).split())[:_SOURCE_CHARS].strip()
