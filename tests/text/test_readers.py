"""Properties of gotd_ray.text.readers: real files of each format, whole, broken and hostile."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reading
from reading import PACKERS
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from gotd_ray import config
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import BadFile, Problem

LOCAL = config.Storage()
Row = tuple[int, str | Problem, str | None]
LINES = [json.dumps({"text": f"document {i} {random.Random(i).randbytes(40).hex()}"}) for i in range(5000)]


def rows_until_break(path: Path, **text: Any) -> tuple[list[Row], BadFile | None]:
    """Rows, without their weights."""
    rows = []
    try:
        for row in read_rows(str(path), config.Text(paths=[str(path)], **text), LOCAL):
            rows.append(row[:3])
    except BadFile as error:
        return rows, error
    return rows, None


def rows_of(path: Path, **text: Any) -> list[Row]:
    """Without their weights."""
    return [row[:3] for row in reading.rows_of(path, **text)]


def reasons(rows: list[Row]) -> list[str]:
    return [content.reason if isinstance(content, Problem) else "text" for _, content, _ in rows]


def wet(records: Sequence[tuple[str, bytes, str | None]], compress: bool = True) -> bytes:
    """Records of (type, payload, HTTP content type or '' for none) after a warcinfo, which is record 0."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=compress)
    writer.write_record(writer.create_warcinfo_record("a.wet", {"software": "test"}))
    for kind, payload, mime in records:
        headers = [("Content-Type", mime)] if mime else []
        http = None if mime is None else StatusAndHeaders("200 OK", headers, "HTTP/1.1")
        body = io.BytesIO(payload)
        writer.write_record(writer.create_warc_record("http://x.org/", kind, payload=body, http_headers=http))
    return buffer.getvalue()


