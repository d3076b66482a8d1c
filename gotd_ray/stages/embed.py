"""The stage embed: corpus files -> the index. Reading tasks feed an actor pool of encoders through Ray Data.

    files not yet covered -> units -> read, clean, cut (tasks) -> rows
                                      what nobody has encoded -> tokenise -> encode, write (actors) -> vectors
                          -> entries -> merges of small parts

Ray may retry any task or actor: the same part is written with the same bytes. A retried reading that came to another
end than the first, since the storage failed in one of them, is found by the names of its parts: the unit is done again.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy

from gotd_ray import config, metrics
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Site
from gotd_ray.encoding import READER_CPUS, encoder_actors, set_up_data
from gotd_ray.errors import UserError
from gotd_ray.index import VERSION, Claims, Collection, Entry, GoneError, Index, Part
from gotd_ray.index.merge import Merge, merge, merge_rows, merge_vectors
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.remote import answer, unwrapped
from gotd_ray.results import FILES, files_table
from gotd_ray.stage import Plan, Stage
from gotd_ray.text.tally import Tally, check_bad_files, check_bad_rows, check_names
from gotd_ray.units import SUMMARY, Job, make_units, open_part, read_job, resolved

ATTEMPTS = 3
"""Passes over what the index lacks, before a run gives up."""


class EncodeParts:
    """An encoder that lives in one actor: token ids in, the part's file out, its counts on."""

    def __init__(self, encoder: config.Encoder, device: str, threads: int | None, jobs: Any):
        self.encoder = TextEncoder(encoder, device, threads).loaded()
        self.jobs = resolved(jobs)

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        row["tokens"] = 0
        if row["part"] != SUMMARY:
            job = self.jobs[row["job"]]
            row["tokens"] = self._encode(job.collection.index, row["part"], row["payload"])
            row["payload"] = b""
        return pa.table({name: [value] for name, value in row.items()})

    def _encode(self, index: Index, part: str, payload: bytes) -> int:
        """Write a part, and return its tokens."""
        table, ids = open_part(payload)
        vectors = self.encoder.encode_ids(ids)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        index.vectors.write(_part(part), table.append_column("vector", column))
        return sum(map(len, ids))


@dataclass(frozen=True)
class Sets:
    """What is embedded, and how; a set's name stands in progress and in errors."""

    collections: dict[str, Collection]
    encoder: config.Encoder
    width: int
    chunks: config.Chunks
    storage: config.Storage

    def key(self) -> Any:
        """Encoder and chunks are in the collections' keys."""
        return [(name, collection.key()) for name, collection in self.collections.items()]


def _given(plan: Plan) -> Sets:
    """All sets, or those over which a cascade fits; the corpus then comes later."""
    later = plan.run.cascade is not None
    return _sets(plan, {name: one for name, one in plan.collections.items() if name != "corpus" or not later})


def _given_first(plan: Plan) -> Sets | None:
    """All sets, by the encoder of a cascade's first look."""
    if plan.cheap is None:
        return None
    return replace(_sets(plan, plan.sketched), encoder=cheap(plan.run.encoder), width=plan.cheap["width"])


def _given_last(plan: Plan) -> Sets | None:
    """All sets, of the corpus what a cascade has kept."""
    return None if plan.run.cascade is None else _sets(plan, plan.collections)


def _sets(plan: Plan, collections: dict[str, Collection]) -> Sets:
    return Sets(collections, plan.run.encoder, plan.encoder["width"], plan.run.chunks, plan.run.storage)


def cheap(encoder: config.Encoder) -> config.Encoder:
    """The encoder of a cascade's first look."""
    return encoder.model_copy(update={"kind": "static", "cascade": None})


