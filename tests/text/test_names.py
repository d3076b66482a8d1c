"""Sources and labels out of data: one name for one value, in every format, and no name out of what is none."""

from __future__ import annotations

import datetime
import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray import config
from gotd_ray.text.documents import Document, Labelled, read_documents
from gotd_ray.text.names import Foreign, NotAName, name_of
from gotd_ray.text.tally import Tally

LOCAL = config.Storage()
SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."


def read(path: Path, label: str | None = None, **text: Any) -> tuple[list[Document], Tally]:
    known: config.Text = config.Text(paths=[str(path)], **text)
    if label:
        known = Labelled.of(known, label)
    tally = Tally()
    return list(read_documents(str(path), known, config.Chunks(), LOCAL, tally)), tally


def written(path: Path, values: list[Any]) -> Path:
    """A file of these values, under "x", beside as many texts."""
    texts = [SENTENCE.format(i) for i in range(len(values))]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts, "x": values}), path)
    else:
        rows = [{"text": text, "x": value} for text, value in zip(texts, values, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("pos", "pos"),
        (" pos\n tive\u200b", "pos tive"),
        *((one, "1") for one in (1, 1.0, "1", Decimal("1.00"), "1 ")),
        *((one, "0") for one in (0, 0.0, -0.0, "0")),
        *((one, "-2") for one in (-2, -2.0)),
        (0.5, "0.5"),
        ("1.0", "1.0"),
        (10**20, "1" + "0" * 20),
        (1e20, "1" + "0" * 20),
        (True, "true"),
        (False, "false"),
        *((one, None) for one in (None, float("nan"), Decimal("NaN"), "", " \t", "\u200b")),
        ("nan", "nan"),
        ("x" * 300, "x" * 200),
    ],
)
def test_equal_values_have_one_name(value: object, name: str | None) -> None:
    assert name_of(value) == name


@pytest.mark.parametrize("value", [[], ["a"], {}, {"a": 1}, float("inf"), -float("inf"), b"raw", Foreign("list")])
def test_what_names_nothing_is_no_name(value: object) -> None:
    with pytest.raises(NotAName):
        name_of(value)


