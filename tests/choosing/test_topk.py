"""Top-k is the head of one total order, however the corpus was split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.choosing.topk import TopK, may_cross, merge, top_k
from gotd_ray.ot.potentials import Potentials

# Few scores and few ids, so that ties and repeated ids are common.
Documents = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0, np.inf])), max_size=40
)


def arrays(documents: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([f"{number:032x}" for number, _ in documents], "S32")
    return ids, np.array([score for _, score in documents], np.float64)


def brute_force(documents: list[tuple[int, float]], k: int) -> list[tuple[float, int, int]]:
    ordered = sorted((score, number, row) for row, (number, score) in enumerate(documents))
    first = {number: (score, number, row) for score, number, row in reversed(ordered)}
    return sorted(first.values())[:k]


def listed(best: TopK) -> list[tuple[float, int, int]]:
    return [(float(s), int(i, 16), int(r)) for s, i, r in zip(best.scores, best.ids, best.row, strict=True)]


@settings(max_examples=200, deadline=None)
@given(Documents, st.integers(1, 50))
def test_equals_a_full_sort(documents: list[tuple[int, float]], k: int) -> None:
    assert listed(top_k(*arrays(documents), k)) == brute_force(documents, k)


@settings(max_examples=200, deadline=None)
@given(Documents, st.integers(1, 15), st.lists(st.integers(0, 40), max_size=4), st.randoms(use_true_random=False))
def test_any_split_and_any_order_of_merges_gives_the_same(documents, k, cuts, random) -> None:  # type: ignore[no-untyped-def]
    ids, scores = arrays(documents)
    rows = list(range(len(ids)))
    random.shuffle(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [rows[start:end] for start, end in pairwise(edges)]
    tops = [top_k(ids[part], scores[part], k, np.array(part, np.int64)) for part in parts]
    random.shuffle(tops)
    expected = brute_force(documents, k)
    assert listed(merge(tops, k)) == expected
    left = tops[0]
    for part in tops[1:]:
        left = merge([left, part], k)
    assert listed(left) == expected


def test_a_million_scores_with_many_ties_are_cut_exactly() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 50, 1_000_000).astype(np.float64)
    ids = np.char.mod("%032x", rng.permutation(1_000_000)).astype("S32")
    best = top_k(ids, scores, 30_000)
    order = np.lexsort((ids, scores))[:30_000]
    assert np.array_equal(best.row, order)
    assert np.array_equal(best.ids, ids[order])


def test_nan_is_refused_with_its_count() -> None:
    ids, _ = arrays([(1, 0.0), (2, 0.0), (3, 0.0)])
    with pytest.raises(FloatingPointError, match=r"^2 of 3 scores are NaN, so the documents have no order$"):
        top_k(ids, np.array([np.nan, 1.0, np.nan]), 1)


def test_two_documents_that_err_in_opposite_directions_change_places() -> None:
    """Each lies at a target of its own, and g moves by 0.01 up at the one and down at the other: a gap of 0.015 is
    closed, though it is wider than any one move."""
    vectors, b = np.eye(2, dtype=np.float32), np.full(2, 0.5)
    g, step = np.array([0.015, 0.0]), np.array([-0.01, 0.01])
    ids = np.array(["a" * 32, "b" * 32], "S32")
    before, after = (Potentials(vectors, b, at, 0.05).scorer("float64")(ids, vectors) for at in (g, g + step))
    assert before[1] - before[0] == pytest.approx(0.015, abs=1e-9)
    assert np.abs(after - before).max() == pytest.approx(0.01, abs=1e-9)
    assert after[0] > after[1], "the order has changed"
    assert may_cross(before, cut=before[0], move=0.01) == 2
    assert may_cross(before, cut=before[0], move=0.007) == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(1e-3, 0.5))
def test_no_document_crosses_the_cut_that_was_not_counted(seed: int, k: int, move: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=31), int(rng.integers(1, 4)))  # with ties
    moved = scores + rng.choice([-move, move, *rng.uniform(-move, move, 3)], size=31)
    ids = np.array(sorted(rng.bytes(16).hex() for _ in scores), "S32")
    best, other = (set(top_k(ids, values, k).ids.tolist()) for values in (scores, moved))
    cut = np.sort(scores)[k - 1]
    near = set(ids[np.abs(scores - cut) <= 2 * move * (1 + 1e-12)].tolist())
    assert best ^ other <= near
    assert len(best ^ other) <= may_cross(scores, cut, move * (1 + 1e-12)) == len(near)
