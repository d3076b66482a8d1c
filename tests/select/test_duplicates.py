"""Near-duplicates: the greedy rule itself, whatever the batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.select import duplicates
from gotd_ray.select.duplicates import NearDuplicates, Twin


def greedy(vectors: np.ndarray, threshold: float, cuts: list[int]) -> list[Twin | None]:
    near = NearDuplicates(threshold)
    answers = []
    edges = [0, *sorted(cuts), len(vectors)]
    for start, end in pairwise(edges):
        near.screen(vectors[start:end])
        for i in range(end - start):
            answers.append(near.twin(i))
            if answers[-1] is None:
                near.keep(i, f"{start + i}")
    return answers


def brute_force(vectors: np.ndarray, threshold: float) -> list[tuple[int, float] | None]:
    X = vectors.astype(np.float64)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    kept: list[int] = []
    answers: list[tuple[int, float] | None] = []
    for i in range(len(X)):
        cosines = [float(X[j] @ X[i]) for j in kept]
        best = max(range(len(kept)), key=lambda place: round(cosines[place], 9), default=None)
        if best is not None and cosines[best] >= threshold:
            answers.append((kept[best], cosines[best]))
        else:
            answers.append(None)
            kept.append(i)
    return answers


def clustered(n: int, d: int, seed: int, dtype: type = np.float32) -> np.ndarray:
    """Few centres, some noise, some exact copies: many pairs on both sides of the threshold."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 6), d))
    vectors = centres[rng.integers(0, len(centres), n)] + rng.uniform(0, 0.7, (n, 1)) * rng.standard_normal((n, d))
    copies = rng.integers(0, n, n // 10)
    vectors[rng.integers(0, n, n // 10)] = vectors[copies]
    return vectors.astype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 120),
    st.sampled_from([2, 8, 33]),
    st.sampled_from([0.3, 0.8, 0.95]),
    st.integers(0, 10_000),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_any_cut_into_batches_gives_the_greedy_answer(n: int, d: int, threshold: float, seed: int, cuts) -> None:  # type: ignore[no-untyped-def]
    vectors = clustered(n, d, seed)
    answers = greedy(vectors, threshold, [min(cut, n) for cut in cuts])
    for answer, expected in zip(answers, brute_force(vectors, threshold), strict=True):
        assert (answer is None) == (expected is None)
        if answer and expected:
            assert answer.doc_id == f"{expected[0]}"
            assert answer.cosine == pytest.approx(expected[1], abs=1e-6)
    assert answers == greedy(vectors, threshold, []), "to the last bit"


def test_kept_documents_beyond_one_product_are_still_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_COLUMNS", 7)
    vectors = clustered(400, 16, 5, np.float16)
    answers = greedy(vectors, 0.8, [100, 101, 250])
    expected = brute_force(vectors, 0.8)
    assert [a and int(a.doc_id) for a in answers] == [e and e[0] for e in expected]


def test_a_pair_on_the_threshold_is_decided_the_same_in_every_batch() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 384)).astype(np.float32)
    vectors[100:] = vectors[:100] + 0.5 * rng.standard_normal((100, 384)).astype(np.float32)
    for i in range(100):
        exact = greedy(vectors[[i, i + 100]], 0.5, [])[1]
        assert exact is not None
        # The pair's own cosine as the threshold: one rounding more or less would flip the answer.
        assert greedy(vectors[[i, i + 100]], exact.cosine, [1])[1] == exact
        assert greedy(np.vstack([vectors[[i]], vectors[[i + 100]]] * 3), exact.cosine, [1, 3])[1] == exact


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_threshold_one_finds_equal_vectors_and_nothing_else(dtype: type) -> None:
    vectors: np.ndarray = np.random.default_rng(3).standard_normal((500, 384)).astype(dtype)
    both = np.vstack([vectors, vectors])
    answers = greedy(both, 1.0, [300, 700])
    assert answers[:500] == [None] * 500
    assert answers[500:] == [Twin(f"{i}", 1.0) for i in range(500)]


def test_a_document_close_only_to_one_set_aside_is_kept() -> None:
    angles = np.radians([0, 15, 30])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    answers = greedy(vectors, float(np.cos(np.radians(20))), [])
    assert [a and a.doc_id for a in answers] == [None, "0", None]
