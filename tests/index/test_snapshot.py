"""The index gives back what was put in, for the files as they are now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from filled import FILES, WIDTH, fill, index_in, some_rows, vector_of, vectors_for

from gotd_ray.errors import UserError
from gotd_ray.index import Index, LostError, Part, Parts, ids_of, vectors_of
from gotd_ray.storage import StoredFile


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return index_in(tmp_path)


def test_vectors_and_ids_come_back_together(index: Index) -> None:
    table = some_rows([FILES[0].uri], 0)
    fill(index, FILES[:1], table)
    snapshot, missing = index.snapshot(FILES[:2])
    assert missing == [FILES[1]]
    read = snapshot.read(["doc_id", "vector", "tokens", "row"])
    ids, vectors = ids_of(read), vectors_of(read)
    assert len(ids) == snapshot.rows == 300
    assert sorted(zip(read["doc_id"].to_pylist(), read["row"].to_pylist(), strict=True)) == sorted(
        zip(table["doc_id"].to_pylist(), range(300), strict=True)
    )
    assert all(vector.tolist() == vector_of(i.decode()).tolist() for i, vector in zip(ids, vectors, strict=True))
    assert all(count == int(i[:2], 16) for i, count in zip(ids, read["tokens"].to_pylist(), strict=True))


def test_documents_are_distinct_sorted_and_of_the_largest_weight(index: Index) -> None:
    ids = [f"{i:032x}" for i in (7, 3, 7, 5, 3)]
    table = some_rows([FILES[0].uri], 0, ids=ids)
    table = table.set_column(table.column_names.index("weight"), "weight", pa.array([1, 5, 4, 0, 2], pa.float32()))
    fill(index, FILES[:1], table)
    found = index.snapshot(FILES[:1])[0].documents(WIDTH)
    assert found.ids.astype(str).tolist() == [f"{i:032x}" for i in (3, 5, 7)]
    assert found.weights is not None
    assert found.weights.tolist() == [5, 0, 4]
    assert found.vectors.tolist() == [vector_of(i.decode()).tolist() for i in found.ids]


def test_a_text_in_many_files_has_one_vector(index: Index) -> None:
    ids = [f"{i:032x}" for i in range(20)]
    for number in range(3):
        fill(index, [FILES[number]], some_rows([FILES[number].uri], 0, ids=ids))
    snapshot, _ = index.snapshot(FILES[:3])
    assert len(snapshot.read(["doc_id", "vector"])) == 60
    assert len(snapshot.documents(WIDTH).ids) == 20


def test_an_id_that_is_twice_in_a_part_is_read_once(index: Index) -> None:
    ids = [f"{i:02x}" + "0" * 30 for i in (3, 1, 2)]
    fill(index, FILES[:1], some_rows([FILES[0].uri], 0, ids=ids))
    (part,) = index.vectors.there()
    index.vectors.delete([part])
    twice = vectors_for([*ids, *ids])
    index.vectors.write(Part.of("0", twice), twice)
    read = index.snapshot(FILES[:1])[0].read(["doc_id", "tokens", "row"]).sort_by("row")
    assert read["doc_id"].to_pylist() == ids
    assert read["tokens"].to_pylist() == [int(one[:2], 16) for one in ids]


def test_a_range_of_ids_is_read_alone(index: Index) -> None:
    table = some_rows([FILES[0].uri], 1)
    fill(index, FILES[:1], table)
    snapshot, _ = index.snapshot(FILES[:1])
    low, high = b"4" + b"0" * 31, b"a" + b"0" * 31
    wanted = sorted(i for i in table["doc_id"].to_pylist() if low.decode() <= i < high.decode())
    assert sorted(snapshot.read(["doc_id"], low, high)["doc_id"].to_pylist()) == wanted
    assert snapshot.documents(WIDTH, low, high).ids.astype(str).tolist() == wanted
    assert 0 < len(wanted) < 300
    some = [*wanted[:7], table["doc_id"][0].as_py()]
    found = snapshot.read(["doc_id", "vector"], low, high, only=some)
    assert set(found["doc_id"].to_pylist()) == set(some) & set(wanted)


def test_rows_of_a_file_that_changed_or_went_are_not_read(index: Index) -> None:
    fill(index, FILES[:2], some_rows([FILES[0].uri, FILES[1].uri], 2))
    changed = StoredFile(FILES[1].uri, FILES[1].size, 2)
    snapshot, missing = index.snapshot([FILES[0], changed])
    assert missing == [changed]
    assert set(snapshot.read(["path"])["path"].to_pylist()) == {FILES[0].uri}
    assert snapshot.rows == 150


def test_a_file_covered_twice_counts_once(index: Index) -> None:
    """Two runs at the same time may embed the same file in different company."""
    fill(index, FILES[:1], some_rows([FILES[0].uri], 3))
    fill(index, FILES[:2], some_rows([FILES[0].uri, FILES[1].uri], 4))
    snapshot, missing = index.snapshot(FILES[:2])
    assert not missing
    assert sum(taken.live.count(FILES[0].uri) for taken in snapshot.taken) == 1


def test_rows_of_a_file_that_broke_off_are_not_read(index: Index) -> None:
    """Its unit's other files are covered; it is not, and what was read of it stands in the parts."""
    fill(index, FILES[:2], some_rows([FILES[0].uri, FILES[1].uri], 5), covered=FILES[:1])
    snapshot, missing = index.snapshot(FILES[:2])
    assert missing == [FILES[1]]
    assert snapshot.rows == 150
    assert set(snapshot.read(["path"])["path"].to_pylist()) == {FILES[0].uri}
    fill(index, FILES[1:2], some_rows([FILES[1].uri], 6))
    snapshot, missing = index.snapshot(FILES[:2])
    assert not missing
    assert snapshot.rows == snapshot.read(["path"]).num_rows == 450
    gone, _ = index.snapshot(FILES[:1])
    assert set(gone.read(["path"])["path"].to_pylist()) == {FILES[0].uri}


