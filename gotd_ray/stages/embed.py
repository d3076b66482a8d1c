"""Stage 1, embed: corpus files -> the index. Reading tasks feed an actor pool of encoders through Ray Data.

    files not yet covered -> units -> read, clean, cut, tokenise (tasks) -> parts -> encode, write (actors) -> commit

A part is a fixed run of documents of one unit, so that a killed run finds its finished parts again, and Ray may retry
any task or actor: the same part is written with the same bytes.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources
from gotd_ray.errors import UserError
from gotd_ray.index import Collection, Entry, Index, entry_name
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.models.tokenizer import Tokenizer
from gotd_ray.progress import Progress
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import BadFile, Document, Tally, read_documents

PART_DOCUMENTS = 4096
"""Documents of a part: enough that documents of like length fill batches, small enough (6 MB) to travel and to redo."""

UNIT_BYTES = (4 << 20, 256 << 20)
"""Bytes of a unit of work, from and to: small files are read together, and every reader gets several units."""

VERSION = 1
"""Raised when equal settings give other rows."""

READER_CPUS = 0.5
"""CPUs that a reading task asks for: it reads far faster than a core encodes."""

_SUMMARY = -1
"""The part number of a unit's last row, which tells what was read and skipped."""


@dataclass(frozen=True)
class Unit:
    """Corpus files read by one task and committed as one entry."""

    files: tuple[StoredFile, ...]
    done: frozenset[int] = frozenset()
    """Parts that an earlier, killed run has written."""

    @property
    def name(self) -> str:
        return entry_name(self.files)


