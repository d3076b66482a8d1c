"""The n-grams of many documents on file: cut into parts of bounded size, nothing lost, each id once when read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpora import documents

from gotd_ray.config import Storage
from gotd_ray.select.dsir import features
from gotd_ray.stages import dsir
from gotd_ray.text.documents import Document, document_id


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
