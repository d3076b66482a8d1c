"""A corpus on file with an index of vectors that tell nothing, selected from in one process."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import documents
from indexed import indexed
from rich.console import Console
from solved import solve_rows

from gotd_ray import config, methods
from gotd_ray.artifacts import Artifact
from gotd_ray.choosing.decontaminate import NgramIndex
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.filters import check_decontamination
from gotd_ray.index import ROWS, Embedded, Snapshot
from gotd_ray.preflight import Count, count_documents
from gotd_ray.progress import Progress
from gotd_ray.shards.read_back import Hand, ReadBack
from gotd_ray.stages import select
from gotd_ray.storage import list_files
from gotd_ray.text.addresses import texts_of_files
from gotd_ray.text.documents import read_documents
from gotd_ray.text.tally import Tally

WIDTH = 6


def unlike(count: int) -> list[str]:
    """Texts none of which shares a run of words with another."""
    found: list[str] = []
    for text in (" ".join(text.split()) for text, _ in documents()[0] if 100 < len(text) < 900):
        if len(text.split()) > 15 and not NgramIndex(13, [(one, one) for one in found]).match(text):
            found.append(text)
        if len(found) == count:
            break
    return found


TEXTS = unlike(40)
TARGET = [" ".join(text.split()) for text, _ in documents()[1] if 100 < len(text) < 900][:8]


class Selected:
    """A corpus with an index of random vectors, selected from in this process."""

    def __init__(self, folder: Path, corpus: Mapping[str, list[str]], **select_settings: Any):
        self.folder = folder
        for name, texts in corpus.items():
            write(folder / "corpus" / name, texts)
        write(folder / "target" / "target.jsonl", TARGET)
        self.console = Console(record=True, width=4000, file=io.StringIO())
        settings = {"method": "random", "budget": 10, "near_duplicate": None} | select_settings
        self.run = config.Run.model_validate(
            {
                "out": f"{folder}/out",
                "corpus": {"paths": f"{folder}/corpus"},
                "target": {"paths": f"{folder}/target"},
                "chunks": {"max_chars": None},
                "solve": {"shards": 1, "landmarks": 16},
                "select": settings,
            }
        )
        self.files = list_files(self.run.corpus, self.run.storage)
        self.embedded = Embedded(self._index("corpus"), self._index("target"), WIDTH)
        self.artifact = Artifact(f"{folder}/out/select", "key", config.Storage())
        self.site = Site(Resources(2, 0, 1, 2, private=True), "cpu", Progress(self.console))

    def _index(self, name: str) -> Snapshot:
        text: config.Text = getattr(self.run, name)
        files = list_files(text, self.run.storage)
        found, tallies = [], {}
        for file in files:
            tally = Tally()
            found += list(read_documents(file, text, self.run.chunks, self.run.storage, tally))
            tallies[file.uri] = tally.to_dict()
        vectors = np.array([np.random.default_rng(int(one.doc_id[:8], 16)).normal(size=WIDTH) for one in found])
        chars = [len(one.text) for one in found]
        rows = {name: [getattr(one, name) for one in found] for name in ROWS.names if name != "chars"} | {
            "chars": chars
        }
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return indexed(self.folder / "index" / name, files, tallies, rows | {"chars": chars}, vectors, chars)

    def select(self, before: Artifact | None = None) -> dict[str, Any]:
        """``before``: what the scores come from."""
        run, settings = self.run, self.run.select
        unwanted = list_files(settings.decontaminate, run.storage) if settings.decontaminate else []
        given = select.Choice(
            settings,
            methods.find(settings.method),
            SimpleNamespace(read=lambda: self.embedded, collections={"corpus": SimpleNamespace(files=self.files)}),
            run.corpus,
            run.chunks,
            run.storage,
            run.seed if settings.seed is None else settings.seed,
            run.target.proportions,
            before,
            run.solve,
            unwanted,
        )
        return select.select(given, self.artifact, self.site)

    def check(self, *counted: Count) -> dict[str, Any] | None:
        """What is searched for, before the run."""
        settings, storage = self.run.select, self.run.storage
        files = list_files(settings.decontaminate, storage) if settings.decontaminate else []
        return check_decontamination(settings, files, storage, *counted)

    def solve(self) -> Artifact:
        artifact = Artifact(f"{self.folder}/out/solve", "key", config.Storage())
        solve_rows(self.run, self.embedded, artifact, self.site)
        return artifact

    def table(self, name: str) -> list[dict[str, Any]]:
        return pq.read_table(self.artifact.path(name)).to_pylist()

    @property
    def said(self) -> str:
        return self.console.export_text(clear=False)

    def refused(self, *given: Any) -> str:
        """The message, one line; nothing is committed."""
        with pytest.raises(UserError) as raised:
            self.select(*given)
        message = str(raised.value)
        assert "\n" not in message and "\x1b" not in message and "Traceback" not in message
        assert self.artifact.manifest() is None
        return message


def write(path: Path, texts: list[str], key: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({key: texts}), path)
    else:
        path.write_text("".join(json.dumps({key: text}) + "\n" for text in texts))


def counted(run: config.Run) -> dict[str, Count]:
    """What a look at corpus and target finds."""
    return {
        name: count_documents(
            name, name, list_files(getattr(run, name), run.storage), getattr(run, name), run.chunks, run.storage
        )
        for name in ("corpus", "target")
    }


def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading tasks run in this process, one after the other."""

    def found(self: ReadBack, hands: list[Hand]) -> Iterator[tuple[pa.Table, dict[str, str]]]:
        return (one for hand in hands for one in texts_of_files(*hand, self._reading))

    monkeypatch.setattr(ReadBack, "_found", found)
