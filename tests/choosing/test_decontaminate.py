"""Contamination: exactly the shared runs of words, found whatever the typography."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.choosing import decontaminate
from gotd_ray.choosing.decontaminate import Contamination, NgramIndex, words

Text = st.lists(st.sampled_from("abcd"), max_size=24).map(" ".join)
EVAL = "The optimal transport plan couples two measures so that the total cost of moving mass is smallest"


def brute_force(n: int, texts: list[tuple[str, str]], document: str) -> Contamination | None:
    found = document.split()
    best: tuple[int, int, int] | None = None
    for order, (_, text) in enumerate(sorted(texts)):
        evaluation = text.split()
        least = n if len(evaluation) >= n else len(evaluation) if len(evaluation) >= 5 else 10**9
        for i in range(len(found)):
            for j in range(len(evaluation)):
                length = 0
                while found[i + length : i + length + 1] == evaluation[j + length : j + length + 1] != []:
                    length += 1
                if length >= least and (best is None or (-length, order, i) < best):
                    best = (-length, order, i)
    if best is None:
        return None
    return Contamination(sorted(texts)[best[1]][0], " ".join(found[best[2] : best[2] - best[0]]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([3, 5, 7]), st.lists(st.tuples(st.sampled_from("xyz"), Text), max_size=5), Text)
def test_equals_the_comparison_of_every_pair_of_places(n: int, texts: list[tuple[str, str]], document: str) -> None:
    assert NgramIndex(n, texts).match(document) == brute_force(n, texts, document)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), Text), max_size=5), Text)
def test_a_hash_that_always_collides_changes_nothing(texts: list[tuple[str, str]], document: str) -> None:
    def collide(numbers: np.ndarray, longest: int):  # type: ignore[no-untyped-def]
        for size in range(1, min(longest, len(numbers)) + 1):
            yield size, np.zeros(len(numbers) - size + 1, np.uint64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decontaminate, "_rolling", collide)
        answer = NgramIndex(6, texts).match(document)
    assert answer == brute_force(6, texts, document)


def test_case_punctuation_width_and_line_breaks_do_not_hide_a_copy() -> None:
    disguised = EVAL.upper().replace(" ", ",\n-- ").replace("MASS", "\uff2d\uff21\uff33\uff33")
    found = NgramIndex(13, [("eval-1", EVAL)]).match(f"Some words before. {disguised}! And after.")
    assert found == Contamination("eval-1", " ".join(words(EVAL)))


def test_one_word_less_than_n_is_clean() -> None:
    index = NgramIndex(13, [("eval-1", EVAL)])
    assert index.match(" ".join(EVAL.split()[2:15])) is not None
    assert index.match(" ".join(EVAL.split()[2:14])) is None
    assert index.match(" ".join([*EVAL.split()[:8], "really", *EVAL.split()[8:]])) is None


def test_a_short_text_is_found_only_as_a_whole_and_a_very_short_one_not_at_all() -> None:
    index = NgramIndex(13, [("short", "Who wrote the first sonnet?"), ("answer", "yes it is so"), ("empty", "")])
    assert index.too_short == 2
    assert index.match("They asked who wrote the first sonnet, and left") == Contamination(
        "short", "who wrote the first sonnet"
    )
    assert index.match("Who wrote the first?") is None
    assert index.match("yes it is so") is None


def test_the_longest_run_wins_and_ties_go_to_the_smallest_id() -> None:
    index = NgramIndex(3, [("c", "one two three four"), ("b", "one two three four"), ("a", "one two three")])
    assert index.match("zero one two three four five") == Contamination("b", "one two three four")
    assert index.match("one two three") == Contamination("a", "one two three")


def test_another_process_finds_the_same() -> None:
    index = NgramIndex(5, [("eval-1", EVAL)])
    # A spawned process has another seed for the hashes of strings.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(index.match, f"x {EVAL} y").result()
    assert found == Contamination("eval-1", " ".join(words(EVAL)))


def test_no_evaluation_texts_and_no_words_are_clean() -> None:
    assert NgramIndex(13, []).match(EVAL) is None
    assert NgramIndex(13, [("eval-1", EVAL)]).match("") is None
