"""The stage dsir: the texts of corpus and target -> log importance weights. Only for ``select.method: dsir``.

    files -> n-grams of their documents, by id (tasks) -> counts by range of ids -> log ratio -> weights by range of ids

The index holds no text, so the files are read again, once. Equal texts are one document: ranges of ids count each id
once, whatever the files it stands in. Counts are integers, so their sums depend on no order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.choosing.dsir import Features, features, log_ratio
from gotd_ray.cluster import Site
from gotd_ray.errors import UserError
from gotd_ray.filesystems import shown
from gotd_ray.index import Collection, Vectors, id_range, ids_of, scan
from gotd_ray.methods.dsir import weights_name
from gotd_ray.ot.shard import segment_bounds
from gotd_ray.progress import Task
from gotd_ray.remote import answers
from gotd_ray.results import LOG_WEIGHTS
from gotd_ray.stage import Plan, Stage
from gotd_ray.text.documents import Document, read_documents
from gotd_ray.text.rows import BadFile
from gotd_ray.text.tally import Tally
from gotd_ray.units import Unit, make_units

VERSION = 2
"""Raised when the result of equal settings changes."""

NGRAMS = "ngrams"
"""A folder, while the stage runs."""

BATCH_CHARACTERS = 4_000_000
"""Characters hashed together: enough that n-grams repeat; some 200 MB for a moment."""

PART_NGRAMS = 1 << 26
"""N-grams of a file at the most: large files, so that ranges of ids are few reads. 134 MB in memory."""

RANGE_NGRAMS = 1 << 24
"""N-grams that one task counts or weighs, about: some 400 MB for a moment."""

ROW_GROUP = 256
"""Rows of a row group of n-grams, so that a reader of a range of ids skips most of a file."""


@dataclass(frozen=True)
class Sets:
    """Corpus and target, which are read again as they were embedded."""

    vectors: Vectors
    chunks: config.Chunks
    storage: config.Storage

    def key(self) -> Any:
        """Chunks are in it."""
        return self.vectors.key()


def _given(plan: Plan) -> Sets | None:
    return Sets(plan.vectors, plan.run.chunks, plan.run.storage) if plan.run.select.method == "dsir" else None


def dsir(given: Sets, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Weigh each document of the corpus against the target, and commit.

    The n-grams stay on file until then: at most 2 bytes for each, so 0.8 kB for a document of 200 words.

    Raises:
        UserError: the storage did not give a file; corpus or target has no word.
    """
    started = time.perf_counter()
    artifact.begin()
    for folder in (NGRAMS, LOG_WEIGHTS):
        storage.delete_tree(artifact.path(folder), given.storage)  # another number of files may lie there
    with site.progress.task("dsir", total=None, unit="tasks") as task:
        sets = given.vectors.reached()
        found = {name: _counted(name, collection, given, artifact, task) for name, collection in sets.items()}
        corpus, target = found["corpus"], found["target"]
        ratio = ray.put(log_ratio(target.counts, corpus.counts))
        count = len(corpus.ranges)
        paths = [artifact.path(LOG_WEIGHTS, weights_name(number, count)) for number in range(count)]
        pairs = zip(corpus.ranges, paths, strict=True)
        _all([_weigh.remote(corpus.parts, *ends, ratio, path, given.storage) for ends, path in pairs], task)
    storage.delete_tree(artifact.path(NGRAMS), given.storage)
    facts = {name: counted.facts for name, counted in found.items()}
    for name, told in facts.items():
        for sentence in _told(name, told):
            site.progress.say(sentence)
    return artifact.commit(facts | {"seconds": time.perf_counter() - started})


@dataclass(frozen=True)
class _Counted:
    """The n-grams of a collection's distinct documents."""

    parts: Any
    """Reference to the list of their files."""

    ranges: list[tuple[bytes, bytes]]
    """Of ids, as much as one task can hold."""

    counts: np.ndarray
    facts: dict[str, Any]


def _counted(name: str, collection: Collection, given: Sets, artifact: Artifact, task: Task) -> _Counted:
    units = make_units(collection.files, collection.files)
    prefix = artifact.path(NGRAMS, name)
    written = _all([_ngrams.remote(unit, collection.text, given.chunks, given.storage, prefix) for unit in units], task)
    parts = ray.put([path for unit in written for path in unit["paths"]])
    ranges = _ranges(sum(unit["ngrams"] for unit in written))
    found = _all([_count.remote(parts, *ends, given.storage) for ends in ranges], task)
    counts = np.sum([count for _, count in found], axis=0)
    if not counts.any():
        raise UserError(f"the {name} has no word, so DSIR has nothing to compare. Check {name}.text_column.")
    tally = Tally()
    for unit in written:
        tally.merge(Tally.from_dict(unit["tally"]))
    facts = {
        "documents": sum(documents for documents, _ in found),
        "documents_read": tally.documents,
        "documents_embedded": collection.index.snapshot(collection.files)[0].rows,
        "ngrams": int(counts.sum()),
        "rows_read": tally.rows,
        "skipped": dict(sorted(tally.reasons.items())),
        "bad_files": sorted((bad for unit in written for bad in unit["bad"]), key=lambda bad: bad["uri"]),
    }
    return _Counted(parts, ranges, counts, facts)


