"""From corpus files to parts of token ids: the reading half of embed, as plain generators, in a module that imports
little, since each new process that reads imports it.

A unit's rows, which say where its documents stand, are written here. What is sent on to be encoded are the documents
that neither the index has nor another unit has claimed.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from gotd_ray import config
from gotd_ray.index import ROWS, Collection, Index, Part, entry_name
from gotd_ray.index.kept import Kept, read_kept
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.remote import answer
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import Document, read_documents
from gotd_ray.text.rows import BadFile
from gotd_ray.text.tally import Tally

PART_DOCUMENTS = 2048
"""Documents encoded together: enough that those of like length fill batches; few enough (3 MB) to redo."""

Claim = Callable[[np.ndarray], tuple[np.ndarray, list[int]]]
"""Which of some ids (n,) S32 are to be encoded here, (n,) bool; and the units that encode others of them."""

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

    @property
    def name(self) -> str:
        return entry_name(self.files)


@dataclass(frozen=True)
class Job:
    """A unit of one collection."""

    name: str
    collection: Collection
    unit: Unit


def make_units(files: list[StoredFile], missing: list[StoredFile]) -> list[Unit]:
    """Pack all files, in the order of their addresses, into groups; a unit is what of a group is missing.

    The packing depends on the listing alone, so that a run after a kill makes the same units.
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
    wanted = set(missing)
    left = [tuple(file for file in group if file in wanted) for group in groups]
    return [Unit(group) for group in left if group]


@lru_cache(maxsize=4)
def _encoder(settings: config.Encoder) -> TextEncoder:
    return TextEncoder(settings)


@lru_cache(maxsize=1)
def _kept(path: str, settings: str) -> Kept:
    return read_kept(path, config.Storage.model_validate_json(settings))


@dataclass
class _Reading:
    """What a unit's reading has come to.

    Attributes:
        documents: read, and not asked about yet.
        new: to be encoded, and not sent on yet.
        rows: of all before, without their texts.
        tallies: what was read of each file, by uri.
        others: units that encode some of this one's documents.
    """

    documents: list[Document] = field(default_factory=list)
    new: list[Document] = field(default_factory=list)
    rows: list[pa.Table] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    others: set[int] = field(default_factory=set)

    def ask(self, claim: Claim) -> None:
        """Claim the documents read, and keep of them what is needed."""
        if documents := self.documents:
            mine, others = claim(np.array([one.doc_id for one in documents], "S32"))
            self.others.update(others)
            self.new += [one for one, new in zip(documents, mine, strict=True) if new]
            self.rows.append(_rows(documents))
            self.documents = []


def read_unit(
    unit: Unit,
    index: Index,
    claim: Claim,
    text: config.Text,
    chunks: config.Chunks,
    encoder: config.Encoder,
    storage: config.Storage,
    kept: Container[str] | None = None,
) -> Iterator[pa.Table]:
    """One row per part to be encoded, ``payload`` holding its documents' ids and token ids; then one with the summary.

    The unit's rows are written to the index; they count when its entry is committed.
    """
    state, entry = _Reading(), unit.name

    def parts(least: int) -> Iterator[pa.Table]:
        while len(state.new) >= least:
            documents, state.new = state.new[:PART_DOCUMENTS], state.new[PART_DOCUMENTS:]
            table = _payload(documents, encoder)
            # A run of its own, as its ids are from anywhere.
            name = Part.of(f"{entry}{len(state.parts):08x}", table.select(["doc_id", "tokens"])).name
            state.parts.append(name)
            yield _row(name, len(documents), table)

    for file in unit.files:
        tally = state.tallies[file.uri] = Tally()
        try:
            for document in read_documents(file, text, chunks, storage, tally, kept):
                state.documents.append(document)
                if len(state.documents) == PART_DOCUMENTS:
                    state.ask(claim)
                    yield from parts(PART_DOCUMENTS)
        except BadFile as problem:
            bad = {"uri": file.uri, "reason": problem.reason, "detail": problem.detail, "transient": problem.transient}
            state.bad.append(bad)
    state.ask(claim)
    yield from parts(1)
    rows = []
    if state.rows:
        table = pa.concat_tables(state.rows)
        part = Part.of(entry, table)
        index.rows.write(part, table)
        rows = [part.name]
    tallies = {uri: tally.to_dict() for uri, tally in state.tallies.items()}
    summary = {
        "rows": rows, "parts": state.parts, "tallies": tallies, "bad": state.bad, "others": sorted(state.others),
    }  # fmt: skip
    yield _row(SUMMARY, 0, json.dumps(summary).encode())


def _rows(documents: list[Document]) -> pa.Table:
    return pa.table(
        {
            "doc_id": [d.doc_id for d in documents],
            "source": [d.source for d in documents],
            "path": [d.path for d in documents],
            "row": [d.row for d in documents],
            "chunk": [d.chunk for d in documents],
            "chars": [len(d.text) for d in documents],
            "weight": [d.weight for d in documents],
        },
        ROWS,
    )


def _payload(documents: list[Document], encoder: config.Encoder) -> pa.Table:
    """doc_id, tokens of the uncut text, and the ids of what is encoded."""
    ids, counts = _encoder(encoder).tokenize([document.text for document in documents])
    return pa.table(
        {
            "doc_id": [d.doc_id for d in documents],
            "tokens": pa.array(counts, pa.int32()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
        }
    )


def _row(part: str, documents: int, payload: pa.Table | bytes) -> pa.Table:
    if isinstance(payload, pa.Table):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, payload.schema) as writer:
            writer.write_table(payload)
        payload = sink.getvalue()
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
    batch: dict[str, np.ndarray],
    jobs: Any,
    claims: Any,
    chunks: config.Chunks,
    encoder: config.Encoder,
    storage: config.Storage,
) -> Iterator[pa.Table]:
    """What a reading task does: see :func:`read_unit`.

    Args:
        batch: ``job``, the number of one.
        jobs: all of them, or a reference to them.
        claims: an actor, :class:`gotd_ray.index.Claims`; the units are numbered as the jobs are.
    """
    number = int(batch["job"][0])
    job = resolved(jobs)[number]
    index, reader = job.collection.index, uuid.uuid4().hex

    def claim(ids: np.ndarray) -> tuple[np.ndarray, list[int]]:
        return answer(claims.claim.remote(index.vectors, number, reader, ids))

    kept = _kept(job.collection.kept, storage.model_dump_json()) if job.collection.kept else None
    for row in read_unit(job.unit, index, claim, job.collection.text, chunks, encoder, storage, kept):
        yield row.append_column("job", pa.array([number]))


def resolved(jobs: Any) -> list[Job]:
    """Ray resolves a reference among an actor's arguments, and leaves it one among a function's."""
    return answer(jobs) if isinstance(jobs, ray.ObjectRef) else jobs
