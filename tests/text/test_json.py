"""A ``.json`` file: an array streamed element by element, or lines; and names that lead into objects, in any format."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import PACKERS, broken, rows_of

from gotd_ray import config, filesystems
from gotd_ray.listing import list_all
from gotd_ray.text.formats import json as json_format
from gotd_ray.text.rows import Problem, Row


def contents(rows: list[Row]) -> list[tuple[int, str]]:
    """Numbers with texts, or why there is none."""
    return [(row.number, row.content if isinstance(row.content, str) else row.content.reason) for row in rows]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\[]{},\n é', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"]', max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1]), st.integers(1, 40), st.booleans())
def test_the_elements_are_those_of_the_parser(values: list[Any], indent: int | None, piece: int, ascii_: bool) -> None:
    """However the file is cut into pieces."""
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_).encode() + b"\n"

    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read1(piece)

    found = list(json_format.elements(Slow(data), 10**6))  # type: ignore[arg-type]
    assert [json.loads(element or b"") for element in found] == values


@pytest.mark.parametrize("packed", ["", ".bz2", ".xz"])
def test_an_array_gives_its_elements_and_what_is_wrong_with_them(tmp_path: Path, packed: str) -> None:
    elements = [
        '{"text": "one", "s": "a"}',
        ' {"text": "a \\"]}, in it"} ',
        "3",
        '{"text": "x" "y"}',
        " ",
        '{"text": 1}',
        '{"text": "' + "x" * 2000 + '"}',
        '{"text": "one", "text": "two"}',
        '\n{"text": "last"}\n',
    ]
    data = "\ufeff [" + ",".join(elements) + "] \n"
    (path := tmp_path / f"a.json{packed}").write_bytes(PACKERS[packed](data.encode()))
    said = ["one", 'a "]}, in it', *["broken_json"] * 3, "not_a_string", "too_long", "broken_json", "last"]
    assert contents(rows_of(path, max_document_bytes=1500)) == list(enumerate(said))
    assert contents(rows_of(path, {1, 8})) == [(1, said[1]), (8, "last")]
    assert rows_of(path, {0}, source_column="s")[0].source == "a"


@pytest.mark.parametrize(
    ("data", "count", "reason"),
    [
        ('[{"text": "one"}, {"text": "tw', 1, "truncated"),
        ('[{"text": "one"}', 0, "truncated"),
        ('[{"text": "one"}] [1]', 1, "unreadable"),
        ("text", 0, "unreadable"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:12\n", 0, "unreadable"),
    ],
)
def test_a_file_that_is_no_whole_array_is_bad_behind_what_was_read(
    tmp_path: Path, data: str, count: int, reason: str
) -> None:
    (path := tmp_path / "a.json").write_text(data)
    rows, why = broken(path)
    assert (len(rows), why.reason, why.transient) == (count, reason, False)


@pytest.mark.parametrize("data", ["", " \n", "[]", "[ \n ]"])
def test_an_empty_array_has_no_rows(tmp_path: Path, data: str) -> None:
    (path := tmp_path / "a.json").write_text(data)
    assert rows_of(path) == []


def test_lines_that_are_called_json_are_read_as_lines(tmp_path: Path) -> None:
    (path := tmp_path / "a.json").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert contents(rows_of(path)) == [(0, "one"), (2, "two")]


def test_what_tells_of_the_data_is_passed_over(tmp_path: Path) -> None:
    for name in ("dataset_info.json", "state.json", "a.json", "config.json"):
        (tmp_path / name).write_text("[]")
    found = list_all(config.Text(paths=[str(tmp_path)]), config.Storage())
    assert [Path(file.uri).name for file in found.files] == ["a.json"]
    assert found.counts == {"metadata": 3}


@pytest.mark.parametrize("packed", [".bz2", ".xz"])
@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_a_bomb_is_never_held(tmp_path: Path, packed: str, ending: str) -> None:
    """40 MB in one text."""
    path = tmp_path / f"a{ending}{packed}"
    packer: Any = bz2.BZ2Compressor(1) if packed == ".bz2" else lzma.LZMACompressor(preset=0)
    with path.open("wb") as file:
        file.write(packer.compress(b'[{"text": "' if ending == ".json" else b'{"text": "'))
        for _ in range(40):
            file.write(packer.compress(b"x" * 1_000_000))
        file.write(packer.compress(b'"}, {"text": "after"}]' if ending == ".json" else b'"}\n{"text": "after"}\n'))
        file.write(packer.flush())
    tracemalloc.start()
    rows = contents(rows_of(path, max_document_bytes=100_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [(0, "too_long"), (1, "after")]
    assert peak < 20_000_000, "a few pieces of 4 MiB"


def test_xz_that_asks_for_more_memory_than_is_given_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "_XZ_BYTES", 1 << 20)
    (path := tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(b'{"text": "one"}\n', preset=6))
    assert broken(path)[1].reason == "unreadable"


def test_zeros_between_members_of_xz_are_none_of_its_bytes(tmp_path: Path) -> None:
    one, two = (lzma.compress(b'{"text": "%s"}\n' % word) for word in (b"one", b"two"))
    (path := tmp_path / "a.jsonl.xz").write_bytes(one + bytes(8) + two + bytes(4))
    assert contents(rows_of(path)) == [(0, "one"), (1, "two")]


RECORDS: list[dict[str, Any]] = [
    {"id": 1, "meta": {"text": "one", "by": {"site": "a", "w": 2.0}}},
    {"id": 2, "meta": {"text": None, "by": {"site": "b", "w": 1.0}}},
    {"id": 3, "meta": None},
    {"id": 4, "meta": {"text": "four", "by": None}},
]


def written(folder: Path, kind: str, records: list[dict[str, Any]]) -> Path:
    path = folder / f"a.{kind}"
    table = pa.Table.from_pylist(records)
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif kind == "json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
def test_a_name_with_dots_leads_into_objects(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, RECORDS)
    rows = rows_of(path, text_column="meta.text", source_column="meta.by.site")
    assert [(row.content, row.source) for row in rows if row.number in (0, 3)] == [("one", "a"), ("four", None)]
    problems = [row.content.reason for row in rows if isinstance(row.content, Problem)]
    assert len(problems) == 2 and problems[0] == "empty_text"
    assert rows_of(path, {0}, text_column="meta.text", weight_column="meta.by.w")[0].weight == 2.0
    assert all(contents([row])[0][1] == "missing_column" for row in rows_of(path, text_column="meta.words"))
    assert contents(rows_of(path, {0}, text_column="meta")) == [(0, "not_a_string")]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
def test_a_key_that_holds_the_dots_itself_comes_first(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, [{"meta": {"text": "inner", "other": "far"}, "meta.text": "outer"}])
    assert contents(rows_of(path, text_column="meta.text")) == [(0, "outer")]
    assert contents(rows_of(path, text_column="meta.other")) == [(0, "far")]


def test_keys_that_hold_dots_may_lead_on(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl", [{"a.b": {"c.d": "deep"}, "a": {"b": {"x": "y"}}}])
    assert contents(rows_of(path, text_column="a.b.c.d")) == [(0, "deep")]
    assert contents(rows_of(path, text_column="a.b.x")) == [(0, "y")]


@pytest.mark.parametrize("line", ['{"meta": {"text": "a", "text": "b"}}', '{"meta": {"text": "a"}, "meta": {}}'])
def test_a_key_on_the_way_that_stands_twice_is_unclear(tmp_path: Path, line: str) -> None:
    (path := tmp_path / "a.jsonl").write_text(line + '\n{"text": "above", "meta": {"text": "within"}}\n')
    assert contents(rows_of(path, text_column="meta.text")) == [(0, "broken_json"), (1, "within")]
