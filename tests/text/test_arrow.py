"""Properties of Arrow IPC: what ``datasets`` saves and keeps, streams and files of others, cut, joined and damaged."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from reading import broken, rows_of

from gotd_ray import config
from gotd_ray.listing import list_all
from gotd_ray.text.documents import read_documents
from gotd_ray.text.rows import BadFile, Problem
from gotd_ray.text.tally import Tally

LOCAL = config.Storage()
SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."
Writer = Callable[[Any, pa.Schema], Any]
WRITERS: dict[str, Writer] = {
    "stream": pa.ipc.new_stream,
    "file": pa.ipc.new_file,
    "packed": lambda sink, schema: pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")),
}


def write(path: Path, table: pa.Table, rows: int = 1000, kind: str = "stream") -> Path:
    """As ``datasets`` does: a stream of batches of a thousand rows."""
    with WRITERS[kind](str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def test_what_datasets_saves_is_read_and_what_lies_beside_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    texts = [SENTENCE.format(number) for number in range(2500)]
    columns = {"text": texts, "tags": [["a"]] * 2500, "y": [i % 3 for i in range(2500)], "nothing": [None] * 2500}
    saved = datasets.Dataset.from_dict(columns)
    datasets.DatasetDict({"train": saved, "test": saved.select(range(5, 9))}).save_to_disk(tmp_path, num_proc=None)
    datasets.load_from_disk(tmp_path)["train"].map(lambda row: {"text": row["text"].upper()})
    found = list_all(config.Text(paths=[str(tmp_path)]), LOCAL)
    names = [file.uri.removeprefix(f"{tmp_path}/") for file in found.files]
    assert names == ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]
    assert found.counts == {"metadata": 5, "cache": 1}
    assert "1 passed over, what datasets.map keeps beside its input: " in found.words()[1]
    rows = rows_of(Path(found.files[1].uri), label="y")
    assert [row.content for row in rows] == texts
    assert [row.number for row in rows] == list(range(2500))
    assert [row.label for row in rows[:3]] == ["0", "1", "2"]
    assert [row.content for row in rows_of(Path(found.files[0].uri))] == texts[5:9]


def table() -> pa.Table:
    return pa.table(
        {
            "n": [5, None, 7, 8],
            "text": ["one", None, "", "tw\u00f6"],
            "list": [["a"], [], None, ["b"]],
            "nothing": pa.nulls(4),
            "w": pa.array([1.5, 0, 2, None], pa.float32()),
        }
    )


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"source_column": "n"},
        {"weight_column": "w"},
        {"text_column": "list"},
        {"text_column": "nothing"},
        {"text_column": "n,text"},
        {"text_column": "body"},
        {"source_column": "list"},
        {"weight_column": "nothing"},
        {"label": "n"},
    ],
)
def test_rows_are_those_of_parquet(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", use_compliant_nested_type=False)
    expected = rows_of(tmp_path / "a.parquet", **settings)
    path = write(tmp_path / "a.arrow", table(), 3, kind)
    assert rows_of(path, **settings) == expected
    assert rows_of(path, {1, 3}, **settings) == [expected[1], expected[3]]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view()),
        pa.dictionary(pa.int32(), pa.string()),
        pa.json_(pa.large_string()),
    ],
    ids=str,
)
def test_text_of_any_string_type_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(['"one"', None, '"tw\u00f6"'])
    column = pa.array(column.to_pylist(), kind) if isinstance(kind, pa.BaseExtensionType) else column.cast(kind)
    path = write(tmp_path / "a.arrows", pa.table({"text": column}))
    assert [row.content for row in rows_of(path)] == ['"one"', Problem("empty_text", "null"), '"tw\u00f6"']


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_is_read(tmp_path: Path, compression: str) -> None:
    feather.write_feather(table(), tmp_path / "a.feather", compression=compression)
    assert [row.content for row in rows_of(tmp_path / "a.feather")][::3] == ["one", "tw\u00f6"]


def test_invalid_utf8_spoils_its_row_only(tmp_path: Path) -> None:
    column = pa.array([b"good", b"bad \xff", b"fine"]).view(pa.string())
    for one in (column, column.view(pa.string()), pa.DictionaryArray.from_arrays([0, 1, 2], column)):
        rows = rows_of(write(tmp_path / "a.arrow", pa.table({"text": one, "s": column})), source_column="s")
        assert [row.source for row in rows] == ["good", "bad \ufffd", "fine"]
        assert [row.content for row in rows][::2] == ["good", "fine"]
        assert isinstance(rows[1].content, Problem) and rows[1].content.reason == "invalid_utf8"


def test_dictionaries_that_grow_are_followed(tmp_path: Path) -> None:
    batches = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c", "a"]).dictionary_encode()]
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    schema = pa.schema({"text": batches[0].type})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), schema, options=options) as writer:
        for one in batches:
            writer.write_batch(pa.record_batch([one], schema=schema))
    assert [row.content for row in rows_of(tmp_path / "a.arrow")] == ["a", "b", "b", "c", "a"]


def test_a_column_that_stands_twice_is_ambiguous_only_where_it_is_read(tmp_path: Path) -> None:
    columns = [pa.array(["one"]), pa.array([1]), pa.array([2])]
    path = write(tmp_path / "a.arrow", pa.table(columns, names=["text", "n", "n"]))
    assert [row.content for row in rows_of(path)] == ["one"]
    assert str(broken(path, source_column="n")[1]) == "ambiguous_column: 2 columns are called 'n'"


def test_a_long_text_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"text": ["x" * 2000, "x" * 2001]}))
    assert [row.content for row in rows_of(path, max_document_bytes=2000)] == [
        "x" * 2000,
        Problem("too_long", "more than 2,000 bytes"),
    ]


def test_a_stream_that_stops_keeps_the_batches_before(tmp_path: Path) -> None:
    """Also one that stops between two batches, as a writer leaves it that is killed: Arrow takes that for the end."""
    whole = write(tmp_path / "a.arrow", pa.table({"text": [SENTENCE.format(i) for i in range(3000)]})).read_bytes()
    for cut, rows, reason in ((8, 3000, "truncated"), (4, 3000, "unreadable"), (12, 2000, "unreadable")):
        (tmp_path / "a.arrow").write_bytes(whole[:-cut])
        found, error = broken(tmp_path / "a.arrow")
        assert (len(found), error.reason, error.transient) == (rows, reason, False)


def test_two_streams_in_one_file_are_not_half_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"text": ["one"]}))
    path.write_bytes(path.read_bytes() * 2)
    found, error = broken(path)
    assert [row.content for row in found] == ["one"]
    assert "more follows" in str(error)


def test_streams_of_early_writers_are_read(tmp_path: Path) -> None:
    options = pa.ipc.IpcWriteOptions(use_legacy_format=True)
    data = pa.table({"text": ["one", "two"]})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), data.schema, options=options) as writer:
        writer.write_table(data)
    assert not (tmp_path / "a.arrow").read_bytes().startswith(b"\xff")
    assert [row.content for row in rows_of(tmp_path / "a.arrow")] == ["one", "two"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>404, not found</html>\n" * 100,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        b"ARROW1\0\0" + b"x" * 50,
        b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x" * 50,
        b"FEA1" + b"x" * 50 + b"FEA1",
    ],
)
def test_a_file_of_other_content_is_unreadable(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.arrow").write_bytes(data)
    rows, error = broken(tmp_path / "a.arrow")
    assert rows == []
    assert (error.reason, error.transient) == ("unreadable", False)


@pytest.mark.parametrize("kind", WRITERS)
def test_no_damage_gives_any_other_error_than_a_bad_file(tmp_path: Path, kind: str) -> None:
    draw = random.Random(kind)
    words = [SENTENCE.format(i) for i in range(40)]
    data = {"text": words, "s": pa.array(words).dictionary_encode(), "n": range(40), "l": [["a", "b"]] * 40}
    whole = write(tmp_path / "whole", pa.table(data), 15, kind).read_bytes()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 3, 10])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path = tmp_path / "a.arrow"
        path.write_bytes(damaged[: draw.randrange(len(damaged))] if draw.random() < 0.3 else damaged)
        with contextlib.suppress(BadFile):
            rows_of(path, source_column="s", text_column="text,l", weight_column="n")


def test_documents_are_the_same_from_any_kind_of_file(tmp_path: Path) -> None:
    data = pa.table({"text": [SENTENCE.format(i) for i in range(700)]})
    pq.write_table(data, tmp_path / "a.parquet")
    found = []
    for name, kind in (("a.parquet", ""), ("b.arrow", "stream"), ("c.arrow", "file"), ("d.feather", "packed")):
        path = write(tmp_path / name, data, 300, kind) if kind else tmp_path / name
        text, tally = config.Text(paths=["x"], sample=0.5), Tally()
        documents = read_documents(os.fspath(path), text, config.Chunks(), LOCAL, tally)
        found.append(([(one.doc_id, one.row, one.chunk) for one in documents], tally.reasons, tally.columns))
    assert found[0] == found[1] == found[2] == found[3]
