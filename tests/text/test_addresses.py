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
from gotd_ray.choosing.decontaminate import NgramIndex
from gotd_ray.text import addresses
from gotd_ray.text.addresses import FOUND, Reading, texts_at, texts_of_files
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


def found_at(path: str, wanted: dict[tuple[int, int], str]) -> dict[str, str]:
    return dict(texts_at(path, wanted, TEXT, CHUNKS, LOCAL))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("step", [1, 37])
def test_every_document_is_found_again_at_its_address(tmp_path: Path, name: str, step: int) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    some = documents(path)[5::step]
    assert len(some) > 5
    wanted = {(one.row, one.chunk): one.doc_id for one in some}
    assert found_at(str(path), wanted) == {one.doc_id: one.text for one in some}


def test_no_address_reads_nothing() -> None:
    assert found_at("/gone/a.jsonl", {}) == {}


def test_a_text_that_changed_is_absent_and_the_others_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(TEXTS[:4]))
    wanted = {(one.row, one.chunk): one.doc_id for one in documents(path) if one.row != 3}
    path.write_bytes(jsonl([TEXTS[0], "Something else stands here now, which nobody asked for.", TEXTS[2]]))
    assert set(found_at(str(path), wanted)) == {doc_id for (row, _), doc_id in wanted.items() if row != 1}


def test_only_the_row_groups_of_the_wanted_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(FILES["a.parquet"])
    (one,) = [one for one in documents(path) if one.row == 299 and one.chunk == 0]
    group = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(FILES["a.parquet"])
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(data)
    assert found_at(str(path), {(299, 0): one.doc_id}) == {one.doc_id: one.text}
    with pytest.raises(BadFile):
        documents(path)


def test_a_vanished_file_is_an_error_and_a_damaged_one_gives_what_it_can(tmp_path: Path) -> None:
    path = tmp_path / "a.wet.gz"
    path.write_bytes(FILES["a.wet.gz"])
    wanted = {(one.row, one.chunk): one.doc_id for one in documents(path)}
    path.write_bytes(FILES["a.wet.gz"][:-300])
    assert 0 < len(found_at(str(path), wanted)) < len(wanted)
    path.unlink()
    with pytest.raises(BadFile) as caught:
        found_at(str(path), wanted)
    assert caught.value.transient


def test_a_task_hands_on_its_texts_in_small_tables_and_tells_which_files_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "BYTES", 3000)
    for name, kind in (("a.jsonl", "a.jsonl"), ("b.parquet", "a.parquet")):
        (tmp_path / name).write_bytes(FILES[kind])
    one, two = (documents(tmp_path / name) for name in ("a.jsonl", "b.parquet"))
    wanted = [*one[5:90], *two[7:60:2], *two[:3]]
    files = {one[0].path: 85, two[0].path: len(wanted) - 85, f"{tmp_path}/gone.jsonl": 1}
    lost = Document("f" * 32, "", "", f"{tmp_path}/gone.jsonl", 3, 0)
    changed = Document("e" * 32, "", "", one[0].path, 0, 0)
    wanted[3] = changed
    rows = [
        {"row": at.row, "chunk": at.chunk, "doc_id": at.doc_id, "place": 1000 - place}
        for place, at in enumerate([*wanted, lost])
    ]
    unwanted = NgramIndex(13, [("e:1", wanted[50].text)])
    answers = list(texts_of_files(files, pa.Table.from_pylist(rows), Reading(TEXT, CHUNKS, LOCAL, unwanted)))
    tables = [table for table, _ in answers if len(table)]
    assert len(tables) > 3
    assert max(sum(map(len, filter(None, table["text"].to_pylist()))) for table in tables) < 3000 + 200
    found = {row["place"]: row for row in pa.concat_tables(tables).to_pylist()}
    assert all(table.schema == FOUND for table, _ in answers)
    assert set(found) == {1000 - place for place, at in enumerate(wanted) if at is not changed}
    for place, at in enumerate(wanted):
        if at is changed:
            continue
        row = found[1000 - place]
        shared = unwanted.match(at.text)
        assert row["text"] == (None if shared else at.text)
        assert row["eval_id"] == (shared and shared.eval_id)
        assert row["span"] == (shared and shared.span)
    assert found[950]["eval_id"] == "e:1"
    problems = {path: why for _, some in answers for path, why in some.items()}
    assert problems.pop(one[0].path) == "some of its texts are no longer what they were"
    (gone,) = problems.items()
    assert gone[0] == lost.path
    assert gone[1].startswith("vanished")
