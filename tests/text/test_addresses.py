"""Properties of gotd_ray.text.addresses."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from warcio.warcwriter import WARCWriter

from gotd_ray import config
from gotd_ray.text.addresses import texts_at
from gotd_ray.text.documents import Document, read_documents
from gotd_ray.text.rows import BadFile
from gotd_ray.text.tally import Tally

LOCAL = config.Storage()
CHUNKS = config.Chunks(max_chars=200)
TEXT = config.Text(paths=["unused"])
TEXTS = [
    " ".join(f"Document {i} says sentence number {j} with  some words." for j in range(1 + i % 12)) for i in range(300)
]


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def parquet(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"other": range(len(texts)), "text": texts}), buffer, row_group_size=64)
    return buffer.getvalue()


def wet(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=True)
    writer.write_record(writer.create_warcinfo_record("a.wet.gz", {"software": "test"}))
    for text in texts:
        body = io.BytesIO(text.encode())
        writer.write_record(writer.create_warc_record("http://x.org/", "conversion", payload=body))
    return buffer.getvalue()


FILES = {
    "a.jsonl": jsonl(TEXTS),
    "a.jsonl.gz": gzip.compress(jsonl(TEXTS)),
    "a.jsonl.zst": zstandard.compress(jsonl(TEXTS)),
    "a.parquet": parquet(TEXTS),
    "a.wet.gz": wet(TEXTS),
    "a.txt": "\n\n".join(TEXTS).encode(),
    "a.md.gz": gzip.compress("\n\n".join(TEXTS).encode()),
}


def documents(path: Path) -> list[Document]:
    return list(read_documents(str(path), TEXT, CHUNKS, LOCAL, Tally()))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("step", [1, 37])
def test_every_document_is_found_again_at_its_address(tmp_path: Path, name: str, step: int) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    some = documents(path)[5::step]
    assert len(some) > 5
    wanted = {(one.row, one.chunk): one.doc_id for one in some}
    assert texts_at(str(path), wanted, TEXT, CHUNKS, LOCAL) == {one.doc_id: one.text for one in some}


def test_no_address_reads_nothing() -> None:
    assert texts_at("/gone/a.jsonl", {}, TEXT, CHUNKS, LOCAL) == {}


def test_a_text_that_changed_is_absent_and_the_others_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(TEXTS[:4]))
    wanted = {(one.row, one.chunk): one.doc_id for one in documents(path) if one.row != 3}
    path.write_bytes(jsonl([TEXTS[0], "Something else stands here now, which nobody asked for.", TEXTS[2]]))
    assert set(texts_at(str(path), wanted, TEXT, CHUNKS, LOCAL)) == {
        doc_id for (row, _), doc_id in wanted.items() if row != 1
    }


def test_only_the_row_groups_of_the_wanted_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(FILES["a.parquet"])
    (one,) = [one for one in documents(path) if one.row == 299 and one.chunk == 0]
    group = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(FILES["a.parquet"])
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(data)
    assert texts_at(str(path), {(299, 0): one.doc_id}, TEXT, CHUNKS, LOCAL) == {one.doc_id: one.text}
    with pytest.raises(BadFile):
        documents(path)


def test_a_vanished_file_is_an_error_and_a_damaged_one_gives_what_it_can(tmp_path: Path) -> None:
    path = tmp_path / "a.wet.gz"
    path.write_bytes(FILES["a.wet.gz"])
    wanted = {(one.row, one.chunk): one.doc_id for one in documents(path)}
    path.write_bytes(FILES["a.wet.gz"][:-300])
    assert 0 < len(texts_at(str(path), wanted, TEXT, CHUNKS, LOCAL)) < len(wanted)
    path.unlink()
    with pytest.raises(BadFile) as caught:
        texts_at(str(path), wanted, TEXT, CHUNKS, LOCAL)
    assert caught.value.transient