@pytest.mark.parametrize("packed", PACKERS)
def test_jsonl_gives_every_line_with_its_number(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"a.jsonl{packed}"
    data = '\ufeff{"text": "one", "s": "web"}\n\n{"text": "two"}\r\n{"s": 3, "text": "three"}'.encode()
    path.write_bytes(PACKERS[packed](data))
    assert rows_of(path, source_column="s") == [(0, "one", "web"), (2, "two", None), (3, "three", "3")]


def test_a_mark_of_byte_order_on_a_line_of_its_own_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf\r\n{"text": "one"}\n')
    assert rows_of(tmp_path / "a.jsonl") == [(1, "one", None)]


def test_a_pointer_of_git_lfs_is_no_text(tmp_path: Path) -> None:
    """Clones hold such files in the place of large ones that were not fetched."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
    for name in ("a.txt", "a.md", "a.parquet", "a.warc", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(pointer)
        rows, broken = rows_until_break(tmp_path / name)
        assert rows == []
        assert broken is not None and broken.reason == "unreadable", name
    (tmp_path / "a.jsonl").write_bytes(pointer)
    assert reasons(rows_of(tmp_path / "a.jsonl")) == ["broken_json"] * 3


@pytest.mark.parametrize("packed", list(PACKERS)[1:])
def test_files_of_several_compressed_members_are_read_whole(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"a.jsonl{packed}"
    path.write_bytes(b"".join(PACKERS[packed](b'{"text": "%d"}\n' % i) for i in range(3)))
    assert [content for _, content, _ in rows_of(path)] == ["0", "1", "2"]


def test_broken_lines_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = b'{"text": ' + b"[" * 100_000
    lines = [
        b'{"text": "bad \xff utf-8"}',
        b'{"text": "cut',
        b"[1]",
        b'{"t": 1}',
        b'{"text": null}',
        b'{"text": 1}',
        deep,
    ]
    path.write_bytes(b"\n".join([*lines, b'{"text": "good"}']))
    expected = ["invalid_utf8", "broken_json", "broken_json", "missing_column", "empty_text", "not_a_string"]
    assert reasons(rows_of(path)) == [*expected, "broken_json", "text"]


def test_a_50_megabyte_line_is_skipped_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    rows = rows_of(path, max_document_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row[0] for row in rows] == [0, 1, 2]
    assert reasons(rows) == ["text", "too_long", "text"]
    assert peak < 25_000_000


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_limit_of_a_document_is_exact(tmp_path: Path, spare: int) -> None:
    length = 2000 - spare
    (tmp_path / "a.txt").write_bytes(b"x" * length)
    pq.write_table(pa.table({"text": ["x" * length]}), tmp_path / "a.parquet")
    line = b'{"text": "' + b"x" * (length - 12) + b'"}'
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    (tmp_path / "b.jsonl").write_bytes(line)
    (tmp_path / "a.wet").write_bytes(wet([("conversion", b"x" * length, None)], compress=False))
    for name in ("a.txt", "a.parquet", "a.jsonl", "b.jsonl", "a.wet"):
        rows = rows_of(tmp_path / name, max_document_bytes=2000)
        assert reasons(rows) == ["text" if spare >= 0 else "too_long"], name


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("ending", [".txt", ".md"])
def test_a_text_file_is_one_document(tmp_path: Path, packed: str, ending: str) -> None:
    path = tmp_path / f"a{ending}{packed}"
    path.write_bytes(PACKERS[packed](b"one\n\ntwo"))
    assert rows_of(path) == [(0, "one\n\ntwo", None)]


STRINGS = ["one", None, "", "tw\u00f6"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_parquet_text_of_any_string_type_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [5, 6, None, 8], "text": pa.array(STRINGS).cast(kind)}), path, row_group_size=3)
    assert rows_of(path, source_column="n") == [
        (0, "one", "5"),
        (1, Problem("empty_text", "null"), "6"),
        (2, "", None),
        (3, "tw\u00f6", "8"),
    ]


def test_invalid_utf8_in_a_parquet_string_spoils_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array([b"good", b"bad \xff", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": column, "s": column}), path)
    rows = rows_of(path, source_column="s")
    assert reasons(rows) == ["text", "invalid_utf8", "text"]
    assert [source for _, _, source in rows] == ["good", "bad \ufffd", "fine"]


def test_two_columns_are_joined_by_a_blank_line(tmp_path: Path) -> None:
    table = {"a": ["one", "two", None, None], "b": ["1", None, "3", None]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    lines = [json.dumps({"a": a, "b": b}) for a, b in zip(table["a"], table["b"], strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for name in ("a.parquet", "a.jsonl"):
        rows = rows_of(tmp_path / name, text_column="a, b,c")
        assert [content for _, content, _ in rows[:3]] == ["one\n\n1", "two", "3"]
        assert reasons(rows)[3] == "empty_text"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"text_column": "body"}, Problem("missing_column", "no body")),
        ({"text_column": "n"}, Problem("not_a_string", "int64")),
        ({"text_column": "list"}, Problem("not_a_string", "list<element: string>")),
        ({"text_column": "nothing"}, Problem("empty_text", "null")),
        ({"text_column": "words", "weight_column": "w"}, Problem("bad_weight", "null")),
        ({"text_column": "words", "weight_column": "words"}, Problem("bad_weight", "str")),
        ({"text_column": "words", "weight_column": "list"}, Problem("bad_weight", "list<element: string>")),
        ({"text_column": "words", "source_column": "list"}, Problem("bad_source", "list<element: string>")),
    ],
)
def test_a_parquet_file_without_a_usable_column_is_rows_without_text_as_in_json_lines(
    tmp_path: Path, settings: Any, problem: Problem
) -> None:
    path = tmp_path / "a.parquet"
    columns = {"n": [1, 2], "words": ["x", "y"], "list": [["a"], []], "nothing": pa.nulls(2)}
    pq.write_table(pa.table(columns), path)
    assert [content for _, content, _ in rows_of(path, **settings)] == [problem] * 2


def test_a_parquet_column_that_stands_twice_is_ambiguous_only_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = [pa.array(["one"]), pa.array([1]), pa.array(["two"]), pa.array([2])]
    pq.write_table(pa.table(columns, names=["text", "n", "other", "n"]), path)
    assert rows_of(path) == [(0, "one", None)]
    for settings in ({"source_column": "n"}, {"text_column": "text,n"}, {"weight_column": "n"}):
        rows, broken = rows_until_break(path, **settings)
        assert rows == []
        assert broken is not None
        assert (broken.reason, str(broken)) == ("ambiguous_column", "ambiguous_column: 2 columns are called 'n'")
        assert not broken.transient


def test_parquet_columns_are_taken_by_their_whole_names(tmp_path: Path) -> None:
    """Arrow takes a.b for the field b of a column a, as well as for a column a.b."""
    path = tmp_path / "a.parquet"
    names = ["a", "a.b", "text ", "text.list.element", ""]
    columns = [pa.array([{"b": "inside"}]), *(pa.array([name]) for name in names[1:])]
    pq.write_table(pa.table(columns, names=names), path)
    assert rows_of(path, text_column="a.b") == [(0, "a.b", None)]
    assert rows_of(path, text_column="text.list.element", source_column="a.b") == [(0, "text.list.element", "a.b")]
    for missing in ("text", "a.b.c", "b"):
        assert reasons(rows_of(path, text_column=missing)) == ["missing_column"]
    assert reasons(rows_of(path, text_column="a")) == ["not_a_string"]


def test_a_shard_of_nulls_without_a_type_is_rows_of_empty_text_as_in_json_lines(tmp_path: Path) -> None:
    nulls = {"text": [None, None], "s": [None, None]}
    pq.write_table(pa.table(nulls), tmp_path / "a.parquet")
    assert pq.read_schema(tmp_path / "a.parquet").field("text").type == pa.null()
    (tmp_path / "a.jsonl").write_text('{"text": null, "s": null}\n' * 2)
    rows = [rows_of(tmp_path / name, source_column="s") for name in ("a.parquet", "a.jsonl")]
    assert rows[0] == rows[1] == [(i, Problem("empty_text", "null"), None) for i in range(2)]


def test_parquet_text_in_types_of_other_libraries(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for column in (
        pa.array(['"one"', None], pa.json_(pa.large_string())),
        pa.array(['"one"', None]).dictionary_encode(),
        pa.array([b'"one"', None], pa.binary_view()),
    ):
        pq.write_table(pa.table({"text": column}), path)
        assert [content for _, content, _ in rows_of(path)] == ['"one"', Problem("empty_text", "null")]


def test_empty_files_are_empty_or_broken_and_never_an_error_of_another_kind(tmp_path: Path) -> None:
    expected = {"a.jsonl": [], "a.warc": [], "a.txt": ["text"], "a.parquet": "unreadable"} | dict.fromkeys(
        ("a.jsonl.gz", "a.txt.zst", "a.wet.gz"), "truncated"
    )
    for name, outcome in expected.items():
        (tmp_path / name).write_bytes(b"")
        rows, broken = rows_until_break(tmp_path / name)
        assert (broken.reason if broken else reasons(rows)) == outcome, name
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    assert rows_of(tmp_path / "b.parquet") == []


def test_wet_records_are_texts_and_web_pages_are_counted(tmp_path: Path) -> None:
    records: list[tuple[str, bytes, str | None]] = [
        ("conversion", b"a page as text", None),
        ("response", b"<html>", "text/html; charset=utf-8"),
        ("response", b"plain words", "Text/Plain; charset=utf-8"),
        ("metadata", b"not a page", None),
        ("conversion", b"bad \xff", None),
        ("response", b"untyped", ""),
    ]
    for name, compress in (("a.wet", False), ("b.warc.gz", True)):
        (tmp_path / name).write_bytes(wet(records, compress))
        rows = rows_of(tmp_path / name)
        assert [row for row, _, _ in rows] == [1, 2, 3, 5, 6]
        assert reasons(rows) == ["text", "not_text", "text", "invalid_utf8", "not_text"]
        assert [rows[0][1], rows[2][1]] == ["a page as text", "plain words"]


@pytest.mark.parametrize("packed", list(PACKERS)[1:])
@pytest.mark.parametrize("ending", [".jsonl", ".txt"])
def test_a_cut_compressed_file_keeps_the_rows_before_the_break(tmp_path: Path, packed: str, ending: str) -> None:
    path = tmp_path / f"a{ending}{packed}"
    whole = PACKERS[packed]("\n".join(LINES).encode())
    path.write_bytes(whole[: len(whole) * 3 // 4])
    rows, broken = rows_until_break(path)
    assert broken is not None
    assert (broken.reason, broken.transient) == ("truncated", False)
    if ending == ".jsonl":
        assert 2500 < len(rows) < 5000
        assert [content for _, content, _ in rows] == [json.loads(line)["text"] for line in LINES[: len(rows)]]
    else:
        assert rows == []


def test_a_parquet_file_with_a_damaged_group_keeps_the_groups_before(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": LINES}), path, row_group_size=1000)
    column = pq.ParquetFile(path).metadata.row_group(3).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    rows, broken = rows_until_break(path)
    assert len(rows) == 3000
    assert broken is not None
    assert not broken.transient


@pytest.mark.parametrize("compress", [True, False])
def test_a_cut_warc_file_keeps_the_whole_records_only(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / ("a.wet.gz" if compress else "a.wet")
    texts = [random.Random(i).randbytes(60).hex().encode() for i in range(2000)]
    path.write_bytes(wet([("conversion", text, None) for text in texts], compress)[:-40])
    rows, broken = rows_until_break(path)
    assert broken is not None
    assert (broken.reason, broken.transient) == ("truncated", False)
    assert 1000 < len(rows) < 2000
    assert [str(content).encode() for _, content, _ in rows] == texts[: len(rows)]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.jsonl.zst", "a.warc.gz", "a.warc"])
def test_a_file_of_other_content_is_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404, not found</html>\n" * 100)
    rows, broken = rows_until_break(tmp_path / name)
    assert rows == []
    assert broken is not None
    assert (broken.reason, broken.transient) == ("unreadable", False)


def test_a_vanished_file_is_transient_and_the_error_travels_between_processes(tmp_path: Path) -> None:
    _, broken = rows_until_break(tmp_path / "gone.parquet")
    assert broken is not None
    again = pickle.loads(pickle.dumps(broken))  # noqa: S301 - our own bytes
    assert (again.reason, again.transient, str(again)) == ("vanished", True, str(broken))


@pytest.fixture
def forbidden(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("text")
    path.chmod(0)
    return path


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read everything, so be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_file_without_permission_is_transient(forbidden: Path, unprivileged: None) -> None:
    _, broken = rows_until_break(forbidden)
    assert broken is not None
    assert (broken.reason, broken.transient) == ("no_permission", True)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.jsonl.zst", "a.warc", "a.wet.gz", "a.jsonl"])
def test_no_damage_gives_any_other_error_than_a_bad_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    records = [(kind, b"words of a page " * 9, "text/plain") for kind in ("response", "conversion")] * 5
    if name == "a.parquet":
        pq.write_table(pa.table({"text": LINES[:200]}), path, row_group_size=50)
    elif "w" in name:
        path.write_bytes(wet(records, compress=name.endswith(".gz")))
    else:
        path.write_bytes(PACKERS[path.suffix if path.suffix in PACKERS else ""]("\n".join(LINES[:50]).encode()))
    whole = path.read_bytes()
    draw = random.Random(name)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3, 10])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.3 else data)
        rows_until_break(path)
