"""Merges lose nothing, double nothing, and leave parts that are each of a range of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from filled import FILES, WIDTH, fill, index_in, some_rows

from gotd_ray.index import Entry, Index, merge
from gotd_ray.index.merge import Merge, due, merge_rows, merge_vectors
from gotd_ray.index.parts import Part
from gotd_ray.storage import StoredFile
from gotd_ray.text.tally import Tally


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(merge, "PART_BYTES", merge.ROW_BYTES * 100)
    monkeypatch.setattr(merge, "FAN_IN", 3)
    return index_in(tmp_path)


def here(merges: list[Merge]) -> list[list[Part]]:
    return [merge.merge(one) for one in merges]


def merge_all(index: Index, files: list[StoredFile], paths: Sequence[str] = ("/corpus",)) -> None:
    merge_vectors(index.vectors, WIDTH, here)
    merge_rows(index.snapshot(files)[0], files, paths, here)


def content(index: Index, files: list[StoredFile]) -> tuple[list[object], list[object]]:
    snapshot, missing = index.snapshot(files)
    assert not missing
    rows = snapshot.read(["doc_id", "path", "row", "vector"]).sort_by([("doc_id", "ascending"), ("path", "ascending")])
    found = snapshot.documents(WIDTH)
    return rows.to_pylist(), [found.ids.tolist(), found.vectors.tolist()]


def test_what_is_due() -> None:
    assert due([]) == due([5]) == due([1, 2]) == due([1, 3, 9]) == 0
    assert due([5, 5]) == 2
    assert due([1, 1, 100]) == 2
    assert due([1, 2, 5, 100]) == 3
    assert due([3, 4, 13, 14]) == 4


def test_nothing_is_lost_and_nothing_doubled(index: Index) -> None:
    shared = [f"{n:032x}" for n in range(0, 16**4, 4000)]
    for n, file in enumerate(FILES):
        fill(index, [file], some_rows([file.uri], n, ids=shared + some_rows(["x"], n)["doc_id"].to_pylist()))
    before = content(index, FILES)
    merge_all(index, FILES)
    assert content(index, FILES) == before
    vectors, rows = index.vectors.there(), index.rows.there()
    assert sum(part.rows for part in vectors) == len(shared) + 6 * 300, "each text once"
    assert sum(part.rows for part in rows) == 6 * (len(shared) + 300)
    assert len(index.committed()) == 1
    for parts in (vectors, rows):
        assert len({part.run for part in parts}) == 1
        ranges = sorted((part.low, part.high) for part in parts)
        assert all(high <= low for (_, high), (low, _) in pairwise(ranges)), "of a range of ids each"
        assert all(part.rows <= 100 for part in parts)
    assert len(vectors) >= len(rows) / 6


def test_a_merge_writes_in_proportion_to_what_is_new(index: Index) -> None:
    """A large run stays as it is when little is added."""
    fill(index, FILES[:1], some_rows([FILES[0].uri], 0, rows=3000))
    (large,) = index.vectors.there()
    for n in (1, 2):
        fill(index, [FILES[n]], some_rows([FILES[n].uri], n, rows=30))
    merge_all(index, FILES[:3])
    assert large in index.vectors.there()
    assert {part.rows for part in index.vectors.there()} == {3000, 60}
    assert sorted(entry.size for entry in index.committed()) == [60, 3000]


def test_rows_of_files_that_have_gone_or_changed_go(index: Index) -> None:
    for n in range(4):
        fill(index, [FILES[n]], some_rows([FILES[n].uri], n))
    fill(index, FILES[4:6], some_rows([FILES[4].uri, FILES[5].uri], 9))
    changed = StoredFile(FILES[3].uri, 1, 2)
    fill(index, [changed], some_rows([changed.uri], 10, rows=50))
    now = [FILES[1], FILES[2], changed, FILES[4]]
    before = content(index, now)
    merge_all(index, now)
    assert content(index, now) == before
    assert {uri for entry in index.committed() for uri in entry.tallies} == {file.uri for file in now}
    assert sum(part.rows for part in index.rows.there()) == 300 + 300 + 50 + 150


def test_files_of_folders_that_are_not_listed_are_left_alone(index: Index) -> None:
    """They may be another run's, with the same settings and another corpus."""
    elsewhere = StoredFile("/elsewhere/a.parquet", 1, 1)
    fill(index, [elsewhere], some_rows([elsewhere.uri], 0))
    fill(index, [elsewhere, FILES[2]], some_rows([elsewhere.uri, FILES[2].uri], 3))
    for n in (0, 1):
        fill(index, [FILES[n]], some_rows([FILES[n].uri], n + 1))
    before = content(index, [elsewhere])
    merge_all(index, FILES[:3])
    assert content(index, [elsewhere]) == before
    assert content(index, FILES[:3])


