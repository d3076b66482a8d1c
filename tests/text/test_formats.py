"""The records of the formats, against what else names them."""

from __future__ import annotations

import gzip
import random
import re
import runpy
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from gotd_ray import config
from gotd_ray.filesystems import InputFile
from gotd_ray.text import formats
from gotd_ray.text.formats import FORMATS, format_of
from gotd_ray.text.formats.base import Format
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import BadFile

LOCAL = config.Storage()


def test_the_config_names_the_formats_that_there_are() -> None:
    names = get_args(config.Text.model_fields["format"].annotation)
    assert set(names) == {"auto", *(one.name for one in FORMATS)}


def test_an_ending_is_that_of_one_format() -> None:
    endings = [ending for one in FORMATS for ending in one.endings]
    assert len(set(endings)) == len(endings)
    assert all(ending == ending.lower() and ending.startswith(".") for ending in endings)


@pytest.mark.parametrize("known", FORMATS, ids=lambda one: one.name)
def test_files_are_known_by_their_endings(known: Format) -> None:
    for ending in known.endings:
        assert format_of(f"s3://b/x.y/PART-1{ending.upper()}") is known
        for packed in (".gz", ".zst", ".bz2", ".xz"):
            assert format_of(f"a{ending}{packed}") is (known if known.packed else None)
        assert format_of(f"a{ending}.lz4") is format_of(f"{ending}/a") is None
    assert format_of("a.unknown", known.name) is known


def test_the_example_of_the_documents_is_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "FORMAT =" in block)
    (tmp_path / "fortune.py").write_text(example)
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, runpy.run_path(str(tmp_path / "fortune.py"))["FORMAT"]))
    path = tmp_path / "a.fortune.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n%\n" + b"x" * 3000 + b"\nmore\n%\nbad \xff\n%\nlast"))
    text = config.Text(paths=["x"], max_document_bytes=2000)
    found = [(row.number, getattr(row.content, "reason", row.content)) for row in read_rows(str(path), text, LOCAL)]
    assert found == [(0, "one\ntwo\n"), (1, "too_long"), (2, "invalid_utf8"), (3, "last")]
    assert [row.number for row in read_rows(str(path), text, LOCAL, {1})] == [1]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.arrow", "a.feather", "a.parquet", "a.txt"])
def test_a_storage_that_fails_in_mid_file_is_transient(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"text": [random.Random(i).randbytes(500).hex() for i in range(9000)]})
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(table, path, row_group_size=500)
    elif name == "a.feather":
        feather.write_feather(table, path, chunksize=500, compression="uncompressed")
    elif name == "a.arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=500)
    else:
        data = table.to_pandas().to_csv(index=False).encode()
        path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    readinto, left = InputFile.readinto, [5]

    def failing(self: InputFile, buffer: Any) -> int:
        left[0] -= 1
        if left[0] < 0 or self.tell() > 5_000_000:
            with self._watched():
                raise ConnectionResetError("the network went away")
        return readinto(self, buffer)

    monkeypatch.setattr(InputFile, "readinto", failing)
    with pytest.raises(BadFile) as caught:
        list(read_rows(str(path), config.Text(paths=["x"]), LOCAL))
    assert (caught.value.reason, caught.value.transient) == ("io_error", True)
