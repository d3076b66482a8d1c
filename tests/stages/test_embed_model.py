"""Whatever happens to a corpus and to the runs over it, at the end every document of it is a candidate exactly once.

Random sequences of changes to the files, losses of parts of the index, and runs that meet a storage that fails in the
middle of a file, or are killed, against a plain model: the documents that the files hold now. The encoder is the only
thing that is not real, and Ray is not there: its part is to carry the rows from the reading to the ledger.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from s3_server import S3Server

from gotd_ray import config, storage, units
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.index import Claims, Collection, Index, LostError, Part, merge
from gotd_ray.progress import Progress
from gotd_ray.stages import embed
from gotd_ray.storage import list_files
from gotd_ray.text.documents import document_id

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "larch"]
NAMES = ("a", "b", "c", "d", "e")
RUN = config.Run.model_validate({"out": "unused", "corpus": {"paths": "unused"}, "target": {"paths": "unused"}})
SITE = Site(Resources(1, 0, 1, 1, private=True), "cpu", Progress())


class Killed(BaseException):
    """SIGKILL: nothing of the run's own code runs after it."""


@dataclass
class World:
    """A corpus, its index, and what is about to go wrong."""

    folder: Path
    uri: str = ""
    """How a run names the folder."""

    storage: config.Storage = field(default_factory=config.Storage)
    clock: int = 1_700_000_000
    texts: dict[str, list[str]] = field(default_factory=dict)
    """The model: what each file holds."""

    breaks: dict[str, int] = field(default_factory=dict)
    """By file name, bytes after which the storage fails in the next run."""

    steps: int | None = None
    """Rows from the readers after which the next run is killed."""

    lost_vectors: bool = False
    """Whether a part of them was deleted since they were last looked at."""

    encoded: Counter[str] = field(default_factory=Counter)
    """How often each document was."""

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    def write(self, name: str, seed: int) -> None:
        """A file with some documents; some of them stand in other files, too, and some lines are broken."""
        rng = np.random.default_rng(seed)
        count = int(rng.integers(0, 7))
        texts = [" ".join(rng.choice(WORDS, 9)) for _ in range(count)]
        texts += ["this sentence stands in many a file of this corpus"] * int(rng.integers(0, 2))
        self.texts[name] = texts
        path = self.corpus / f"{name}.jsonl"
        path.write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in texts) + "{broken\n" * int(rng.integers(0, 2))
        )
        self.clock += 1
        os.utime(path, (self.clock, self.clock))

    def collections(self) -> dict[str, Collection]:
        if self.uri != str(self.folder):
            time.sleep(0.15)  # the server remembers what was in a folder
        text = config.Text(paths=[f"{self.uri}/corpus"], max_bad_files=1.0, max_bad_rows=1.0)
        files = list_files(text, self.storage)
        index = Index(f"{self.uri}/rows", f"{self.uri}/vectors", self.storage)
        return {"corpus": Collection(text, files, index)}

    def run(self) -> None:
        """A run as the stage does it. Its breaks and its end come once."""
        collections = self.collections()
        artifact = Artifact(f"{self.uri}/embed", "key", self.storage)
        try:
            facts = embed.embed(embed.Sets(collections, RUN.encoder, 2, RUN.chunks, self.storage), artifact, SITE)
        except Killed:
            return
        finally:
            self.breaks, self.steps = {}, None
        self.check(collections["corpus"], set(facts["unreached"]))
        reached = [file for file in collections["corpus"].files if file.uri not in facts["unreached"]]
        assert facts["corpus"]["documents"] == sum(len(self.texts[Path(file.uri).stem]) for file in reached)
        assert facts["corpus"]["rows_read"] == facts["corpus"]["documents"] + facts["corpus"]["skipped"].get(
            "broken_json", 0
        )

    def check(self, collection: Collection, unreached: set[str]) -> None:
        """The candidates are the documents of the files that could be read to their end: each once, and no other."""
        snapshot, missing = collection.index.snapshot(collection.files)
        assert {file.uri for file in missing} == unreached
        table = snapshot.read(["doc_id", "path", "row"])
        found = Counter(
            zip(table["doc_id"].to_pylist(), table["path"].to_pylist(), table["row"].to_pylist(), strict=True)
        )
        wanted = Counter(
            (document_id(text), file.uri, row)
            for file in collection.files
            if file.uri not in unreached
            for row, text in enumerate(self.texts[Path(file.uri).stem])
        )
        assert found == wanted
        assert snapshot.rows == wanted.total()
        try:
            documents = snapshot.documents(2)
        except LostError:
            assert self.lost_vectors, "nobody took them"
            self.lost_vectors = False
            self.run()
            return
        self.lost_vectors = False
        assert documents.ids.astype(str).tolist() == sorted({doc_id for doc_id, _, _ in wanted})
        assert documents.vectors.tolist() == [vector_of(doc_id) for doc_id in documents.ids.astype(str)]

    def lose(self, what: str, place: int) -> None:
        """An entry or a part goes, or is cut short."""
        folder = self.folder / {"entry": "rows/entries", "rows": "rows/parts", "vectors": "vectors/parts"}[what]
        files = sorted(folder.iterdir()) if folder.exists() else []
        if not files:
            return
        if what == "vectors":
            self.lost_vectors = True
            self.encoded.clear()
        path = files[place % len(files)]
        if what == "entry" and place % 2:
            path.write_bytes(path.read_bytes()[:50])
        else:
            path.unlink()


def vector_of(doc_id: str) -> list[float]:
    """What the encoder makes of a document."""
    return [float(int(doc_id[:2], 16)), float(int(doc_id[2:4], 16))]


class Worlds:
    """The last one is in use."""

    def __init__(self) -> None:
        self.last = World(Path())