@pytest.mark.parametrize("what", ["part", "entry"])
def test_an_entry_that_is_damaged_or_lacks_a_part_covers_nothing(index: Index, what: str) -> None:
    entry = fill(index, FILES[:1], some_rows([FILES[0].uri], 0))
    if what == "part":
        Path(index.rows.path(entry.parts[0])).unlink()
    else:
        path = Path(index.rows_folder) / "entries" / f"{entry.name}.json"
        path.write_bytes(path.read_bytes()[:40])
    snapshot, missing = index.snapshot(FILES[:1])
    assert missing == FILES[:1]
    assert snapshot.rows == 0


@pytest.mark.parametrize("table", ["rows", "vectors"])
def test_a_damaged_part_is_named(index: Index, table: str) -> None:
    fill(index, FILES[:1], some_rows([FILES[0].uri], 0))
    (path,) = (Path(getattr(index, table).folder)).iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as caught:
        index.snapshot(FILES[:1])[0].documents(WIDTH)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_whose_vectors_are_gone_are_forgotten(index: Index) -> None:
    """So that the next run embeds them again; the others stay."""
    entries = [fill(index, [FILES[n]], some_rows([FILES[n].uri], n)) for n in range(2)]
    snapshot, _ = index.snapshot(FILES[:2])
    (lost,) = [path for path in Path(index.vectors.folder).iterdir() if path.name.startswith(entries[1].name)]
    lost.unlink()
    with pytest.raises(LostError, match=f"300 documents.*{FILES[1].uri}"):
        snapshot.documents(WIDTH)
    snapshot, missing = index.snapshot(FILES[:2])
    assert missing == [FILES[1]]
    assert len(snapshot.documents(WIDTH).ids) == 300


def test_a_reader_finds_what_another_run_has_merged_away(index: Index) -> None:
    """The parts that it knows of are gone; what they held is elsewhere."""
    entries = [fill(index, [FILES[n]], some_rows([FILES[n].uri], n)) for n in range(2)]
    snapshot, _ = index.snapshot(FILES[:2])
    wanted = snapshot.documents(WIDTH)
    both = pa.concat_tables([index.rows.between(entry.parts[0], None, None) for entry in entries])
    fill(index, FILES[:2], both)
    index.entries.delete(entries)
    index.rows.delete(part for entry in entries for part in entry.parts)
    index.vectors.delete(part for part in index.vectors.there() if part.run in {entry.name for entry in entries})
    found = snapshot.documents(WIDTH)
    assert np.array_equal(found.ids, wanted.ids)
    assert np.array_equal(found.vectors, wanted.vectors)
    assert pc.sum(snapshot.read(["row"])["row"]).as_py() == 2 * sum(range(300))


def test_entries_merged_between_two_listings_are_found_at_the_next_look(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index, FILES[:1], some_rows([FILES[0].uri], 0))
    there, first = Parts.there, [True]

    def lagging(parts: Parts) -> list[Part]:
        if first and parts.folder == index.rows.folder:
            first.clear()
            return []
        return there(parts)

    monkeypatch.setattr(Parts, "there", lagging)
    snapshot, missing = index.all_of(FILES[:1])
    assert not missing and snapshot.rows == 300


def test_an_empty_index_reads_as_no_rows(index: Index) -> None:
    snapshot, missing = index.snapshot(FILES)
    assert missing == FILES
    table = snapshot.read(["doc_id", "vector"])
    assert len(ids_of(table)) == len(vectors_of(table)) == len(snapshot.documents(WIDTH).ids) == 0


@pytest.mark.parametrize("columns", [["doc_id"], ["row"], ["tokens"], ["vector", "path"]])
def test_any_columns_can_be_read(index: Index, columns: list[str]) -> None:
    fill(index, FILES[:2], some_rows([FILES[0].uri, FILES[1].uri], 7))
    for files in (FILES[:1], FILES[:2]):
        table = index.snapshot(files)[0].read(columns)
        assert table.column_names == columns
        assert len(table) == 150 * len(files)
