"""The n-grams of many documents on file: cut into parts of bounded size, nothing lost, each id once when read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from corpora import documents
from indexed import index_at
from selected import TEXTS, Selected, read_here, write

from gotd_ray.artifacts import Artifact
from gotd_ray.choosing.dsir import features
from gotd_ray.config import Storage
from gotd_ray.errors import UserError
from gotd_ray.index import Collection, Vectors
from gotd_ray.results import LOG_WEIGHTS
from gotd_ray.stages import dsir
from gotd_ray.storage import list_files
from gotd_ray.text.documents import Document, document_id
from gotd_ray.text.rows import BadFile


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch)


def test_parts_are_bounded_and_hold_every_document_and_ranges_give_each_id_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dsir, "BATCH_CHARACTERS", 2000)
    monkeypatch.setattr(dsir, "PART_NGRAMS", 3000)
    monkeypatch.setattr(dsir, "RANGE_NGRAMS", 1500)
    texts = [text for text, _ in documents()[0][:80]]
    given = [Document(document_id(text), text, "s", "p", row, 0) for row, text in enumerate(texts + texts[:30])]
    parts = list(dsir._parts(dsir._batches(iter(given))))
    assert [doc_id for ids, _ in parts for doc_id in ids] == [document.doc_id for document in given]
    assert all(sum(len(batch.buckets) for batch in found[:-1]) < 3000 for _, found in parts)
    assert len(parts) > 3

    paths = [str(tmp_path / f"{number}.parquet") for number in range(len(parts))]
    for path, (ids, found) in zip(paths, parts, strict=True):
        dsir._write_ngrams(path, ids, found, Storage())
    whole = features(texts)
    ranges = dsir._ranges(int(whole.offsets[-1]))
    read = [dsir._distinct(paths, low, high, Storage()) for low, high in ranges]
    assert len(ranges) >= 8
    assert np.concatenate([ids for ids, _ in read]).astype(str).tolist() == sorted(map(document_id, texts))
    assert np.array_equal(np.sum([found.counts() for _, found in read], axis=0), whole.counts())
    buckets = {
        doc_id: found.buckets[low:high].tolist()
        for ids, found in read
        for doc_id, (low, high) in zip(ids.astype(str), pairwise(found.offsets), strict=True)
    }
    assert buckets == {document_id(text): features([text]).buckets.tolist() for text in texts}


class Stage:
    """The stage dsir over the corpus of a selection, its tasks in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, corpus: dict[str, list[str]]):
        self.here = Selected(folder, corpus, method="dsir", dsir_min_words=4)
        for name in ("_ngrams", "_count", "_weigh"):
            monkeypatch.setattr(dsir, name, SimpleNamespace(remote=getattr(dsir, name)._function))
        monkeypatch.setattr(dsir, "_all", lambda answers, _: answers)
        monkeypatch.setattr(dsir, "ray", SimpleNamespace(put=lambda value: value))
        self.artifact = Artifact(f"{folder}/out/dsir", "key", Storage())
        run = self.here.run
        self.collections = {
            name: Collection(text, list_files(text, run.storage), index_at(folder / "index" / name))
            for name, text in (("corpus", run.corpus), ("target", run.target))
        }

    def __call__(self) -> dict[str, Any]:
        vectors = Vectors("", self.collections, frozenset(), 1)
        return dsir.dsir(dsir.Sets(vectors, self.here.run.chunks, self.here.run.storage), self.artifact, self.here.site)


def test_what_was_read_and_left_out_stands_in_the_manifest_and_an_unchanged_corpus_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch, {"a.jsonl": [*TEXTS[:10], "", "too short"], "b.jsonl": TEXTS[5:20]})
    facts = stage()["corpus"]
    assert {name: facts[name] for name in ("documents", "documents_read", "documents_embedded", "rows_read")} == {
        "documents": 20,
        "documents_read": 25,
        "documents_embedded": 25,
        "rows_read": 27,
    }
    assert facts["skipped"] == {"empty_text": 1, "too_short": 1}
    assert facts["bad_files"] == []
    assert "dsir: " not in stage.here.said
    names = [path.name for path in Path(stage.artifact.path(LOG_WEIGHTS)).iterdir()]
    assert names == ["part-00000-of-00001.parquet"]
    assert stage.here.select(stage.artifact)["documents"] == 10


def test_files_that_have_gone_or_changed_since_they_were_embedded_are_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a.parquet": TEXTS[:10], "b.jsonl": TEXTS[10:20], "c.parquet": TEXTS[20:30], "d.jsonl": TEXTS[30:]}
    stage = Stage(tmp_path, monkeypatch, files)
    (tmp_path / "corpus" / "a.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "corpus" / "b.jsonl").unlink()
    write(tmp_path / "corpus" / "c.parquet", TEXTS[20:30], key="body")
    facts = stage()["corpus"]
    assert (facts["documents_read"], facts["documents_embedded"]) == (10, 40)
    reasons = {Path(bad["uri"]).name: bad["reason"] for bad in facts["bad_files"]}
    assert reasons == {"a.parquet": "unreadable", "b.jsonl": "vanished"}
    assert facts["skipped"] == {"missing_column": 10}
    said = stage.here.said
    assert "dsir: 10 documents of the corpus were read, but 40 were embedded: files have changed in between" in said
    assert f"dsir: 2 files of the corpus could not be read whole: {tmp_path}/corpus/a.parquet: unreadable (" in said
    assert stage.here.select(stage.artifact)["left_out"] == 30


def test_a_storage_that_does_not_answer_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, {"a.parquet": TEXTS[:10]})

    def broken(*_: Any) -> Iterator[Document]:
        raise BadFile("io_error", "OSError: no route to host", transient=True)
        yield

    monkeypatch.setattr(dsir, "read_documents", broken)
    with pytest.raises(UserError, match=r"a\.parquet cannot be read: io_error: OSError: no route to host\. Run again"):
        stage()
    assert stage.artifact.manifest() is None
