"""A small set is read whole or refused, in one line that says what is wrong and what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.storage import list_files
from gotd_ray.text.documents import Labelled
from gotd_ray.text.sets import TextSet, read_set

LOCAL = config.Storage()
WHOLE = config.Chunks(max_chars=None, min_chars=1)
SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."


def read(folder: Path, where: str = "pretune.dev", section: str = "target", **text: Any) -> TextSet:
    label = text.pop("label", None)
    settings: config.Text = config.Text(paths=[str(folder)], **text)
    settings = Labelled.of(settings, label) if label else settings
    return read_set(where, section, list_files(settings, LOCAL), settings, WHOLE, LOCAL)


def refused(folder: Path, *args: Any, **text: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, *args, **text)
    assert str(caught.value).isprintable()
    return str(caught.value)


def rows(path: Path, found: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(found), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def test_all_documents_in_the_order_of_files_and_rows_with_what_was_left_out(tmp_path: Path) -> None:
    rows(tmp_path / "b.jsonl", [{"text": SENTENCE.format(i)} for i in (2, 3, 2)] + [{"text": ""}])
    rows(tmp_path / "a.parquet", [{"text": SENTENCE.format(i)} for i in (1, 0)])
    found = read(tmp_path)
    assert [one.text for one in found.documents] == [SENTENCE.format(i) for i in (1, 0, 2, 3, 2)]
    assert (found.tally.rows, found.tally.documents, found.tally.reasons) == (6, 5, {"empty_text": 1})
    assert found.told == ()


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_test_set_under_another_key_is_refused_and_not_empty(tmp_path: Path, ending: str) -> None:
    rows(tmp_path / f"test.{ending}", [{"sentence": SENTENCE.format(i)} for i in range(8)])
    said = refused(tmp_path, "select.decontaminate", "select.decontaminate")
    assert said == (
        "select.decontaminate has no column 'text' (text_column); it has 'sentence'. Correct the name, or leave it out."
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = gzip.compress("\n".join(json.dumps({"text": SENTENCE.format(i)}) for i in range(9)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(data[:-20])
    said = refused(tmp_path)
    assert said.startswith(f"pretune.dev: {tmp_path}/cut.jsonl.gz cannot be read: truncated: ")
    assert said.endswith(". Repair it, or take it out.")


def test_more_bad_rows_than_allowed_are_refused_with_the_first(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"text": SENTENCE.format(i)} for i in range(3)] + [{"text": 7}])
    said = refused(tmp_path)
    assert said.startswith(
        "pretune.dev: 1 of 4 rows are unusable ({'not_a_string': 1}), and target.max_bad_rows allows "
    )
    assert said.endswith(f"{path} row 3: not_a_string (int)")
    assert len(read(tmp_path, max_bad_rows=0.25).documents) == 3


def test_no_document_at_all_is_refused_with_the_reasons(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", [{"text": SENTENCE, "split": "test"}] * 3)
    said = refused(tmp_path, source_column="split", exclude_sources=["test"])
    assert said.startswith("pretune.dev has no text: 3 rows read, left out: 3 excluded_source. Check its paths, ")
    rows(tmp_path / "a.jsonl", [])
    assert refused(tmp_path).startswith("pretune.dev has no text: 0 rows read, left out: none.")


def test_names_that_match_nothing_are_refused_and_those_of_some_rows_are_told(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", [{"text": SENTENCE.format(i), "site": "web"} for i in range(3)])
    assert "has no column 'label' (label_column); it has 'site', 'text'" in refused(tmp_path, label="label")
    own = ("evaluate.x", "evaluate.x")
    assert "names 'Web', but no row is of that source (did you mean 'web'?)" in refused(
        tmp_path, *own, source_column="site", exclude_sources=["Web"]
    )
    rows(tmp_path / "b.jsonl", [{"text": SENTENCE.format(9)}])
    assert read(tmp_path, *own, source_column="site").told == (
        "evaluate.x: 1 of 4 rows name no source in 'site' (source_column): theirs is that of their file's name",
    )


def test_unlabelled_rows_make_no_class(tmp_path: Path) -> None:
    lines = [json.dumps({"text": SENTENCE.format(i), "y": i % 2}) for i in range(8)]
    lines += ['{"text": "An unlabelled text which must be no class of its own.", "y": NaN}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = read(tmp_path, label="y")
    assert sorted({one.label for one in found.documents if one.label}) == ["0", "1"]
    assert (len(found.documents), found.tally.reasons) == (8, {"no_label": 1})