def test_sets_that_are_files_of_one_folder_leave_each_other_alone(index: Index) -> None:
    """As a target and a contrast are, whose settings are the same: a file that a set does not name has not gone."""
    sets = [[FILES[n]] for n in range(4)]
    for n, files in enumerate(sets):
        fill(index, files, some_rows([files[0].uri], n))
    before = [content(index, files) for files in sets]
    for files in [*sets, *sets]:
        merge_all(index, files, [files[0].uri])
        assert [content(index, one) for one in sets] == before
    for files in sets:
        merge_all(index, files, ["/corpus/*.parquet"])
        assert [content(index, one) for one in sets] == before


def test_files_of_sources_that_are_left_out_keep_their_rows(index: Index) -> None:
    """A survey has dropped them for this run; another may read them."""
    fill(index, FILES[:4], some_rows([file.uri for file in FILES[:4]], 0))
    fill(index, FILES[4:5], some_rows([FILES[4].uri], 1))
    before = content(index, FILES[:5])
    merge_rows(index.snapshot(FILES[:2])[0], FILES[:5], ["/corpus"], here)
    assert content(index, FILES[:5]) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("seed", range(12))
def test_a_merge_killed_anywhere_loses_nothing(index: Index, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write and every deletion is a place to die; whoever comes next finds all, and finishes."""
    shared = [f"{n:032x}" for n in range(0, 16**4, 4000)]
    for n, file in enumerate(FILES[:5]):
        fill(index, [file], some_rows([file.uri], n, ids=shared + some_rows(["x"], n, rows=80)["doc_id"].to_pylist()))
    before, rng = content(index, FILES[:5]), np.random.default_rng(seed)
    left = int(rng.integers(0, 40))

    def counted(done: Callable[..., None]) -> Callable[..., None]:
        def step(*args: object) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            done(*args)

        return step

    with monkeypatch.context() as patch:
        from gotd_ray.index import parts

        patch.setattr(parts.storage, "write_bytes", counted(parts.storage.write_bytes))
        patch.setattr(parts.storage, "delete_tree", counted(parts.storage.delete_tree))
        patch.setattr(parts, "READERS", 1)
        with suppress(Killed):
            merge_all(index, FILES[:5])
    assert content(index, FILES[:5]) == before
    merge_all(index, FILES[:5])
    merge_all(index, FILES[:5])
    assert content(index, FILES[:5]) == before
    assert len(index.committed()) == 1


def test_the_same_bytes_in_whatever_order(index: Index, tmp_path: Path) -> None:
    names = []
    for number, order in enumerate(([0, 1, 2, 3], [3, 1, 0, 2])):
        other = index_in(tmp_path / str(number))
        for n in order:
            fill(other, [FILES[n]], some_rows([FILES[n].uri], n))
        merge_all(other, FILES[:4])
        names.append([{path.name: path.read_bytes() for path in Path(table.folder).iterdir()}
                      for table in (other.rows, other.vectors)])  # fmt: skip
    assert names[0] == names[1]


def test_rows_merged_again_after_a_loss_are_not_taken_for_those_of_the_lost_entry(index: Index) -> None:
    """A merged part is lost and its files are read again: the same merge writes parts of the same names, and the old
    entry is whole again, beside a new one that has them too."""
    files = FILES[:2]
    filled = [(file, some_rows([file.uri], n)) for n, file in enumerate(files)]
    for file, table in filled:
        fill(index, [file], table)
    before = content(index, files)
    merge_all(index, files)
    Path(index.rows.path(index.rows.there()[0])).unlink()
    for file, table in filled:
        fill(index, [file], table)
    empty = StoredFile("/corpus/empty.parquet", 1, 1)
    index.entries.commit(Entry("e0", (empty,), (), {empty.uri: Tally().to_dict()}))
    for _ in range(3):
        merge_all(index, [*files, empty])
        assert content(index, [*files, empty]) == before
    assert {part for entry in index.committed() for part in entry.parts} == set(index.rows.there())
