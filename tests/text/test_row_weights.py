"""A row's weight: which values serve, and what becomes of the rows without one."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.text.documents import Document, read_documents
from gotd_ray.text.tally import BAD_ROWS, Tally, check_names

SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."


def read(path: Path, **text: Any) -> tuple[list[Document], Tally]:
    tally = Tally()
    settings = config.Text(paths=[str(path)], weight_column="w", **text)
    return list(read_documents(str(path), settings, config.Chunks(max_chars=80), config.Storage(), tally)), tally


def test_json_weights_are_numbers_of_at_least_zero_and_other_rows_are_counted_as_bad(tmp_path: Path) -> None:
    values = [
        "0",
        "2",
        "0.25",
        "1e38",
        "-1",
        "-1e-9",
        "NaN",
        "Infinity",
        "1e999",
        "1" + "0" * 400,
        '"2"',
        "true",
        "null",
    ]
    lines = [f'{{"text": "{SENTENCE.format(i)}", "w": {value}}}' for i, value in enumerate(values)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines, json.dumps({"text": SENTENCE.format("missing")}), '{"w": 1, "text": null}']))
    documents, tally = read(path)
    assert [(d.row, d.weight) for d in documents] == [(0, 0.0), (1, 2.0), (2, 0.25), (3, 1e38)]
    assert tally.reasons == {"bad_weight": 10, "empty_text": 1}
    assert tally.bad_rows == 11
    assert "bad_weight" in BAD_ROWS


@pytest.mark.parametrize("kind", [pa.int8(), pa.float32(), pa.float64(), pa.decimal128(10, 3)])
def test_parquet_weights_of_any_number_type(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    values = [Decimal("3.000") if pa.types.is_decimal(kind) else 3, None, -1, 0]
    table = pa.table({"text": [SENTENCE.format(i) for i in range(4)], "w": pa.array(values, kind)})
    pq.write_table(table, path)
    documents, tally = read(path)
    assert [(d.row, d.weight) for d in documents] == [(0, 3.0), (3, 0.0)]
    assert tally.reasons == {"bad_weight": 2}


def test_all_pieces_of_a_row_carry_its_weight(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "\n\n".join(SENTENCE.format(i) for i in range(5)), "w": 7}))
    documents, _ = read(path)
    assert len(documents) == 5
    assert {d.weight for d in documents} == {7.0}


def test_a_row_without_a_number_for_its_weight_is_bad_in_every_format(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for table in ({"text": [SENTENCE]}, {"text": [SENTENCE], "w": ["1"]}, {"text": [SENTENCE], "w": [[1.0]]}):
        pq.write_table(pa.table(table), path)
        documents, tally = read(path)
        assert (documents, tally.reasons) == ([], {"bad_weight": 1})
    (tmp_path / "a.txt").write_text(SENTENCE)
    documents, tally = read(tmp_path / "a.txt")
    assert (documents, tally.reasons) == ([], {"bad_weight": 1})
    with pytest.raises(UserError, match=r"^t has no column 'w' \(weight_column\); its files have no columns. Correct"):
        check_names("t", tally, config.Text(paths=["x"], weight_column="w"), "t", exact=True)
