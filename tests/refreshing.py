"""Refreshes without Ray and without an encoder: the stages leave what they would, the documents by the order of ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_run

from gotd_ray import config, pipeline, refresh
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.index import ROWS, Collection, Entry, Part, entry_name
from gotd_ray.ot.potentials import Potentials
from gotd_ray.progress import Progress
from gotd_ray.results import FILES, NUMBERS, PAGE, POTENTIALS, SUBSET, files_table
from gotd_ray.text.documents import document_id, read_documents
from gotd_ray.text.tally import Tally

WIDTH = 4


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


class Stages:
    """Stages that leave what the real ones would.

    Attributes:
        encoder: its name; another is another encoder.
        started: names of the stages that ran.
        at_the_report: what happens then.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoder = "first"
        self.started: list[str] = []
        self.at_the_report: Callable[[], object] = lambda: None
        works = {"embed": self.embed, "solve": self.solve, "select": self.select, "report": self.report}
        stages = [replace(one, work=self.logged(one.name, works.get(one.name, self.train))) for one in pipeline.STAGES]
        monkeypatch.setattr(pipeline, "STAGES", tuple(stages))
        monkeypatch.setattr(pipeline, "connected", self.connected)
        monkeypatch.setattr(pipeline, "encoder_of", self.encoder_of)

    @contextmanager
    def connected(self, *_: object) -> Iterator[Resources]:
        yield Resources(2, 0, 1, 2, private=True)

    def encoder_of(self, run: config.Run, gpus: int | None = None) -> tuple[str, dict[str, Any]]:
        return "cpu", {"kind": "fake", "model": self.encoder, "sha256": self.encoder, "width": WIDTH}

    def logged(self, name: str, work: Any) -> Any:
        def done(given: Any, artifact: Artifact, site: Site) -> Any:
            self.started.append(name)
            artifact.begin()
            return artifact.commit(work(given, artifact) | {"seconds": 1.0})

        return done

    def embed(self, given: Any, artifact: Artifact) -> dict[str, Any]:
        sets = {name: one.files for name, one in given.collections.items()}
        counts = {name: self._embedded(one, given.chunks) for name, one in given.collections.items()}
        artifact.write(FILES, parquet(files_table(sets)))
        return {"unreached": []} | counts

    def _embedded(self, collection: Collection, chunks: config.Chunks) -> dict[str, Any]:
        index, now = collection.index, 0
        held = {doc.decode() for ids in index.vectors.ids(index.vectors.there()) for doc in ids}
        for file in collection.index.snapshot(collection.files)[1]:
            tally = Tally()
            found = list(read_documents(file, collection.text, chunks, index.storage, tally))
            columns = {name: [getattr(one, name) for one in found] for name in ROWS.names if name != "chars"}
            rows = pa.table({name: columns.get(name, [1] * len(found)) for name in ROWS.names}, ROWS)
            new = sorted({one.doc_id for one in found} - held)
            held |= set(new)
            now += len(new)
            if new:
                zeros = pa.array(np.ones(len(new) * WIDTH, np.float16))
                vectors = pa.FixedSizeListArray.from_arrays(zeros, WIDTH)
                table = pa.table({"doc_id": new, "tokens": pa.array([1] * len(new), pa.int32()), "vector": vectors})
                index.vectors.write(Part.of(entry_name([file]), table), table)
            part = Part.of(entry_name([file]), rows)
            index.rows.write(part, rows)
            index.entries.commit(Entry(entry_name([file]), (file,), (part,), {file.uri: tally.to_dict()}))
        return {"documents": index.snapshot(collection.files)[0].rows, "embedded_now": now}

    def solve(self, given: Any, artifact: Artifact) -> dict[str, Any]:
        facts = {"encoder": self.encoder_of(given)[1], "last_move": 0.0}
        ones = np.ones((1, WIDTH), np.float32)
        potentials = Potentials(ones, np.ones(1), np.zeros(1), 1.0, facts=facts, target_ids=np.array([b"0" * 32]))
        artifact.write(POTENTIALS, potentials.to_bytes())
        drift = 0.125 if given.earlier else None
        return {"reason": "converged", "passes": 1, "residual": 0.0, "drift": drift}

    def select(self, given: Any, artifact: Artifact) -> dict[str, Any]:
        """The smallest ids are taken."""
        rows = given.vectors.read().candidates.read(["doc_id", "source"]).to_pylist()
        sources = {row["doc_id"]: row["source"] for row in rows}
        taken = sorted(sources)[: given.settings.budget]
        columns = {"doc_id": taken, "source": [sources[one] for one in taken], "rank": range(1, len(taken) + 1)}
        artifact.write(SUBSET, parquet(pa.table({name: list(values) for name, values in columns.items()})))
        scores = pa.table({"doc_id": sorted(sources), "score": [float(int(one[:4], 16)) for one in sorted(sources)]})
        artifact.write("scores/part-00000.parquet", parquet(scores))
        return {"candidates": len(sources), "documents": len(taken), "tokens": len(taken)}

    def train(self, given: Any, artifact: Artifact) -> dict[str, Any]:
        artifact.write("model/weights", b"of a model")
        return {}

    def report(self, given: Any, artifact: Artifact) -> dict[str, Any]:
        self.at_the_report()
        divergence = {"corpus": 0.3, "mixture": 0.2, "subset": 0.1}
        artifact.write(NUMBERS, json.dumps({"divergence": divergence}).encode())
        artifact.write(PAGE, b"<html>")
        return {}


