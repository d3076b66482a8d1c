"""The stage survey: some documents of each source, compared with the target before all is embedded.

Which documents: of each file that is read, its first READ documents; of those of all files the ones with the smallest
ids. Ids are hashes of the content, so this is a random sample of what was read, whatever the order of files.
"""

from __future__ import annotations

import io
import time
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.choosing.survey import Distance, distance, kept_sources, near_the_cut, ranked, sample_size
from gotd_ray.cluster import Site
from gotd_ray.encoding import READER_CPUS, encode_texts
from gotd_ray.errors import UserError, with_remedy
from gotd_ray.index import Collection
from gotd_ray.ot.kernel import one_thread_each
from gotd_ray.remote import answers
from gotd_ray.stage import Plan, Stage
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import read_documents, source_of
from gotd_ray.text.rows import BadFile
from gotd_ray.text.sets import left_out_of
from gotd_ray.text.tally import Tally, check_bad_files, check_bad_rows, check_names

VERSION = 1
"""Raised when the result of equal settings changes."""

READ = 10_000
"""Documents read of a file at the most."""

MAX_SOURCES = 256
"""Sources that can be compared: their documents lie in the driver's memory, some megabytes each."""

_TARGET = "target"
"""All documents of the target are one source."""


class Sample:
    """The documents with the smallest ids of each source: the same ones in whatever order they come."""

    def __init__(self, size: int):
        self.size = size
        self._texts: dict[str, dict[str, str]] = {}

    @property
    def sources(self) -> int:
        return len(self._texts)

    def add(self, source: str, texts: dict[str, str]) -> None:
        """Take in texts by id."""
        held = self._texts.setdefault(source, {})
        held |= texts
        if len(held) > 4 * self.size:
            self._texts[source] = self._smallest(held, self.size)

    def texts(self, size: int | None = None) -> dict[str, dict[str, str]]:
        """By source and id, both sorted; ``size`` of each source at the most."""
        size = size or self.size
        return {source: self._smallest(self._texts[source], size) for source in sorted(self._texts)}

    @staticmethod
    def _smallest(texts: dict[str, str], size: int) -> dict[str, str]:
        return {doc_id: texts[doc_id] for doc_id in sorted(texts)[:size]}


@dataclass(frozen=True)
class Sources:
    """What is compared, and how it is read."""

    settings: config.Survey
    encoder: config.Encoder
    corpus: Collection
    target: Collection
    chunks: config.Chunks
    storage: config.Storage

    def key(self) -> Any:
        """Encoder and chunks are in the collections' keys."""
        return self.corpus.key(), self.target.key(), self.settings.model_dump()


def _given(plan: Plan) -> Sources | None:
    run, sets = plan.run, plan.listed
    if run.survey is None:
        return None
    return Sources(run.survey, run.encoder, sets["corpus"], sets["target"], run.chunks, run.storage)


