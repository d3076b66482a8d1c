"""What is read together, and what is sent on to be encoded."""

from __future__ import annotations

from filled import FILES

from gotd_ray.storage import StoredFile
from gotd_ray.units import make_units


def test_units_are_the_same_after_some_are_done() -> None:
    first = make_units(FILES, FILES)
    assert len(first) > 1
    assert [file for unit in first for file in unit.files] == FILES
    left = [file for unit in first[1:] for file in unit.files]
    assert make_units(FILES, left) == first[1:]


def test_a_unit_holds_many_small_files_or_one_large_one() -> None:
    small = [StoredFile(f"/c/{i:04d}.txt", 1000, 1) for i in range(2000)]
    assert len(make_units(small, small)) == 1
    large = [StoredFile(f"/c/{i}.parquet", 1 << 30, 1) for i in range(5)]
    assert [len(unit.files) for unit in make_units(large, large)] == [1] * 5
