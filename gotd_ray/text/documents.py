"""From files to documents: read, clean, split, name by content; what is left out is counted with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass

from gotd_ray import config
from gotd_ray.filesystems import split_name
from gotd_ray.listing import StoredFile
from gotd_ray.text.chunks import split
from gotd_ray.text.clean import clean
from gotd_ray.text.names import one_line
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import Columns, Problem, Row, too_long
from gotd_ray.text.tally import Tally
from gotd_ray.text.turns import Conversation


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
        label: the row's, where labels are read (see ``Labelled``).
        turns: the row's, where conversations are read: the text is made of them.
    """

    doc_id: str
    text: str
    source: str
    path: str
    row: int
    chunk: int
    weight: float = 1.0
    label: str | None = None
    turns: Conversation | None = None


class Labelled(config.Text):
    """Texts with a label each: a row without one is bad. See ``names.name_of`` for what one label is."""

    label_column: str

    @classmethod
    def of(cls, text: config.Text, column: str, paths: list[str] | None = None) -> Labelled:
        """Files read as others are, and their labels besides."""
        changes = {"label_column": column, "paths": text.paths if paths is None else paths}
        return cls.model_construct(**(dict(text) | changes))


def read_documents(
    file: StoredFile | str,
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
    tally: Tally,
    kept: Container[str] | None = None,
) -> Iterator[Document]:
    """The documents of one file, in the file's order, streamed.

    Args:
        file: a listed file or its uri.
        text: where the text stands in a row, what is left out, and ``sample``.
        chunks: how a row becomes candidates.
        storage: how the file is opened.
        tally: counts what is read and left out, as the documents are taken.
        kept: the ids of those that are given; None: all.

    Raises:
        BadFile: the file broke; the documents before the break were given. The tally does not count it: a caller may
            want to read a transient one again first.
    """
    path = file if isinstance(file, str) else file.uri
    excluded = frozenset(map(one_line, text.exclude_sources))
    names = Columns.of(text).all
    # The first 60 bits of an id are as good as a random number, and the same on every run.
    sampled_below = text.sample * 16**15 if text.sample < 1 else None
    for row, source, content in split_rows(path, text, chunks, storage):
        tally.rows += 1
        if row.keys is not None:
            tally.look_for(names, row.keys)
        if text.source_column and row.source is None:
            tally.unnamed += 1
        if row.turns:
            tally.layouts[",".join(row.layout or ())] += 1
        if source in excluded:
            tally.excluded[source] += 1
            tally.add("excluded_source", path, row.number, source)
            continue
        if isinstance(content, Problem):
            tally.add(content.reason, path, row.number, content.detail)
            continue
        for chunk, piece in enumerate(content):
            if len(piece) < chunks.min_chars:
                tally.add("too_short", path, row.number, f"{len(piece)} characters")
                continue
            doc_id = document_id(piece)
            if sampled_below is not None and int(doc_id[:15], 16) >= sampled_below:
                tally.add("not_sampled", path, row.number)
                continue
            if kept is not None and doc_id not in kept:
                tally.add("sieved_out", path, row.number)
                continue
            tally.documents += 1
            yield Document(doc_id, piece, source, path, row.number, chunk, row.weight, row.label, row.turns)


def split_rows(
    path: str,
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
    wanted: Collection[int] | None = None,
) -> Iterator[tuple[Row, str, list[str] | Problem]]:
    """A row, its source, and its cleaned pieces or its problem: the one way from a file to candidates.

    A conversation is one piece, however long.

    Raises:
        BadFile: as ``read_documents``.
    """
    default = source_of(path, text.source_from)
    for row in read_rows(path, text, storage, wanted):
        content: list[str] | Problem
        if isinstance(row.content, str):
            cleaned = clean(row.content)
            pieces = [cleaned] if row.turns else split(cleaned, chunks.max_chars)
            content = pieces if cleaned else Problem("empty_text")
            if row.turns and sum(len(turn.encode()) for _, turn in row.turns) > text.max_document_bytes:
                content = too_long(text.max_document_bytes)
        else:
            content = row.content
        yield row, row.source or default, content


def source_of(path: str, source_from: str) -> str:
    """The source that a file's address names, see ``Text.source_from``: that of its rows without a name of theirs."""
    name = split_name(path)[0] if source_from == "stem" else path.rstrip("/").rpartition("/")[0].rpartition("/")[2]
    return one_line(name) or "unnamed"
