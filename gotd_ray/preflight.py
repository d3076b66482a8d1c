"""A look at the input before anything is started: is it there, is it what the settings say, how much is it?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.storage import StoredFile, split_name
from gotd_ray.text.documents import BadFile, Tally, read_documents

EXACT_BYTES = 16 << 20
"""Corpora up to this size are read whole, in some seconds: their count is exact."""

SAMPLE_FILES = 8
SAMPLE_DOCUMENTS = 1000
"""Documents read from each sampled file of a larger corpus."""

_BYTES_PER_CHARACTER = {"": 1.05, ".gz": 0.4, ".zst": 0.4, ".parquet": 0.55}
"""Stored bytes per character of text, roughly: the estimate says 'about'."""


@dataclass(frozen=True)
class Count:
    """What a collection holds."""

    files: int
    bytes: int
    documents: int
    exact: bool
    mean_chars: float
    sample: list[str]
    """Some texts, to time the encoder on."""

    sources: frozenset[str]
    """Of the documents read."""

    labels: frozenset[str]
    """Likewise, where labels are read."""

    tally: Tally
    bad_files: list[str]

    def why_empty(self) -> str:
        """The reasons for which rows were left out, in words."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.tally.reasons.items()))
        bad = f", {len(self.bad_files)} unreadable files" if self.bad_files else ""
        return f"{self.tally.rows} rows read, left out: {reasons or 'none'}{bad}"


def count_documents(
    files: list[StoredFile], text: config.Text, chunks: config.Chunks, storage: config.Storage
) -> Count:
    """Count a collection: exactly when it is small, else from the start of some files spread over it.

    Raises:
        UserError: a column is missing; more rows of those read are bad than ``max_bad_rows`` allows.
    """
    total = sum(file.size for file in files)
    exact = total <= EXACT_BYTES
    step = 1 if exact else max(1, len(files) // SAMPLE_FILES)
    tally = Tally()
    bad: list[str] = []
    texts: list[str] = []
    sources: set[str] = set()
    labels: set[str] = set()
    documents = characters = estimated = 0
    for file in files[::step]:
        found = 0
        try:
            for document in islice(
                read_documents(file, text, chunks, storage, tally), None if exact else SAMPLE_DOCUMENTS
            ):
                found += 1
                characters += len(document.text)
                sources.add(document.source)
                if document.label is not None:
                    labels.add(document.label)
                if len(texts) < 2000:
                    texts.append(document.text)
        except BadFile as problem:
            bad.append(f"{file.uri}: {problem.reason}")
        documents += found
        estimated += _estimate(file, found, characters / documents if documents else 0.0, text.sample)
    if tally.bad_rows > text.max_bad_rows * tally.rows:
        raise UserError(
            f"{tally.bad_rows:,} of the first {tally.rows:,} rows are unusable ({dict(tally.reasons)}); examples: "
            f"{_examples(tally)}. max_bad_rows allows a share of {text.max_bad_rows:g}: mend the data, name the right "
            "text_column, or raise it."
        )
    return Count(
        files=len(files),
        bytes=total,
        documents=documents if exact else estimated * step,
        exact=exact,
        mean_chars=characters / documents if documents else 0.0,
        sample=texts,
        sources=frozenset(sources),
        labels=frozenset(labels),
        tally=tally,
        bad_files=bad,
    )


def _estimate(file: StoredFile, found: int, mean_chars: float, sample: float) -> int:
    """Documents of a file of which at most SAMPLE_DOCUMENTS were read."""
    if found < SAMPLE_DOCUMENTS or not mean_chars:
        return found
    _, ending, packed = split_name(file.uri)
    density = _BYTES_PER_CHARACTER.get(packed or ending, _BYTES_PER_CHARACTER[""])
    return max(found, int(file.size / (density * mean_chars) * sample))


def _examples(tally: Tally) -> str:
    shown = [f"{path} row {row}: {reason}" for reason, rows in tally.examples.items() for path, row, _ in rows[:1]]
    return "; ".join(shown[:3])
