"""Properties of gotd_ray.text.chunks."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.text.chunks import split
from gotd_ray.text.clean import clean

CLEAN = st.text(st.sampled_from("ab. \n?\u3002"), max_size=600).map(clean).filter(bool)
LIMITS = st.integers(40, 200)


@settings(max_examples=300, deadline=None)
@given(CLEAN, LIMITS)
def test_nothing_is_lost_but_white_space_and_no_piece_is_too_long(text: str, limit: int) -> None:
    pieces = split(text, limit)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= limit for piece in pieces)


@settings(max_examples=300, deadline=None)
@given(CLEAN, LIMITS)
def test_pieces_of_a_clean_text_are_clean(text: str, limit: int) -> None:
    assert all(clean(piece) == piece for piece in split(text, limit))


@settings(max_examples=300, deadline=None)
@given(CLEAN, LIMITS)
def test_no_stump_is_left_over(text: str, limit: int) -> None:
    pieces = split(text, limit)
    # White space at a cut, at most two characters, belongs to no piece.
    assert len(pieces) == 1 or min(map(len, pieces)) >= limit // 3 - 2


def test_a_short_text_and_no_limit_give_the_text_itself() -> None:
    assert split("a. b", 40) == ["a. b"]
    assert split("word " * 500, None) == ["word " * 500]


def test_the_cut_is_at_a_paragraph_before_a_sentence_before_a_word() -> None:
    words = ("word " * 12).strip()
    assert split(f"{words}.\n\n{words}. {words} {words}", 100)[0] == f"{words}."
    assert split(f'{words}." {words} {words}', 100)[0] == f'{words}."'
    assert all(piece.startswith("word") and piece.endswith("word") for piece in split(f"{words} {words} {words}", 100))
    assert [len(piece) for piece in split("x" * 250, 100)] == [100, 100, 50]


def test_a_text_just_over_the_limit_leaves_both_sides_a_third() -> None:
    assert [len(piece) for piece in split(("word " * 21).strip(), 100)] == [69, 34]


def test_a_long_text_is_not_copied_for_every_cut() -> None:
    start = time.perf_counter()
    assert len(split("word " * 2_000_000, 1000)) == 10_000
    assert time.perf_counter() - start < 10