def survey(given: Sources, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Compare the sources of the corpus with the target, decide which are kept, and commit.

    Raises:
        UserError: corpus or target has no document, there are too many sources, or a file cannot be reached.
    """
    started = time.perf_counter()
    settings, corpus, target = given.settings, given.corpus, given.target
    chosen = files_to_read(corpus, settings.files)
    of_corpus = _read(chosen, corpus.text, given, settings.documents, site)
    of_target = _read(target.files, target.text, given, settings.target_documents, site, one_source=True)
    told = [*of_corpus.told("corpus", exact=False), *of_target.told(_TARGET, exact=True)]
    for words in told:
        site.progress.say(words)
    sampled, aims = of_corpus.sample.texts(), of_target.sample.texts()
    size = sample_size({source: len(texts) for source, texts in sampled.items()}, settings.documents)
    texts = {_TARGET: aims[_TARGET]}, {source: dict(islice(held.items(), size)) for source, held in sampled.items()}
    distances = _distances(*texts, given.encoder, site)
    kept = kept_sources(distances, settings.keep, settings.always)
    unclear = near_the_cut(distances, kept, settings.keep)
    rows = [
        {"source": source, **asdict(distances[source]), "small": distances[source].documents < size}
        | {"kept": source in kept}
        for source in ranked(distances)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink)
    artifact.begin()
    artifact.write("sources.parquet", sink.getvalue())
    for source in sorted(set(settings.always) - set(distances)):
        site.progress.say(f"survey.always names '{source}', which the survey did not come upon")
    return artifact.commit(
        {
            "sources": rows,
            "documents": size,
            "target_documents": len(aims[_TARGET]),
            "files_read": [len(chosen), len(corpus.files)],
            "left_out": {"corpus": dict(of_corpus.tally.reasons), _TARGET: dict(of_target.tally.reasons)},
            "told": told,
            "bad_files": {"corpus": of_corpus.bad, _TARGET: of_target.bad},
            "dropped": sorted(set(distances) - kept),
            "unclear": unclear,
            "seconds": time.perf_counter() - started,
        }
    )


SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "value": pa.float64(),
        "spread": pa.float64(),
        "documents": pa.int64(),
        "small": pa.bool_(),
        "kept": pa.bool_(),
    }
)


def files_to_read(corpus: Collection, limit: int) -> list[StoredFile]:
    """Of each source the files with the smallest hash of their address; of all files where rows name their source."""

    def place(file: StoredFile) -> bytes:
        return blake2b(file.uri.encode(), digest_size=16).digest()

    groups: dict[str, list[StoredFile]] = {}
    for file in sorted(corpus.files, key=place):
        named = "" if corpus.text.source_column else source_of(file.uri, corpus.text.source_from)
        groups.setdefault(named, []).append(file)
    return [file for group in groups.values() for file in group[:limit]]


@dataclass
class _Reading:
    """What the reading of some files has come to."""

    sample: Sample
    text: config.Text
    files: int
    tally: Tally = field(default_factory=Tally)
    bad: list[str] = field(default_factory=list)
    """Of each file that cannot be read, its address and what is wrong with it."""

    def told(self, name: str, *, exact: bool) -> list[str]:
        """Sentences on what was left out; of names that match nothing the look before a run has told.

        Args:
            name: of the set; exact: all of it was read.

        Raises:
            UserError: there is no document; all was read, and more of it is bad than the settings allow, or a name
                matches nothing.
        """
        where = f"survey: {name}"
        if exact:
            check_bad_files(name, self.bad, self.files, self.text, name)
        if not self.sample.sources:
            bad = f"; {len(self.bad):,} unreadable files ({'; '.join(self.bad[:3])})" if self.bad else ""
            raise UserError(
                f"the survey found no document in the {name}: {self.tally.why()}{bad}. Check {name}.text_column and "
                "chunks."
            )
        if exact:
            check_names(name, self.tally, self.text, name, exact)
            check_bad_rows(name, self.tally, self.text, name)
        told = left_out_of(where, self.tally.reasons)
        if self.bad:
            told.append(f"{where}: {len(self.bad):,} of {self.files:,} files cannot be read: {'; '.join(self.bad[:3])}")
        return told


def _read(
    files: list[StoredFile], text: config.Text, given: Sources, size: int, site: Site, one_source: bool = False
) -> _Reading:
    found = _Reading(Sample(size), text, len(files))
    limit = None if one_source else READ
    asked = [_read_file.remote(file, text, given.chunks, given.storage, size, limit, one_source) for file in files]
    with site.progress.task("survey: read", total=len(files), unit="files") as task:
        for _, (texts, tally, bad) in answers(asked, lambda _: _LESS_TO_READ):
            for source, of_source in texts.items():
                found.sample.add(source, of_source)
            found.tally.merge(tally)
            found.bad = sorted([*found.bad, *bad])
            if found.sample.sources > MAX_SOURCES:
                raise UserError(
                    f"the corpus has more than {MAX_SOURCES} sources, too many for a survey. Set corpus.source_from or "
                    "corpus.source_column to something coarser, or leave `survey` out."
                )
            task.advance(1)
    return found


_LESS_TO_READ = (
    "a process that reads for the survey was killed, most likely for want of memory. Lower survey.documents, or use "
    "larger nodes."
)


@ray.remote(num_cpus=READER_CPUS)
def _read_file(
    file: StoredFile,
    text: config.Text,
    chunks: config.Chunks,
    storage: config.Storage,
    size: int,
    limit: int | None,
    one_source: bool,
) -> tuple[dict[str, dict[str, str]], Tally, list[str]]:
    """Some texts of a file by source and id, what was counted, and what is wrong with the file."""
    sample, tally, bad = Sample(size), Tally(), []
    try:
        for document in islice(read_documents(file, text, chunks, storage, tally), limit):
            if document.weight > 0:
                sample.add(_TARGET if one_source else document.source, {document.doc_id: document.text})
            else:
                tally.add("weight_0", file.uri, document.row)
    except BadFile as problem:
        if problem.transient:
            raise UserError(f"{file.uri} cannot be read: {problem}. Run again when the storage answers.") from None
        bad.append(f"{file.uri}: {problem}")
    return sample.texts(), tally, bad


def _distances(
    aims: dict[str, dict[str, str]], sampled: dict[str, dict[str, str]], encoder: config.Encoder, site: Site
) -> dict[str, Distance]:
    """Encode what was sampled, a text in several sources once, and solve for each source."""
    texts = {doc_id: text for held in (*aims.values(), *sampled.values()) for doc_id, text in held.items()}
    place = {doc_id: number for number, doc_id in enumerate(sorted(texts))}
    with site.progress.task("survey: embed", total=len(place), unit="documents") as task:
        vectors = encode_texts([texts[doc_id] for doc_id in place], encoder, site, task)
    y = ray.put(vectors[[place[doc_id] for doc_id in aims[_TARGET]]])
    sources = {_distance.remote(vectors[[place[doc_id] for doc_id in held]], y): name for name, held in sampled.items()}
    found = {}
    with site.progress.task("survey: compare", total=len(sources), unit="sources") as task, with_remedy(_REMEDY):
        for reference, distance_of_it in answers(sources):
            found[sources[reference]] = distance_of_it
            task.advance(1)
    return {source: found[source] for source in sampled}


_REMEDY = "Set encoder.precision to float32, or leave `survey` out."


@ray.remote(num_cpus=1)
def _distance(x: Any, y: Any) -> Distance:
    with one_thread_each():
        return distance(x, y)


STAGE = Stage("survey", VERSION, _given, survey)
