"""The index gives back what was put in, for the files as they are now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gotd_ray.config import Storage
from gotd_ray.errors import UserError
from gotd_ray.index import Entry, Index, entry_name, ids_of, part_name, vectors_of
from gotd_ray.storage import StoredFile
from gotd_ray.text.tally import Tally
from gotd_ray.units import make_units

STORAGE = Storage()
FILES = [StoredFile(f"/corpus/{name}.parquet", 3 << 20, 1) for name in "abcdef"]


def part(paths: list[str], seed: int, rows: int = 300) -> pa.Table:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, 4)).astype(np.float16)
    return pa.table(
        {
            "doc_id": [rng.bytes(16).hex() for _ in range(rows)],
            "source": ["s"] * rows,
            "path": [paths[i % len(paths)] for i in range(rows)],
            "row": pa.array(range(rows), pa.int64()),
            "chunk": pa.array([0] * rows, pa.int32()),
            "chars": pa.array([1] * rows, pa.int32()),
            "tokens": pa.array([1] * rows, pa.int32()),
            "weight": pa.array([1.0] * rows, pa.float32()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 4),
        }
    )


def commit(index: Index, files: list[StoredFile], table: pa.Table, covered: list[StoredFile] | None = None) -> Entry:
    """An entry of these files; it covers all of them, or those that could be read to their end."""
    name = entry_name(files)
    part = part_name(name, zip(table["doc_id"].to_pylist(), strict=True))
    index.write_part(part, table)
    paths = table["path"].to_pylist()
    tallies = {file.uri: Tally(documents=paths.count(file.uri)).to_dict() for file in files}
    entry = Entry(name, tuple(files if covered is None else covered), (part,), tallies)
    index.commit(entry)
    return entry


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(str(tmp_path), STORAGE)


def test_vectors_and_ids_come_back_together(index: Index) -> None:
    table = part([FILES[0].uri], 0)
    commit(index, FILES[:1], table)
    snapshot, missing = index.snapshot(FILES[:2])
    assert missing == [FILES[1]]
    read = snapshot.read(["doc_id", "vector"], STORAGE)
    given = dict(zip(table["doc_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    ids, vectors = ids_of(read), vectors_of(read)
    assert len(ids) == snapshot.rows == 300
    assert all(given[doc_id.decode()] == vector.tolist() for doc_id, vector in zip(ids, vectors, strict=True))


def test_a_range_of_ids_is_read_alone(index: Index) -> None:
    table = part([FILES[0].uri], 1)
    commit(index, FILES[:1], table)
    snapshot, _ = index.snapshot(FILES[:1])
    low, high = b"4" + b"0" * 31, b"a" + b"0" * 31
    read = snapshot.read(["doc_id"], STORAGE, low, high)["doc_id"].to_pylist()
    assert sorted(read) == sorted(i for i in table["doc_id"].to_pylist() if low.decode() <= i < high.decode())
    assert 0 < len(read) < 300


def test_rows_of_a_file_that_changed_or_went_are_not_read(index: Index) -> None:
    commit(index, FILES[:2], part([FILES[0].uri, FILES[1].uri], 2))
    changed = StoredFile(FILES[1].uri, FILES[1].size, 2)
    snapshot, missing = index.snapshot([FILES[0], changed])
    assert missing == [changed]
    assert set(snapshot.read(["path"], STORAGE)["path"].to_pylist()) == {FILES[0].uri}
    assert snapshot.rows == 150


def test_a_file_covered_twice_counts_once(index: Index) -> None:
    """Two runs at the same time may embed the same file in different company."""
    commit(index, FILES[:1], part([FILES[0].uri], 3))
    commit(index, FILES[:2], part([FILES[0].uri, FILES[1].uri], 4))
    snapshot, missing = index.snapshot(FILES[:2])
    assert not missing
    assert sum(taken.live.count(FILES[0].uri) for taken in snapshot.taken) == 1


def test_rows_of_a_file_that_broke_off_are_not_read(index: Index) -> None:
    """Its unit's other files are covered; it is not, and what was read of it stands in the parts."""
    commit(index, FILES[:2], part([FILES[0].uri, FILES[1].uri], 5), covered=FILES[:1])
    snapshot, missing = index.snapshot(FILES[:2])
    assert missing == [FILES[1]]
    assert snapshot.rows == 150
    assert set(snapshot.read(["path"], STORAGE)["path"].to_pylist()) == {FILES[0].uri}
    commit(index, FILES[1:2], part([FILES[1].uri], 6))
    snapshot, missing = index.snapshot(FILES[:2])
    assert not missing
    assert snapshot.rows == snapshot.read(["path"], STORAGE).num_rows == 450
    gone, _ = index.snapshot(FILES[:1])
    assert set(gone.read(["path"], STORAGE)["path"].to_pylist()) == {FILES[0].uri}


def test_an_entry_that_is_damaged_or_lacks_a_part_covers_nothing(index: Index, tmp_path: Path) -> None:
    for number, spoil in enumerate((Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:40]))):
        entry = commit(index, FILES[:1], part([FILES[0].uri], number))
        spoil(
            tmp_path
            / ("parts" if number == 0 else "entries")
            / (entry.parts[0] if number == 0 else f"{entry.name}.json")
        )
        snapshot, missing = index.snapshot(FILES[:1])
        assert missing == FILES[:1]
        assert snapshot.rows == 0


def test_a_damaged_part_is_named(index: Index, tmp_path: Path) -> None:
    entry = commit(index, FILES[:1], part([FILES[0].uri], 0))
    path = tmp_path / "parts" / entry.parts[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as caught:
        index.snapshot(FILES[:1])[0].read(["doc_id"], STORAGE)
    assert entry.parts[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_are_named_by_their_documents() -> None:
    """A file that broke off gives other parts than one that was read to its end."""
    rows = [(f"{i:032x}", "a.jsonl", i, 0, "source", 1.0) for i in range(3)]
    names = {
        part_name("entry", rows[:2]),
        part_name("entry", rows[:3]),
        part_name("entry", rows[1:]),
        part_name("x", rows),
    }
    assert len(names) == 4
    assert part_name("entry", iter(rows)) == part_name("entry", rows)
    assert part_name("entry", [("\ud800", 1)])


def test_an_empty_index_reads_as_no_rows(index: Index) -> None:
    snapshot, missing = index.snapshot(FILES)
    assert missing == FILES
    table = snapshot.read(["doc_id", "vector"], STORAGE)
    assert len(ids_of(table)) == len(vectors_of(table)) == 0


def test_units_are_the_same_after_some_are_done() -> None:
    """What a killed run left over is grouped as before, so that its parts are found."""
    first = make_units(FILES, FILES, set())
    assert len(first) > 1
    assert [file for unit in first for file in unit.files] == FILES
    left = [file for unit in first[1:] for file in unit.files]
    part = part_name(first[1].name, [("id", "path", 0)])
    again = make_units(FILES, left, {part, "other-0123456789abcdef.parquet"})
    assert [unit.files for unit in again] == [unit.files for unit in first[1:]]
    assert again[0].done == {part}
    assert not again[1].done


def test_a_unit_holds_many_small_files_or_one_large_one() -> None:
    small = [StoredFile(f"/c/{i:04d}.txt", 1000, 1) for i in range(2000)]
    assert len(make_units(small, small, set())) == 1
    large = [StoredFile(f"/c/{i}.parquet", 1 << 30, 1) for i in range(5)]
    assert [len(unit.files) for unit in make_units(large, large, set())] == [1] * 5
