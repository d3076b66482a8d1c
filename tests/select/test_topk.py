"""Top-k is the head of one total order, however the corpus was split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.errors import UserError
from gotd_ray.select.topk import TopK, merge, top_k

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
    with pytest.raises(UserError, match="2 of 3 scores are NaN"):
        top_k(ids, np.array([np.nan, 1.0, np.nan]), 1)