def _told(name: str, facts: dict[str, Any]) -> Iterator[str]:
    """What of a collection was not read again as it was embedded, in sentences."""
    read, embedded = facts["documents_read"], facts["documents_embedded"]
    if read != embedded:
        yield (
            f"dsir: {read:,} documents of the {name} were read, but {embedded:,} were embedded: files have changed in "
            "between. What is not weighed is never taken; run again to embed the files as they are now"
        )
    if bad := facts["bad_files"]:
        some = shown("; ".join(f"{one['uri']}: {one['reason']} ({one['detail']})" for one in bad[:3]))
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        yield f"dsir: {len(bad):,} files of the {name} could not be read whole: {some}{more}"


_DIED = (
    "a task of the stage dsir died, most likely for want of memory. Give the nodes more, or let fewer run at once "
    "(ray.num_cpus)."
)


def _all(pending: list[Any], task: Task) -> list[Any]:
    """The answers of Ray tasks in their order; the first that fails ends the others."""
    found = {}
    for reference, answer in answers(pending, lambda _: _DIED):
        found[reference] = answer
        task.advance(1)
    return [found[reference] for reference in pending]


def _ranges(ngrams: int) -> list[tuple[bytes, bytes]]:
    """Ranges of ids that hold about equally much: a power of two of them."""
    count = 1
    while ngrams > count * RANGE_NGRAMS:
        count *= 2
    return list(pairwise(bytes(end) for end in segment_bounds(count)))


@ray.remote(num_cpus=1)
def _ngrams(
    unit: Unit, text: config.Text, chunks: config.Chunks, settings: config.Storage, prefix: str
) -> dict[str, Any]:
    """Write the n-grams of a unit's documents: their paths and number, and what was read and left out."""
    bad: list[dict[str, str]] = []
    tally = Tally()
    paths: list[str] = []
    total = 0
    for ids, found in _parts(_batches(_documents(unit, text, chunks, settings, tally, bad))):
        paths.append(f"{prefix}-{unit.name}-{len(paths):05d}.parquet")
        total += _write_ngrams(paths[-1], ids, found, settings)
    return {"paths": paths, "ngrams": total, "tally": tally.to_dict(), "bad": bad}


def _write_ngrams(path: str, ids: list[str], found: list[Features], settings: config.Storage) -> int:
    """Write doc_id and buckets, by id; the number of n-grams."""
    lengths = np.concatenate([np.diff(batch.offsets) for batch in found])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    buckets = pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate([batch.buckets for batch in found])))
    table = pa.table({"doc_id": pa.array(ids, pa.string()), "buckets": buckets})
    _write(path, table.sort_by("doc_id"), ROW_GROUP, settings)
    return int(lengths.sum())


def _parts(batches: Iterator[list[Document]]) -> Iterator[tuple[list[str], list[Features]]]:
    """Ids and n-grams of about PART_NGRAMS together."""
    ids: list[str] = []
    found: list[Features] = []
    for documents in batches:
        ids += [document.doc_id for document in documents]
        found.append(features([document.text for document in documents]))
        if sum(len(batch.buckets) for batch in found) >= PART_NGRAMS:
            yield ids, found
            ids, found = [], []
    if ids:
        yield ids, found


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents of about BATCH_CHARACTERS together."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _documents(
    unit: Unit,
    text: config.Text,
    chunks: config.Chunks,
    settings: config.Storage,
    tally: Tally,
    bad: list[dict[str, str]],
) -> Iterator[Document]:
    """The documents that embed read, where bad rows and files were held against their limits."""
    for file in unit.files:
        try:
            yield from read_documents(file, text, chunks, settings, tally)
        except BadFile as problem:
            if problem.transient and problem.reason != "vanished":  # select passes over what has vanished
                said = shown(f"{file.uri} cannot be read: {problem}")
                raise UserError(f"{said}. Run again when the storage answers.") from None
            bad.append({"uri": file.uri, "reason": problem.reason, "detail": problem.detail})


def _distinct(paths: list[str], low: bytes, high: bytes, settings: config.Storage) -> tuple[np.ndarray, Features]:
    """Ids (n,) S32, ascending, each once, and their n-grams."""
    if not paths:
        return np.empty(0, "S32"), features([])
    table = scan(paths, ["doc_id", "buckets"], id_range(low, high), settings)
    ids, first = np.unique(ids_of(table), return_index=True)
    lists = table["buckets"].combine_chunks().take(pa.array(first))
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ids, Features(lists.flatten().to_numpy(), offsets)


@ray.remote(num_cpus=1)
def _count(paths: list[str], low: bytes, high: bytes, settings: config.Storage) -> tuple[int, np.ndarray]:
    ids, found = _distinct(paths, low, high, settings)
    return len(ids), found.counts()


@ray.remote(num_cpus=1)
def _weigh(paths: list[str], low: bytes, high: bytes, ratio: np.ndarray, path: str, settings: config.Storage) -> None:
    """Write doc_id, log_weight and words, by id."""
    ids, found = _distinct(paths, low, high, settings)
    columns = {"doc_id": ids.astype(str), "log_weight": found.log_weights(ratio), "words": found.words()}
    _write(path, pa.table(columns), 1 << 16, settings)


def _write(path: str, table: pa.Table, row_group: int, settings: config.Storage) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=row_group, compression="zstd")
    storage.write_bytes(path, sink.getvalue().to_pybytes(), settings)


STAGE = Stage("dsir", VERSION, _given, dsir)
