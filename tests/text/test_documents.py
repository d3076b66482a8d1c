"""Properties of gotd_ray.text.documents."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import S3Server

from gotd_ray import config, filesystems, storage
from gotd_ray.errors import UserError
from gotd_ray.text.documents import Document, Labelled, document_id, read_documents
from gotd_ray.text.rows import BadFile
from gotd_ray.text.tally import Tally, check_bad_rows

LOCAL = config.Storage()
CHUNKS = config.Chunks()
SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."


def read(path: Path | str, chunks: config.Chunks = CHUNKS, **text: Any) -> tuple[list[Document], Tally]:
    tally = Tally()
    settings = config.Text(paths=[str(path)], **text)
    return list(read_documents(str(path), settings, chunks, LOCAL, tally)), tally


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_id_depends_on_the_content_alone(tmp_path: Path) -> None:
    texts = [SENTENCE.format(i) for i in range(5)]
    first, _ = read(write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts]))
    pq.write_table(pa.table({"text": [f" {text}\r\n" for text in reversed(texts)]}), tmp_path / "b.parquet")
    second, _ = read(tmp_path / "b.parquet")
    assert [one.doc_id for one in first] == [one.doc_id for one in reversed(second)]
    assert len({one.doc_id for one in first}) == 5


def test_the_id_is_pinned_so_that_old_indexes_stay_valid() -> None:
    assert document_id("Gr\u00fc\u00dfe") == "c483baa27a9abd2202924662a88aaf32"


def test_every_row_is_a_document_or_is_counted(tmp_path: Path) -> None:
    rows = [
        {"text": SENTENCE, "source": "kept"},
        {"text": SENTENCE, "source": "left out"},
        {"text": "short"},
        {"text": " \u200b "},
        {"text": None},
        {"text": 7},
        {"other": SENTENCE},
        ["text"],
    ]
    documents, tally = read(
        write_jsonl(tmp_path / "web.jsonl", rows), source_column="source", exclude_sources=["left out"]
    )
    assert [(one.source, one.row, one.chunk, one.text) for one in documents] == [("kept", 0, 0, SENTENCE)]
    assert (tally.rows, tally.documents, tally.bad_rows) == (8, 1, 5)
    assert tally.reasons == {
        "excluded_source": 1,
        "too_short": 1,
        "empty_text": 2,
        "not_a_string": 1,
        "missing_column": 1,
        "broken_json": 1,
    }


def test_examples_say_where_and_never_hold_the_text(tmp_path: Path) -> None:
    rows = [{"text": {"nested": "hidden words"}}, {"\x1b[31m": "hidden words"}] + [{"text": "hidden words"}] * 9
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    _, tally = read(path)
    assert tally.examples["not_a_string"] == [(str(path), 0, "dict")]
    assert [row for _, row, _ in tally.examples["too_short"]] == [2, 3, 4]
    assert "hidden words" not in str(tally.to_dict())
    tally.add("not_text", "a", 0, "\x1b[31m" * 99)
    assert tally.examples["not_text"][0][2].startswith("\\x1b[31m\\x1b")
    assert len(tally.examples["not_text"][0][2]) == 80


def test_long_rows_become_numbered_chunks_and_whole_documents_without_a_limit(tmp_path: Path) -> None:
    text = " ".join(SENTENCE.format(i) for i in range(50))
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text}, {"text": SENTENCE}])
    documents, tally = read(path)
    assert [(one.row, one.chunk) for one in documents] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert " ".join(one.text for one in documents[:-1]) == text
    assert (tally.rows, tally.documents) == (2, 5)
    assert [one.text for one in read(path, config.Chunks(max_chars=None))[0]] == [text, SENTENCE]


@pytest.mark.parametrize(
    ("name", "source_from", "source"),
    [
        ("wiki/part-1.en.jsonl.gz", "stem", "part-1.en"),
        ("wiki/part-1.en.jsonl.gz", "parent", "wiki"),
        ("wiki/part.txt", "stem", "part"),
    ],
)
def test_without_a_column_the_source_is_the_stem_or_the_folder(
    tmp_path: Path, name: str, source_from: str, source: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    data = json.dumps({"text": SENTENCE}).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    documents, _ = read(path, source_from=source_from)
    assert [one.source for one in documents] == [source]


def test_a_source_out_of_the_data_is_one_bounded_clean_line(tmp_path: Path) -> None:
    rows = [{"text": SENTENCE, "s": s} for s in ("a\n b\ud800", "x" * 999, 5, "", None)]
    documents, _ = read(write_jsonl(tmp_path / "web.jsonl", rows), source_column="s")
    assert [one.source for one in documents] == ["a b", "x" * 200, "5", "web", "web"]


def test_a_sample_is_the_same_documents_however_they_are_stored(tmp_path: Path) -> None:
    rows = [{"text": SENTENCE.format(i)} for i in range(2000)]
    some, tally = read(write_jsonl(tmp_path / "a.jsonl", rows), sample=0.25)
    other, _ = read(write_jsonl(tmp_path / "b.jsonl", rows[::-1]), sample=0.25)
    more, _ = read(tmp_path / "a.jsonl", sample=0.5)
    ids = {one.doc_id for one in some}
    assert ids == {one.doc_id for one in other} < {one.doc_id for one in more}
    assert 400 < len(ids) < 600
    assert tally.reasons == {"not_sampled": 2000 - len(ids)}
    assert tally.bad_rows == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["empty_text", "too_short"]), st.sampled_from("abc"), st.integers(0, 9)), max_size=30
    ),
    st.randoms(use_true_random=False),
    st.integers(1, 5),
)
def test_tallies_merge_to_the_same_in_any_order_and_grouping(events: list, random: Any, parts: int) -> None:
    whole = Tally(rows=len(events))
    for reason, path, row in events:
        whole.add(reason, path, row, f"{path}{row}")
    random.shuffle(events)
    merged = Tally()
    for part in range(parts):
        tally = Tally(rows=len(events[part::parts]))
        for reason, path, row in events[part::parts]:
            tally.add(reason, path, row, f"{path}{row}")
        merged.merge(Tally.from_dict(json.loads(json.dumps(tally.to_dict()))))
    assert merged == whole
    assert json.dumps(merged.to_dict()) == json.dumps(whole.to_dict())


def test_pyarrow_and_s3fs_give_the_same_documents_from_a_real_s3_server(s3: S3Server) -> None:
    lines = "".join(json.dumps({"text": SENTENCE.format(i)}) + "\n" for i in range(500)).encode()
    table = pa.table({"text": [SENTENCE.format(i) for i in range(500)]})
    parquet, arrow = pa.BufferOutputStream(), pa.BufferOutputStream()
    pq.write_table(table, parquet, row_group_size=100)
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    files = {
        "a.jsonl": lines,
        "b.parquet": parquet.getvalue().to_pybytes(),
        "c.csv.gz": gzip.compress(table.to_pandas().to_csv(index=False).encode()),
        "d.arrow": arrow.getvalue().to_pybytes(),
    }
    text = config.Text(paths=["s3://bucket/corpus"])
    results = []
    for library in ("pyarrow", "s3fs"):
        client = config.Storage.model_validate({"library": library, "endpoint": s3.endpoint})
        for name, data in files.items():
            storage.write_bytes(f"s3://bucket/corpus/{name}", data, client)
        listed = storage.list_files(text, client)
        results.append([one for file in listed for one in read_documents(file, text, CHUNKS, client, Tally())])
    assert results[0] == results[1]
    assert len(results[0]) == 2000
    assert {one.path for one in results[0]} == {f"s3://bucket/corpus/{name}" for name in files}


@pytest.mark.parametrize("library", ["pyarrow", "s3fs"])
def test_faults_of_the_storage_are_transient(s3: S3Server, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = config.Storage.model_validate({"library": library, "endpoint": s3.endpoint})
    text = config.Text(paths=["s3://bucket/one.txt"])
    storage.write_bytes("s3://bucket/one.txt", SENTENCE.encode(), client)
    (file,) = storage.list_files(text, client)
    assert len(list(read_documents(file, text, CHUNKS, client, Tally()))) == 1
    storage.delete_tree(file.uri, client)
    with pytest.raises(BadFile) as vanished:
        list(read_documents(file, text, CHUNKS, client, Tally()))
    assert (vanished.value.reason, vanished.value.transient) == ("vanished", True)
    storage.write_bytes("s3://bucket/one.txt", SENTENCE.encode(), client)
    filesystems.client.cache_clear()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-access-key")
    with pytest.raises(BadFile) as denied:
        list(read_documents(file, text, CHUNKS, client, Tally()))
    assert (denied.value.reason, denied.value.transient) == ("no_permission", True)
    assert "wrong-secret" not in str(denied.value)


def test_where_labels_are_read_a_row_without_one_is_bad_and_no_class_of_its_own(tmp_path: Path) -> None:
    labels = ["pos", None, "", " ", "neg"]
    rows = [{"text": SENTENCE.format(i), "label": label} for i, label in enumerate(labels)]
    path = str(write_jsonl(tmp_path / "train.jsonl", [*rows, {"text": SENTENCE.format(9)}]))
    text = Labelled.of(config.Text(paths=["elsewhere"], max_bad_rows=0.5), "label", [path])
    tally = Tally()
    assert [one.label for one in read_documents(path, text, CHUNKS, LOCAL, tally)] == ["pos", "neg"]
    assert tally.reasons == {"no_label": 4} and tally.bad_rows == 4
    with pytest.raises(UserError, match=r"finetune: 4 of 6 rows are unusable .*target.max_bad_rows allows .* 0.5"):
        check_bad_rows("finetune", tally, text, "target")
