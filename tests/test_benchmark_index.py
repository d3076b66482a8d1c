"""bench_index.py and its storages at toy size: what goes in comes out, and what is counted is what happened."""

from __future__ import annotations

from pathlib import Path

import bench_index
import index_formats
import index_steps
import numpy as np
import pytest
from test_benchmarks import numbers, tables

WIDTH = 8
SMALL = index_steps.Size(rows=1_800, batches=18, width=WIDTH, wanted=40)


@pytest.mark.parametrize("name", index_formats.FORMATS)
def test_a_storage_gives_back_what_it_was_given(name: str, tmp_path: Path) -> None:
    place = index_formats.FORMATS[name](str(tmp_path / name))
    for needed in place.needs[:1]:
        pytest.importorskip({"pylance": "lance"}.get(needed, needed))
    stored: dict[bytes, np.ndarray] = {}
    for number in range(SMALL.batches):
        table = index_steps.batch(100, WIDTH, number)
        place.append(table)
        ids, x = index_formats.arrays(table)
        stored.update(zip(ids.tolist(), x, strict=True))

    def check(found: index_formats.Rows, wanted: set[bytes]) -> None:
        ids, x = found
        assert sorted(ids.tolist()) == sorted(wanted) and x.dtype == np.float16
        assert all((stored[one] == vector).all() for one, vector in zip(ids.tolist(), x, strict=True))

    some = index_steps.some_ids(SMALL, 40, seed=0)
    ranges = [index_formats.bounds(number, 8) for number in range(8)]
    inside = [{one for one in stored if low.encode() <= one < high.encode()} for low, high in ranges]
    assert len(set(some)) == 40 and set().union(*inside) == set(stored)
    for compacted in (False, True) if name != "parts" else (False,):
        if compacted:
            place.compact()
        for bounds, wanted in zip(ranges, inside, strict=True):
            check(place.read(*bounds), wanted)
        check(place.look_up(some), {one.encode() for one in some})
    if name != "parts":
        place.delete(some)
        check(place.read(*index_formats.ALL), set(stored) - {one.encode() for one in some})
        assert place.count() == len(stored) - 40


def test_the_index_and_its_storages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(
        kind: str, name: str, place: index_formats.Format, size: index_steps.Size, seed: int = 0, counted: bool = True
    ) -> index_steps.Measured:
        return index_steps.work(kind, place, size, seed)

    monkeypatch.setattr(bench_index, "run", here)  # a process for each step takes too long
    sizes = ["--rows", "1800", "--batches", "18", "--width", "8", "--ids", "40", "--repeats", "1", "--writers", "0"]
    bench_index.main(["--folder", str(tmp_path), "--formats", "runs", "parts", *sizes])
    states, changes, encodings, readers = tables(capsys.readouterr().out)
    assert [row["storage"].split(",")[0] for row in states] == ["runs", "runs", "parts"]
    assert [int(row["files"]) for row in states] == [38, 2, 36]  # 18 runs and their merge, a part and a manifest each
    assert all(float(row["MB"]) > 0 and numbers(row["range, s (CPU)"])[0] >= 0 for row in states)
    assert [row["storage"] for row in changes] == ["runs", "parts"] and changes[1][
        "1% deleted: opens"
    ] == "not possible"
    assert len(encodings) == 6 and all(numbers(cell) for row in encodings for cell in list(row.values())[1:])
    assert {row["pandas"] for row in readers} == {"yes"} and not list(tmp_path.iterdir())


def test_what_is_not_installed_is_skipped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_formats.Lance, "needs", ("no-such-package",))
    assert bench_index.usable(["lance", "runs"]) == ["runs"]
    assert "skipped: lance needs no-such-package, which is not installed" in capsys.readouterr().out


def test_opens_are_those_between_the_marks() -> None:
    mark = f'7 openat(AT_FDCWD, "{index_steps.MARK}", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)'
    log = [
        '7 openat(AT_FDCWD, "/data/before", O_RDONLY) = 3',
        mark,
        '7 openat(AT_FDCWD, "/data/a", O_RDONLY|O_CLOEXEC) = 3',
        '8 openat(AT_FDCWD, "/data/b", O_RDONLY <unfinished ...>',
        '7 openat(AT_FDCWD, "/data/none", O_RDONLY) = -1 ENOENT (No such file or directory)',
        '7 openat(AT_FDCWD, "/data/", O_RDONLY|O_DIRECTORY) = 4',
        "8 <... openat resumed>) = 5",
        '7 open("/data/a", O_RDONLY) = 6',
        '7 openat(AT_FDCWD, "/elsewhere/a", O_RDONLY) = 6',
        mark,
        '7 openat(AT_FDCWD, "/data/after", O_RDONLY) = 3',
    ]
    assert index_steps.opens(log, "/data") == ["/data/a", "/data/b", "/data/a"]
