"""A look at the input before anything is started: is it there, is it what the settings say, how much is it?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.filesystems import shown, split_name
from gotd_ray.listing import StoredFile
from gotd_ray.text.documents import Document, read_documents
from gotd_ray.text.formats import format_of
from gotd_ray.text.names import one_line
from gotd_ray.text.rows import BadFile
from gotd_ray.text.tally import Tally, check_bad_files, check_bad_rows, check_names, nearest

EXACT_BYTES = 16 << 20
"""Corpora up to this size are read whole, in some seconds: their count is exact."""

SAMPLE_FILES = 8
SAMPLE_DOCUMENTS = 1000
"""Documents read from each sampled file of a larger corpus."""

SAMPLE_TEXTS = 2000
"""Texts that are kept of a collection."""

_PACKED_BYTES_PER_CHARACTER = 0.4
"""Of files that are compressed as a whole, see ``Format.bytes_per_character``."""


@dataclass
class Count:
    """What a collection holds.

    Attributes:
        files, bytes: of all.
        exact: all files were read, but for what those of ``bad_files`` hold.
        documents: of all files, an estimate where that is not exact.
        ids: of the documents read; their characters.
        sample: some texts, to time the encoder on.
        sources, labels: of the documents read; labels where they are read.
        weighted: sources that have a document of positive weight.
        warnings: sentences to show: names in the settings that match nothing so far, or not everywhere.
    """

    files: int
    bytes: int
    exact: bool
    documents: int = 0
    read: int = 0
    characters: int = 0
    ids: set[str] = field(default_factory=set)
    sample: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    weighted: set[str] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    bad_files: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    @property
    def mean_chars(self) -> float:
        return self.characters / self.read if self.read else 0.0

    @property
    def distinct(self) -> int:
        """Different texts among the documents read."""
        return len(self.ids)

    def take(self, document: Document) -> None:
        """Count one."""
        self.read += 1
        self.characters += len(document.text)
        self.ids.add(document.doc_id)
        self.sources.add(document.source)
        if document.weight > 0:
            self.weighted.add(document.source)
        if document.label is not None:
            self.labels.add(document.label)
        if len(self.sample) < SAMPLE_TEXTS:
            self.sample.append(document.text)

    def why_empty(self) -> str:
        """The reasons for which rows were left out, in words."""
        bad = f", {len(self.bad_files)} unreadable files ({'; '.join(self.bad_files[:3])})" if self.bad_files else ""
        return self.tally.why() + bad


def count_documents(
    where: str,
    section: str,
    files: list[StoredFile],
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
    *,
    whole: bool = False,
) -> Count:
    """Count a collection: exactly when it is small, else from the start of some files spread over it.

    Args:
        where: what it is called in messages, such as ``corpus``.
        section: where the keys stand that it is read by; ``where`` itself if they are its own.
        whole: it will be read by ``sets.read_set``, which takes no set with an unreadable file.

    Raises:
        UserError: more files or rows of those read are bad than ``max_bad_files`` and ``max_bad_rows`` allow; all was
            read, and a name in the settings matches nothing.
    """
    count = Count(len(files), sum(file.size for file in files), is_small(files))
    step = 1 if count.exact else max(1, len(files) // SAMPLE_FILES)
    for file in files[::step]:
        before = count.read
        try:
            documents = read_documents(file, text, chunks, storage, count.tally)
            for document in islice(documents, None if count.exact else SAMPLE_DOCUMENTS):
                count.take(document)
        except BadFile as problem:
            count.bad_files.append(shown(f"{file.uri}: {problem}"))
        count.documents += step * _estimate(file, count.read - before, count.mean_chars, text)
    if count.exact:
        count.documents = count.read
    if whole and count.bad_files:
        raise UserError(f"{where}: a file cannot be read. Repair it, or take it out. {count.bad_files[0]}")
    check_bad_files(where, count.bad_files, len(files), text, section)
    all_read = count.exact and not count.bad_files
    count.warnings = tuple(check_names(where, count.tally, text, section, all_read, count.sources))
    check_bad_rows(where, count.tally, text, section)
    return count


def is_small(files: Collection[StoredFile]) -> bool:
    """Whether files are read whole before a run."""
    return sum(file.size for file in files) <= EXACT_BYTES


def look_at_part(
    where: str, files: list[StoredFile], text: config.Text, chunks: config.Chunks, storage: config.Storage
) -> Count:
    """Read the start of a large set that is read as the target is: it shows that it can be read.

    Raises:
        UserError: as :func:`count_documents`; there is no text.
    """
    count = count_documents(where, "target", files, text, chunks, storage, whole=True)
    if not count.documents:
        raise UserError(f"{where} has no text: {count.why_empty()}. Check its paths and its text column.")
    return count


def check_sources(key: str, names: Collection[str], count: Count) -> list[str]:
    """Hold sources that a setting names against those there are.

    Args:
        key: the setting, such as ``survey.always``.
        count: of the collection whose sources are meant.

    Returns:
        Sentences to tell, where not all was read.

    Raises:
        UserError: all was read, and there is no such source.
    """
    unknown = [name for name in names if one_line(name) not in count.sources]
    told = [f"{key} names '{name}', but no row is of that source{nearest(name, count.sources)}" for name in unknown]
    if told and count.exact and not count.bad_files:
        raise UserError(f"{told[0]}. Correct the name, or leave it out.")
    return [f"{words} (only a part was read)" for words in told]


def _estimate(file: StoredFile, found: int, mean_chars: float, text: config.Text) -> int:
    """Documents of a file of which at most SAMPLE_DOCUMENTS were read."""
    if found < SAMPLE_DOCUMENTS or not mean_chars:
        return found
    known = format_of(file.uri, text.format)
    assert known is not None
    density = _PACKED_BYTES_PER_CHARACTER if split_name(file.uri)[2] else known.bytes_per_character
    return max(found, int(file.size / (density * mean_chars) * text.sample))