COLUMNS: dict[str, tuple[list[Any], list[str | None]]] = {
    "strings": (["a", None, "", " ", "b"], ["a", None, None, None, "b"]),
    "whole numbers": ([1, 0, None, 1], ["1", "0", None, "1"]),
    "floats": ([1.0, float("nan"), None, 0.5], ["1", None, None, "0.5"]),
    "truth values": ([True, False, None], ["true", "false", None]),
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_labels_and_sources_are_the_same_in_json_lines_and_parquet(tmp_path: Path, kind: str, ending: str) -> None:
    values, names = COLUMNS[kind]
    path = written(tmp_path / f"web.{ending}", values)
    labelled, tally = read(path, "x")
    assert [one.label for one in labelled] == [name for name in names if name]
    assert [one.source for one in labelled] == ["web"] * len(labelled)
    assert tally.reasons == {"no_label": names.count(None)}
    sourced, tally = read(path, source_column="x")
    assert [one.source for one in sourced] == [name or "web" for name in names]
    assert [one.label for one in sourced] == [None] * len(names)
    assert (tally.unnamed, tally.bad_rows) == (names.count(None), 0)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("values", [[["a"], ["b"], []], [{"a": 1}, {"a": 2}, {"a": 3}]], ids=["lists", "objects"])
def test_lists_and_objects_are_no_labels_and_no_sources(tmp_path: Path, values: list[Any], ending: str) -> None:
    path = written(tmp_path / f"web.{ending}", values)
    documents, tally = read(path, "x")
    assert (documents, tally.reasons, tally.bad_rows) == ([], {"bad_label": 3}, 3)
    documents, tally = read(path, source_column="x")
    assert (documents, tally.reasons, tally.bad_rows) == ([], {"bad_source": 3}, 3)


def test_labels_of_other_columns_of_parquet(tmp_path: Path) -> None:
    day = datetime.date(2024, 2, 29)
    columns = {
        "dictionary": (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        "bytes": (pa.array([b"a", b"\xff", None]), ["a", "\ufffd", None]),
        "date": (pa.array([day, None, day]), ["2024-02-29", None, "2024-02-29"]),
        "time": (pa.array([2**60, None, 0], pa.timestamp("ms")), ["?", None, "1970-01-01 00:00:00.000"]),
        "decimal": (pa.array([Decimal("1.00"), None, Decimal("2.50")]), ["1", None, "2.50"]),
        "half": (pa.array([1, 0.5, None], pa.float16()), ["1", "0.5", None]),
        "nothing": (pa.nulls(3), [None, None, None]),
        "large": (pa.array(["a", "b", None], pa.large_string()), ["a", "b", None]),
        "view": (pa.array(["a", "b", None], pa.string_view()), ["a", "b", None]),
    }
    for name, (column, names) in columns.items():
        table = pa.table({"text": [SENTENCE.format(i) for i in range(3)], "x": column})
        pq.write_table(table, tmp_path / "a.parquet")
        documents, tally = read(tmp_path / "a.parquet", "x")
        found = {one.row: one.label for one in documents}
        expected = {row: label for row, label in enumerate(names) if label is not None}
        assert set(found) == set(expected), name
        assert all(found[row] == label for row, label in expected.items() if label != "?"), name
        assert tally.rows == 3


def test_a_held_out_split_stays_out_where_labels_are_read_and_a_label_may_be_called_like_a_source(
    tmp_path: Path,
) -> None:
    rows = [
        {"text": SENTENCE.format(i), "split": "test" if i % 4 == 0 else "train", "label": ["test", "b"][i % 2]}
        for i in range(40)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        documents, tally = read(tmp_path / name, "label", source_column="split", exclude_sources=["test"])
        assert [one.row for one in documents] == [i for i in range(40) if i % 4]
        assert {one.source for one in documents} == {"train"}
        assert sorted(one.label or "" for one in documents) == ["b"] * 20 + ["test"] * 10
        assert tally.reasons == {"excluded_source": 10}
        assert tally.excluded == {"test": 10}


def test_an_excluded_source_is_found_however_it_is_spelt(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ["Cafe\u0301  bar", "7", 7, 7.0, True, None])
    documents, tally = read(path, source_column="x", exclude_sources=[" Caf\u00e9 bar", "7", "true"])
    assert [one.source for one in documents] == ["a"]
    assert tally.excluded == {"Caf\u00e9 bar": 1, "7": 3, "true": 1}


def test_a_row_that_cannot_be_read_is_not_said_to_lack_a_label(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": broken\n{"text": null, "x": "a"}\n["x"]\n')
    _, tally = read(path, "x")
    assert tally.reasons == {"broken_json": 2, "empty_text": 1}


KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "strings": (pa.string(), st.sampled_from(["", " ", "a", "b", "1", "nan", SENTENCE])),
    "integers": (pa.int64(), st.integers(-2, 2)),
    "floats": (pa.float64(), st.sampled_from([0.0, -1.0, 0.5, 1e20, float("nan"), float("inf")])),
    "truth values": (pa.bool_(), st.booleans()),
    "lists": (pa.list_(pa.int64()), st.lists(st.integers(0, 1), max_size=1)),
    "objects": (pa.struct({"a": pa.int64()}), st.fixed_dictionaries({"a": st.integers(0, 1)})),
    "nothing": (pa.null(), st.none()),
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_parquet_and_json_lines_of_the_same_values_give_the_same_documents_and_counts(data: st.DataObject) -> None:
    names = ("text", "title", "site", "w", "y")
    kinds = {name: data.draw(st.sampled_from([None, *KINDS]), label=name) for name in names}
    kinds["text"] = data.draw(
        st.sampled_from(["strings", "strings", "strings", "lists", "nothing", None]), label="text"
    )
    rows = data.draw(st.integers(0, 5))
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {}
    for name, kind in kinds.items():
        if kind:
            column_type, values = KINDS[kind]
            drawn = st.lists(st.none() | values, min_size=rows, max_size=rows)
            columns[name] = (column_type, data.draw(drawn, label=f"{name}: {kind}"))
    changes = data.draw(
        st.fixed_dictionaries(
            {
                "text_column": st.sampled_from(["text", "title, text"]),
                "source_column": st.sampled_from([None, "site"]),
                "weight_column": st.sampled_from([None, "w"]),
                "exclude_sources": st.sampled_from([[], ["1"], ["a", "true"]]),
                "label": st.sampled_from([None, "y"]),
            }
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        table = pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})
        if columns:
            pq.write_table(table, f"{folder}/web.parquet", row_group_size=2)
        lines = [json.dumps({name: values[row] for name, (_, values) in columns.items()}) for row in range(rows)]
        Path(f"{folder}/web.jsonl").write_text("\n".join(lines))
        found = []
        for name in ("web.parquet", "web.jsonl")[not columns :]:
            documents, tally = read(Path(folder) / name, **changes)
            seen = [(one.doc_id, one.source, one.row, one.weight, one.label) for one in documents]
            counts = tally.to_dict()
            found.append((seen, {key: value for key, value in counts.items() if key != "examples"}))
            assert tally.rows == rows == len(documents) + sum(tally.reasons.values())
        assert found[0] == found[-1]