@pytest.fixture(scope="module")
def in_process() -> Iterator[Worlds]:
    """The stage without Ray and without a model; its storage fails, and its process dies, as the world says."""
    worlds = Worlds()
    patch = pytest.MonkeyPatch()

    def payload(documents: list[Any], _: Any) -> pa.Table:
        return pa.table(
            {"doc_id": [one.doc_id for one in documents], "tokens": pa.array([1] * len(documents), pa.int32())}
        )

    def stream(jobs: list[embed.Job], run: config.Run, site: Site) -> Any:
        """Rows of the units in turns, as several readers would give them."""
        world, seen, claims = worlds.last, 0, Claims()

        def reader(n: int, job: embed.Job) -> Iterator[pa.Table]:
            index = job.collection.index

            def claim(ids: np.ndarray) -> tuple[np.ndarray, list[int]]:
                return claims.claim(index.vectors, n, "", ids)

            return units.read_unit(job.unit, index, claim, job.collection.text, run.chunks, run.encoder, run.storage)

        readers = [(n, job, reader(n, job)) for n, job in enumerate(jobs)]

        class Stream:
            def iter_rows(self) -> Iterator[dict[str, Any]]:
                nonlocal seen
                while readers:
                    n, job, reader = readers.pop(0)
                    row = next(reader, None)
                    if row is None:
                        continue
                    readers.append((n, job, reader))
                    (facts,) = row.to_pylist()
                    if facts["part"]:
                        table = pa.ipc.open_stream(facts["payload"]).read_all()
                        ids = table["doc_id"].to_pylist()
                        world.encoded.update(ids)
                        values = pa.array(np.array([vector_of(one) for one in ids], np.float16).reshape(-1))
                        column = pa.FixedSizeListArray.from_arrays(values, 2)
                        part = Part.named(facts["part"])
                        assert part
                        job.collection.index.vectors.write(part, table.append_column("vector", column))
                    seen += 1
                    if world.steps is not None and seen > world.steps:
                        raise Killed
                    yield facts | {"job": n, "tokens": 0}

        return Stream()

    read = storage.InputFile.readinto

    def readinto(self: Any, buffer: Any) -> int:
        name = Path(self.uri).stem
        if name not in worlds.last.breaks:
            return read(self, buffer)
        left = worlds.last.breaks[name] - self.tell()
        if left <= 0:
            self.failure = OSError("the network went away")
            raise self.failure
        return read(self, memoryview(buffer)[:left])

    opened = storage.InputFile.__init__

    def remember(self: Any, uri: str, settings: config.Storage) -> None:
        self.uri = uri
        opened(self, uri, settings)

    patch.setattr(units, "_payload", payload)
    patch.setattr(units, "PART_DOCUMENTS", 2)
    patch.setattr(units, "UNIT_BYTES", (300, 600))
    patch.setattr(embed, "_stream", stream)
    patch.setattr(embed, "_do", lambda merges: [merge.merge(one) for one in merges])
    patch.setattr(merge, "PART_BYTES", 4 * merge.ROW_BYTES)
    patch.setattr(merge, "FAN_IN", 3)
    patch.setattr(embed.metrics, "embedded", lambda *_: None)
    patch.setattr(storage.InputFile, "readinto", readinto)
    patch.setattr(storage.InputFile, "__init__", remember)
    yield worlds
    patch.undo()


STEP = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.integers(0, 10**6)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("break"), st.sampled_from(NAMES), st.integers(0, 400)),
    st.tuples(st.just("kill"), st.just(""), st.integers(0, 8)),
    st.tuples(st.just("run"), st.just(""), st.just(0)),
    st.tuples(st.just("lose"), st.sampled_from(["entry", "rows", "vectors"]), st.integers(0, 9)),
)


Steps = list[tuple[str, str, int]]
SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
GIVEN = {"first": st.integers(0, 10**6), "steps": st.lists(STEP, min_size=4, max_size=14)}


@settings(max_examples=200, phases=[Phase.generate], **SETTINGS)  # type: ignore[arg-type]
@given(**GIVEN)
def test_every_document_is_a_candidate_once(in_process: Worlds, first: int, steps: Steps) -> None:
    with tempfile.TemporaryDirectory() as folder:
        in_process.last = World(Path(folder), folder)
        live(in_process.last, first, steps)


@pytest.mark.slow
@settings(max_examples=8, phases=[Phase.generate], **SETTINGS)  # type: ignore[arg-type]
@given(**GIVEN)
def test_the_same_on_a_real_s3_server(in_process: Worlds, s3: S3Server, first: int, steps: Steps) -> None:
    """Corpus and index are in a bucket of a server that knows no conditional writes."""
    name = uuid.uuid4().hex
    folder = s3.folder / "bucket" / name
    folder.mkdir()
    in_process.last = World(folder, f"s3://bucket/{name}", config.Storage(endpoint=s3.endpoint))
    live(in_process.last, first, steps)


def live(world: World, first: int, steps: Steps) -> None:
    """Let the steps happen, and look at the end."""
    world.corpus.mkdir()
    for number, name in enumerate(NAMES[:3]):
        world.write(name, first + number)
    for what, name, value in steps:
        if what == "write":
            world.write(name, value)
        elif what == "remove" and len(world.texts) > 1 and name in world.texts:
            del world.texts[name]
            (world.corpus / f"{name}.jsonl").unlink()
        elif what == "break":
            world.breaks[name] = value
        elif what == "kill":
            world.steps = value
            world.run()
        elif what == "run":
            world.run()
        elif what == "lose":
            world.lose(name, value)
    world.breaks = {}
    world.run()
    world.check(world.collections()["corpus"], set())
    assert set(world.encoded.values()) <= {1}, "a text was encoded twice"