def make_units(files: list[StoredFile], existing_parts: set[str], readers: int) -> list[Unit]:
    """Pack files, in the order of their addresses, into units of a size that keeps all readers busy."""
    low, high = UNIT_BYTES
    limit = min(max(sum(file.size for file in files) // (4 * readers), low), high)
    groups: list[list[StoredFile]] = []
    for file in files:
        if not groups or sum(other.size for other in groups[-1]) + file.size > limit:
            groups.append([])
        groups[-1].append(file)
    found: dict[str, set[int]] = {}
    for name in existing_parts:
        entry, _, number = name.removesuffix(".parquet").rpartition("-")
        found.setdefault(entry, set()).add(int(number))
    units = [Unit(tuple(group)) for group in groups]
    return [Unit(unit.files, frozenset(found.get(unit.name, ()))) for unit in units]


@lru_cache(maxsize=4)
def _tokenizer(encoder: config.Encoder) -> Tokenizer:
    return Tokenizer(encoder)


@dataclass
class _Reading:
    """What a unit's reading has come to."""

    documents: list[Document] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    rows: dict[str, int] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)
    parts: int = 0


def read_unit(
    unit: Unit, text: config.Text, chunks: config.Chunks, encoder: config.Encoder, storage: config.Storage
) -> Iterator[pa.Table]:
    """One row per part, ``payload`` holding its documents' addresses and token ids; then one row with the summary."""
    state = _Reading()

    def part() -> pa.Table:
        number, documents = state.parts, state.documents
        state.parts, state.documents = state.parts + 1, []
        payload = b"" if number in unit.done else _payload(documents, encoder)
        return _row(number, len(documents), payload)

    for file in unit.files:
        state.rows[file.uri] = 0
        try:
            for document in read_documents(file, text, chunks, storage, state.tally):
                state.rows[file.uri] += 1
                state.documents.append(document)
                if len(state.documents) == PART_DOCUMENTS:
                    yield part()
        except BadFile as problem:
            bad = {"uri": file.uri, "reason": problem.reason, "detail": problem.detail, "transient": problem.transient}
            state.bad.append(bad)
        except UserError as problem:  # one file of many without the column; a config wrong for all was refused before
            state.bad.append({"uri": file.uri, "reason": "wrong_column", "detail": str(problem), "transient": False})
    if state.documents:
        yield part()
    summary = {"parts": state.parts, "rows": state.rows, "tally": state.tally.to_dict(), "bad": state.bad}
    yield _row(_SUMMARY, 0, json.dumps(summary).encode())


def _payload(documents: list[Document], encoder: config.Encoder) -> bytes:
    ids, counts = _tokenizer(encoder)([document.text for document in documents])
    table = pa.table(
        {
            "doc_id": [d.doc_id for d in documents],
            "source": [d.source for d in documents],
            "path": [d.path for d in documents],
            "row": pa.array([d.row for d in documents], pa.int64()),
            "chunk": pa.array([d.chunk for d in documents], pa.int32()),
            "chars": pa.array([len(d.text) for d in documents], pa.int32()),
            "tokens": pa.array(counts, pa.int32()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _row(part: int, documents: int, payload: bytes) -> pa.Table:
    return pa.table({"part": [part], "documents": [documents]}).append_column(
        "payload", pa.array([payload], pa.large_binary())
    )


class EncodeParts:
    """An encoder that lives in one actor: token ids in, the part's file out, its counts on."""

    def __init__(self, encoder: config.Encoder, device: str, threads: int | None, jobs: Any):
        self.encoder = TextEncoder(encoder, device, threads)
        self.jobs = _resolved(jobs)

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        if row["part"] != _SUMMARY:
            if row["payload"]:
                job = self.jobs[row["job"]]
                self._encode(job.collection.index, job.unit.name, row["part"], row["payload"])
            row["payload"] = b""
        return pa.table({name: [value] for name, value in row.items()})

    def _encode(self, index: Index, entry: str, part: int, payload: bytes) -> None:
        table = pa.ipc.open_stream(pa.py_buffer(payload)).read_all().combine_chunks()
        lists = table["input_ids"].combine_chunks()
        values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
        vectors = self.encoder.encode_ids(np.split(values[offsets[0] : offsets[-1]], offsets[1:-1] - offsets[0]))
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        index.write_part(entry, part, table.drop_columns(["input_ids"]).append_column("vector", column))


def embed(
    run: config.Run,
    collections: dict[str, Collection],
    artifact: Artifact,
    *,
    device: str,
    resources: Resources,
    progress: Progress,
) -> dict[str, Any]:
    """Embed what the index lacks of each collection, and commit what was read, skipped and refused.

    Args:
        collections: by name; the name stands in progress and in errors.

    Raises:
        UserError: more files or rows are bad than the settings allow.
    """
    artifact.begin()
    jobs = [
        Job(name, collection, unit)
        for name, collection in collections.items()
        if (missing := collection.index.snapshot(collection.files)[1])
        for unit in make_units(missing, collection.index.part_names(), max(1, resources.cpus // 2))
    ]
    work = {name: _Work() for name in collections}
    started = time.perf_counter()
    if jobs:
        _embed_jobs(jobs, work, run, device, resources, progress)
    facts: dict[str, Any] = {"seconds": time.perf_counter() - started}
    facts["unreached"] = [bad["uri"] for done in work.values() for bad in done.bad if bad["transient"]]
    facts |= {name: _summary(name, collection, work[name]) for name, collection in collections.items()}
    return artifact.commit(facts)


@dataclass(frozen=True)
class Job:
    """A unit of one collection."""

    name: str
    collection: Collection
    unit: Unit


@dataclass
class _Work:
    """What was done for one collection this time."""

    documents: int = 0
    seconds: float = 0.0
    """From the start of embedding to the collection's last document."""

    bad: list[dict[str, Any]] = field(default_factory=list)
    """Files that could not be read whole; a transient one has no entry, and the next run tries it again."""


def _summary(name: str, collection: Collection, work: _Work) -> dict[str, Any]:
    """The collection's counts over all its entries, old and new.

    Raises:
        UserError: the share of bad files or rows is above the collection's limits.
    """
    snapshot, _ = collection.index.snapshot(collection.files)
    tally = Tally()
    bad_files = [bad for bad in work.bad if bad["transient"]]
    for taken in snapshot.taken:
        tally.merge(Tally.from_dict(taken.entry.tally))
        bad_files += [bad for bad in taken.entry.bad_files if bad["uri"] in taken.live]
    _refuse_bad_files(name, bad_files, collection)
    if tally.bad_rows > collection.text.max_bad_rows * tally.rows:
        raise UserError(
            f"{name}: {tally.bad_rows:,} of {tally.rows:,} rows are unusable ({dict(tally.reasons)}), and "
            f"{name}.max_bad_rows allows a share of {collection.text.max_bad_rows:g}. Mend the data or raise it."
        )
    return {
        "files": len(collection.files),
        "documents": snapshot.rows,
        "embedded_now": work.documents,
        "seconds": work.seconds,
        "rows_read": tally.rows,
        "skipped": dict(sorted(tally.reasons.items())),
        "examples": tally.to_dict()["examples"],
        "bad_files": sorted(bad_files, key=lambda bad: bad["uri"]),
    }


@dataclass
class _Unfinished:
    """What has come back of a unit so far."""

    parts: int = 0
    summary: dict[str, Any] | None = None


def _embed_jobs(
    jobs: list[Job],
    work: dict[str, _Work],
    run: config.Run,
    device: str,
    resources: Resources,
    progress: Progress,
) -> None:
    """Embed the units of all collections in one stream, and commit each unit's entry after its last part."""
    unfinished = {number: _Unfinished() for number in range(len(jobs))}
    started = time.perf_counter()
    with progress.task("embed", total=None, unit="documents") as task:
        for row in _stream(jobs, run, device, resources).iter_rows():
            job, unit = jobs[row["job"]], unfinished[row["job"]]
            done = work[job.name]
            if row["part"] == _SUMMARY:
                unit.summary = json.loads(row["payload"])
                done.bad += unit.summary["bad"]
                _refuse_bad_files(job.name, done.bad, job.collection)
            else:
                unit.parts += 1
                done.documents += row["documents"]
                done.seconds = time.perf_counter() - started
                task.advance(row["documents"])
            if unit.summary and unit.parts == unit.summary["parts"]:
                _commit(job, unit.summary)
                del unfinished[row["job"]]
                task.update(note=f"{len(jobs) - len(unfinished)} of {len(jobs)} groups of files")
    assert not unfinished, "a unit of files ended without all its parts"


def _refuse_bad_files(name: str, bad: list[dict[str, Any]], collection: Collection) -> None:
    limit = collection.text.max_bad_files
    if len(bad) <= limit * len(collection.files):
        return
    shown = "; ".join(f"{one['uri']}: {one['reason']} ({one['detail']})" for one in bad[:3])
    raise UserError(
        f"{name}: {len(bad)} of {len(collection.files)} files cannot be read, and {name}.max_bad_files allows a share "
        f"of {limit:g}. Mend or remove them, or raise it. {shown}"
    )


def _stream(jobs: list[Job], run: config.Run, device: str, resources: Resources) -> ray.data.Dataset:
    """The plan: nothing runs until it is iterated."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1 << 20  # a part is a block of its own, so that all actors get some
    context.max_consecutive_actor_init_deaths = 3
    # Ray counts units here, but each unit gives many parts.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    actors, threads, request = _actors(run.encoder, device, resources)
    shared = ray.put(jobs)
    return (
        ray.data.from_items([{"job": number} for number in range(len(jobs))], override_num_blocks=len(jobs))
        .map_batches(
            _read_job,
            fn_kwargs={"jobs": shared, "run": run},
            batch_size=1,
            batch_format="numpy",
            num_cpus=READER_CPUS,
        )
        .map_batches(
            EncodeParts,
            fn_constructor_kwargs={"encoder": run.encoder, "device": device, "threads": threads, "jobs": shared},
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=actors),
            **request,
        )
    )


def _read_job(batch: dict[str, np.ndarray], jobs: Any, run: config.Run) -> Iterator[pa.Table]:
    number = int(batch["job"][0])
    job = _resolved(jobs)[number]
    for row in read_unit(job.unit, job.collection.text, run.chunks, run.encoder, run.storage):
        yield row.append_column("job", pa.array([number]))


def _resolved(jobs: Any) -> list[Job]:
    """Ray resolves a reference among an actor's arguments, and leaves it one among a function's."""
    return ray.get(jobs) if isinstance(jobs, ray.ObjectRef) else jobs


def _actors(encoder: config.Encoder, device: str, resources: Resources) -> tuple[int, int | None, dict[str, float]]:
    """Actors, threads of each, and what each asks of Ray; something is left for the readers.

    On CPU one actor per core with one thread: two such encode 2.5 times as fast as one actor with two threads.
    """
    if device == "cuda":
        return min(encoder.actors or resources.gpus, resources.gpus), None, {"num_gpus": 1}
    actors = encoder.actors or resources.cpus
    share = (resources.cpus - max(READER_CPUS, resources.cpus / 16)) / actors
    return actors, max(1, resources.cpus // actors), {"num_cpus": int(share) if share >= 1 else round(share, 3)}


def _commit(job: Job, summary: dict[str, Any]) -> None:
    """Commit a unit's entry, without the files that could not be reached this time."""
    unreached = {bad["uri"] for bad in summary["bad"] if bad["transient"]}
    entry = Entry(
        name=job.unit.name,
        files=tuple(file for file in job.unit.files if file.uri not in unreached),
        parts=summary["parts"],
        rows=summary["rows"],
        tally=summary["tally"],
        bad_files=tuple(bad for bad in summary["bad"] if bad["uri"] not in unreached),
    )
    job.collection.index.commit(entry)
