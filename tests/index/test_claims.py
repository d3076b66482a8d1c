"""A text is encoded once, in however many files it stands, and by somebody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from filled import FILES, fill, index_in, some_rows

from gotd_ray.index import Claims, Index, claims


def ids(*numbers: int) -> np.ndarray:
    return np.array([f"{number:032x}" for number in numbers], "S32")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return index_in(tmp_path)


def test_the_first_to_ask_encodes(index: Index) -> None:
    asked = Claims()
    mine, others = asked.claim(index.vectors, 0, "a", ids(5, 1, 5, 2))
    assert mine.tolist() == [True, True, False, True]
    assert others == []
    mine, others = asked.claim(index.vectors, 1, "b", ids(2, 3))
    assert mine.tolist() == [False, True]
    assert others == [0]
    mine, others = asked.claim(index.vectors, 0, "a", ids(1, 3, 4))
    assert mine.tolist() == [False, False, True], "its own of before are on their way"
    assert others == [1]


def test_what_the_index_has_is_not_encoded(index: Index) -> None:
    fill(index, FILES[:1], some_rows([FILES[0].uri], 0, ids=[f"{n:032x}" for n in range(10)]))
    fill(index, FILES[1:2], some_rows([FILES[1].uri], 0, ids=[f"{n:032x}" for n in range(5, 15)]))
    mine, others = Claims().claim(index.vectors, 0, "a", ids(0, 7, 14, 15))
    assert mine.tolist() == [False, False, False, True]
    assert others == []


def test_a_reader_that_starts_again_takes_over(index: Index) -> None:
    """What the dead one had sent on may have died with it."""
    asked = Claims()
    asked.claim(index.vectors, 0, "a", ids(1, 2, 3))
    mine, others = asked.claim(index.vectors, 0, "again", ids(1, 2, 4, 1))
    assert mine.tolist() == [True, True, True, False]
    assert others == []
    assert asked.claim(index.vectors, 0, "again", ids(1, 2, 4))[0].tolist() == [False] * 3


def test_folders_are_told_apart(index: Index, tmp_path: Path) -> None:
    asked, other = Claims(), index_in(tmp_path / "other")
    asked.claim(index.vectors, 0, "a", ids(1))
    assert asked.claim(other.vectors, 1, "b", ids(1))[0].tolist() == [True]


@pytest.mark.parametrize("seed", range(5))
def test_against_a_dictionary(index: Index, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_MOST", 3)
    rng = np.random.default_rng(seed)
    asked, owner = Claims(), dict[int, int]()
    for _ in range(60):
        unit, numbers = int(rng.integers(4)), rng.integers(0, 300, int(rng.integers(1, 20))).tolist()
        mine, others = asked.claim(index.vectors, unit, f"reader of {unit}", ids(*numbers))
        wanted, seen = [], set(owner)
        for number in numbers:
            wanted.append(number not in seen)
            seen.add(number)
            owner.setdefault(number, unit)
        assert mine.tolist() == wanted
        assert others == sorted({owner[number] for number in numbers} - {unit})


def test_an_id_that_ends_in_zeros_is_whole() -> None:
    some = np.array(["ab" + "0" * 30, "ab" + "0" * 28 + "01", "0" * 32], "S32")
    assert len(np.unique(claims.packed(some))) == 3