class Corpus:
    """A folder with a corpus of small files and a target, and refreshes of it."""

    def __init__(self, folder: Path, files: int = 6, **sections: Any) -> None:
        self.folder, self.sections = folder, {"select": {"budget": 5, "export_scores": True}} | sections
        for number in range(files):
            self.write(f"f{number}", number)
        target = folder / "target" / "t.jsonl"
        target.parent.mkdir(parents=True)
        target.write_text(
            json.dumps({"text": "a text of the target, which is long enough to count as a document", "source": "t"})
            + "\n"
        )

    def write(self, name: str, seed: int, texts: int = 4) -> None:
        path = self.folder / "corpus" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"text {seed}-{number} of a corpus that changes every day, long enough to count" for number in range(texts)
        ]
        path.write_text("".join(json.dumps({"text": line, "source": name}) + "\n" for line in lines))

    def delete(self, name: str) -> None:
        (self.folder / "corpus" / f"{name}.jsonl").unlink()

    def run(self, **sections: Any) -> config.Run:
        return make_run(self.folder / "out", self.folder, **(self.sections | sections))

    def refresh(self, **sections: Any) -> refresh.Refreshed:
        return refresh.refresh(self.run(**sections), Progress())

    @property
    def pointer(self) -> dict[str, Any]:
        return json.loads((self.folder / "out" / "current.json").read_text())

    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "out" / "versions").iterdir())

    def ids(self) -> list[str]:
        """Of all documents that are in the corpus now, in no order."""
        rows = [json.loads(line) for path in self.folder.glob("corpus/*") for line in path.read_text().splitlines()]
        return [document_id(row["text"]) for row in rows]

    def published(self) -> tuple[int, list[str]]:
        """The version that a reader sees, and its ids; all that the pointer promises is there."""
        found, out = self.pointer, self.folder / "out"
        version = out / "versions" / f"{found['version']:04d}"
        assert json.loads((out / found["changes"]).read_text())["version"] == found["version"]
        for stage in ("embed", "solve", "select", "report"):
            assert json.loads((version / stage / "manifest.json").read_text())["key"]
        assert (out / found["report"]).read_bytes()
        assert all((out / path / "weights").read_bytes() for path in found["models"].values())
        return found["version"], pq.read_table(out / found["subset"])["doc_id"].to_pylist()