def embed(given: Sets, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Embed what the index lacks of each set, and commit what was read, skipped and refused.

    Raises:
        UserError: more files or rows are bad than the settings allow.
    """
    artifact.begin()
    collections = given.collections
    work = {name: Work() for name in collections}
    started = time.perf_counter()
    for _ in range(ATTEMPTS):
        if jobs := jobs_of(collections, work):
            _embed_jobs(jobs, work, given, site)
    if left := jobs_of(collections, work):
        missing = [file.uri for job in left for file in job.unit.files]
        raise UserError(
            f"{left[0].collection.index.rows_folder} still lacks {len(missing):,} files after {ATTEMPTS} attempts, "
            f"such as {missing[0]}: another program may be deleting from the index, or the storage fails now and then. "
            "Run again."
        )
    for collection in collections.values():
        _merge_parts(collection, given.width)
    facts: dict[str, Any] = {"seconds": time.perf_counter() - started}
    facts["unreached"] = sorted(uri for done in work.values() for uri in done.unreached)
    facts |= {name: _summary(name, collection, work[name]) for name, collection in collections.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(files_table({name: collection.files for name, collection in collections.items()}), sink)
    artifact.write(FILES, sink.getvalue().to_pybytes())
    return artifact.commit(facts)


def jobs_of(collections: dict[str, Collection], work: dict[str, Work]) -> list[Job]:
    """What the index lacks, without the files that the storage did not give this time."""
    jobs = []
    for name, collection in collections.items():
        missing = collection.index.snapshot(collection.files)[1]
        wanted = [file for file in missing if file.uri not in work[name].unreached]
        jobs += [Job(name, collection, unit) for unit in make_units(collection.files, wanted)]
    return jobs


@dataclass
class Work:
    """What was done for one collection this time."""

    documents: int = 0
    seconds: float = 0.0
    """From the start of embedding to the collection's last document."""

    bad: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By uri, files that could not be read whole."""

    @property
    def unreached(self) -> list[str]:
        """Files that the storage did not give: no entry covers them, and the next run tries them again."""
        return [uri for uri, bad in self.bad.items() if bad["transient"]]


def _summary(name: str, collection: Collection, work: Work) -> dict[str, Any]:
    """The collection's counts over all its entries, old and new.

    Raises:
        UserError: the share of bad files or rows is above the collection's limits.
    """
    snapshot, _ = collection.index.snapshot(collection.files)
    tally = Tally()
    bad_files = [work.bad[uri] for uri in work.unreached]
    for taken in snapshot.taken:
        for uri in taken.live:
            tally.merge(Tally.from_dict(taken.entry.tallies[uri]))
        live = set(taken.live)
        bad_files += [bad for bad in taken.entry.bad_files if bad["uri"] in live]
    _refuse_bad_files(name, bad_files, collection)
    told = check_names(name, tally, collection.text, name, not bad_files)  # a name may stand in what was not read
    check_bad_rows(name, tally, collection.text, name)
    return {
        "files": len(collection.files),
        "documents": snapshot.rows,
        "embedded_now": work.documents,
        "seconds": work.seconds,
        "rows_read": tally.rows,
        "skipped": dict(sorted(tally.reasons.items())),
        "examples": tally.to_dict()["examples"],
        "bad_files": sorted(bad_files, key=lambda bad: bad["uri"]),
        "told": [*collection.passed_over, *told],
    }


class Ledger:
    """Takes what comes back of the units, part by part, and commits a unit when all its vectors are in the index.

    Some of them may be encoded by other units, which stand in more than one file: then it waits for these.

    Args:
        jobs: the units.
        work: by collection, where documents and bad files are counted.
    """

    def __init__(self, jobs: list[Job], work: dict[str, Work]):
        self.committed = 0
        self._jobs, self._work = jobs, work
        self._parts: dict[int, set[str]] = {number: set() for number in range(len(jobs))}
        self._summaries: dict[int, dict[str, Any]] = {}
        self._encoded: set[int] = set()
        self._waits_for: dict[int, set[int]] = {}
        self._awaited_by: dict[int, list[int]] = {}

    def take(self, row: dict[str, Any]) -> None:
        """A part that lies in the index, or the summary of a unit.

        Raises:
            UserError: the share of bad files is above the collection's limit.
        """
        number, job = row["job"], self._jobs[row["job"]]
        work = self._work[job.name]
        if row["part"] == SUMMARY:
            summary = self._summaries[number] = json.loads(row["payload"])
            work.bad |= {bad["uri"]: bad for bad in summary["bad"]}
            _refuse_bad_files(job.name, list(work.bad.values()), job.collection)
        else:
            self._parts[number].add(row["part"])
            work.documents += row["documents"]
        if number in self._summaries and self._parts[number] == set(self._summaries[number]["parts"]):
            self._take_whole(number)

    def _take_whole(self, number: int) -> None:
        """All that a unit encodes is encoded."""
        self._encoded.add(number)
        self._waits_for[number] = set(self._summaries[number]["others"]) - self._encoded
        for other in self._waits_for[number]:
            self._awaited_by.setdefault(other, []).append(number)
        if not self._waits_for[number]:
            self._commit(number)
        for waiting in self._awaited_by.pop(number, []):
            self._waits_for[waiting].discard(number)
            if not self._waits_for[waiting]:
                self._commit(waiting)

    def _commit(self, number: int) -> None:
        """Commit a unit's entry; it does not cover the files that could not be reached this time."""
        job, summary = self._jobs[number], self._summaries.pop(number)
        unreached = {bad["uri"] for bad in summary["bad"] if bad["transient"]}
        entry = Entry(
            name=job.unit.name,
            files=tuple(file for file in job.unit.files if file.uri not in unreached),
            parts=tuple(_part(name) for name in summary["rows"]),
            tallies=summary["tallies"],
            bad_files=tuple(bad for bad in summary["bad"] if bad["uri"] not in unreached),
        )
        job.collection.index.entries.commit(entry)
        self.committed += 1


def _embed_jobs(jobs: list[Job], work: dict[str, Work], given: Sets, site: Site) -> None:
    """Embed the units of all collections in one stream."""
    ledger, started = Ledger(jobs, work), time.perf_counter()
    with site.progress.task("embed", total=None, unit="documents") as task, unwrapped():
        for row in _stream(jobs, given, site).iter_rows():
            ledger.take(row)
            name = jobs[row["job"]].name
            work[name].seconds = time.perf_counter() - started
            task.advance(row["documents"])
            task.note = f"{ledger.committed} of {len(jobs)} groups of files"
            metrics.embedded(name, row["documents"], row["tokens"])


_claims = ray.remote(num_cpus=0)(Claims)

_merge = ray.remote(num_cpus=1)(merge)


def _merge_parts(collection: Collection, width: int) -> None:
    index, listed = collection.index, collection.listed or collection.files
    with suppress(GoneError):  # another run merges the same parts; what it leaves, the next one merges
        merge_vectors(index.vectors, width, _do)
        merge_rows(index.snapshot(collection.files)[0], listed, collection.text.paths, _do)


def _do(merges: list[Merge]) -> list[list[Part]]:
    return answer([_merge.remote(one) for one in merges], _DIED)


_DIED = (
    "a task that merges parts of the index died, most likely for want of memory: it needs about 400 MB. Give the nodes "
    "more."
)


def _part(name: str) -> Part:
    part = Part.named(name)
    assert part, name
    return part


def _refuse_bad_files(name: str, bad: list[dict[str, Any]], collection: Collection) -> None:
    said = [f"{one['uri']}: {one['reason']} ({one['detail']})" for one in bad]
    check_bad_files(name, said, len(collection.files), collection.text, name)


def _stream(jobs: list[Job], given: Sets, site: Site) -> ray.data.Dataset:
    """The plan: nothing runs until it is iterated."""
    set_up_data()
    actors, threads, request = encoder_actors(given.encoder, site.device, site.resources)
    shared = ray.put(jobs)
    claims = _claims.options(max_restarts=-1, max_task_retries=-1).remote()
    return (
        ray.data.from_items([{"job": number} for number in range(len(jobs))], override_num_blocks=len(jobs))
        .map_batches(
            read_job,
            fn_kwargs={
                "jobs": shared,
                "claims": claims,
                "chunks": given.chunks,
                "encoder": given.encoder,
                "storage": given.storage,
            },
            batch_size=1,
            batch_format="numpy",
            num_cpus=READER_CPUS,
        )
        .map_batches(
            EncodeParts,
            fn_constructor_kwargs={"encoder": given.encoder, "device": site.device, "threads": threads, "jobs": shared},
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=actors),
            **request,
        )
    )


SKETCH = Stage("sketch", VERSION, _given_first, embed)

STAGE = Stage("embed", VERSION, _given, embed)

REFINE = Stage("refine", VERSION, _given_last, embed)
