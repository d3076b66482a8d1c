"""From corpus files to parts of token ids: the reading half of embed, as plain generators, in a module that imports
little, since each new process that reads imports it.

A part is a run of documents of one unit of files, named by which documents it holds: a killed run finds its finished
parts again, and a part that was cut otherwise, because a file could not be read to its end then, is not taken for it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from gotd_ray import config
from gotd_ray.index import Collection, entry_name, entry_of, part_name
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.remote import answer
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import Document, read_documents
from gotd_ray.text.rows import BadFile
from gotd_ray.text.tally import Tally

PART_DOCUMENTS = 2048
"""Documents of a part: enough that those of like length fill batches; small enough (3 MB) to travel and to redo."""

UNITS = 256
"""Units that a corpus is cut into at least, sizes permitting: enough for the readers of a large cluster."""

UNIT_BYTES = (4 << 20, 256 << 20)
"""Bytes of a unit, from and to: small files are read together; a file is never cut."""

SUMMARY = ""
"""The part name of a unit's last row, which tells what was read and skipped."""


@dataclass(frozen=True)
class Unit:
    """Corpus files read by one task and committed as one entry."""

    files: tuple[StoredFile, ...]
    done: frozenset[str] = frozenset()
    """Names of the parts that an earlier, killed run has written."""

    @property
    def name(self) -> str:
        return entry_name(self.files)


@dataclass(frozen=True)
class Job:
    """A unit of one collection."""

    name: str
    collection: Collection
    unit: Unit


def make_units(files: list[StoredFile], missing: list[StoredFile], existing_parts: set[str]) -> list[Unit]:
    """Pack all files, in the order of their addresses, into groups; a unit is what of a group is missing.

    The packing depends on the listing alone, so that a run after a kill makes the same units and finds their parts.
    """
    low, high = UNIT_BYTES
    limit = min(max(sum(file.size for file in files) // UNITS, low), high)
    groups: list[list[StoredFile]] = []
    room = 0
    for file in files:
        if not groups or file.size > room:
            groups.append([])
            room = limit
        groups[-1].append(file)
        room -= file.size
    found: dict[str, set[str]] = {}
    for name in existing_parts:
        found.setdefault(entry_of(name), set()).add(name)
    wanted = set(missing)
    left = [tuple(file for file in group if file in wanted) for group in groups]
    return [Unit(group, frozenset(found.get(entry_name(group), ()))) for group in left if group]


@lru_cache(maxsize=4)
def _encoder(settings: config.Encoder) -> TextEncoder:
    return TextEncoder(settings)


@dataclass
class _Reading:
    """What a unit's reading has come to."""

    documents: list[Document] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    """What was read of each file, by uri."""

    bad: list[dict[str, Any]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)


def read_unit(
    unit: Unit, text: config.Text, chunks: config.Chunks, encoder: config.Encoder, storage: config.Storage
) -> Iterator[pa.Table]:
    """One row per part, ``payload`` holding its documents' addresses and token ids; then one row with the summary."""
    state, entry = _Reading(), unit.name

    def part() -> pa.Table:
        documents, state.documents = state.documents, []
        name = part_name(entry, ((d.doc_id, d.path, d.row, d.chunk, d.source, d.weight) for d in documents))
        state.parts.append(name)
        return _row(name, len(documents), b"" if name in unit.done else _payload(documents, encoder))

    for file in unit.files:
        tally = state.tallies[file.uri] = Tally()
        try:
            for document in read_documents(file, text, chunks, storage, tally):
                state.documents.append(document)
                if len(state.documents) == PART_DOCUMENTS:
                    yield part()
        except BadFile as problem:
            bad = {"uri": file.uri, "reason": problem.reason, "detail": problem.detail, "transient": problem.transient}
            state.bad.append(bad)
    if state.documents:
        yield part()
    tallies = {uri: tally.to_dict() for uri, tally in state.tallies.items()}
    summary = {"parts": state.parts, "tallies": tallies, "bad": state.bad}
    yield _row(SUMMARY, 0, json.dumps(summary).encode())


def _payload(documents: list[Document], encoder: config.Encoder) -> bytes:
    ids, counts = _encoder(encoder).tokenize([document.text for document in documents])
    table = pa.table(
        {
            "doc_id": [d.doc_id for d in documents],
            "source": [d.source for d in documents],
            "path": [d.path for d in documents],
            "row": pa.array([d.row for d in documents], pa.int64()),
            "chunk": pa.array([d.chunk for d in documents], pa.int32()),
            "chars": pa.array([len(d.text) for d in documents], pa.int32()),
            "tokens": pa.array(counts, pa.int32()),
            "weight": pa.array([d.weight for d in documents], pa.float32()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _row(part: str, documents: int, payload: bytes) -> pa.Table:
    return pa.table({"part": [part], "documents": [documents]}).append_column(
        "payload", pa.array([payload], pa.large_binary())
    )


def open_part(payload: bytes) -> tuple[pa.Table, list[np.ndarray]]:
    """The rows of a part without their token ids, and the ids of each row."""
    table = pa.ipc.open_stream(pa.py_buffer(payload)).read_all().combine_chunks()
    lists = table["input_ids"].combine_chunks()
    values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    ids = np.split(values[offsets[0] : offsets[-1]], offsets[1:-1] - offsets[0])
    return table.drop_columns(["input_ids"]), ids


def read_job(
    batch: dict[str, np.ndarray], jobs: Any, chunks: config.Chunks, encoder: config.Encoder, storage: config.Storage
) -> Iterator[pa.Table]:
    """What a reading task does: see :func:`read_unit`.

    Args:
        batch: ``job``, the number of one.
        jobs: all of them, or a reference to them.
    """
    number = int(batch["job"][0])
    job = resolved(jobs)[number]
    for row in read_unit(job.unit, job.collection.text, chunks, encoder, storage):
        yield row.append_column("job", pa.array([number]))


def resolved(jobs: Any) -> list[Job]:
    """Ray resolves a reference among an actor's arguments, and leaves it one among a function's."""
    return answer(jobs) if isinstance(jobs, ray.ObjectRef) else jobs
