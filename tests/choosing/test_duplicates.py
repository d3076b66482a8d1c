"""Near-duplicates: the greedy rule itself, whatever the batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotd_ray.choosing import clusters, duplicates
from gotd_ray.choosing.duplicates import NearDuplicates, Twin
from gotd_ray.choosing.scorers import unit


def greedy(vectors: np.ndarray, threshold: float, cuts: list[int]) -> list[Twin | None]:
    near = NearDuplicates(threshold)
    answers = []
    edges = [0, *sorted(cuts), len(vectors)]
    for cut, end in pairwise(edges):
        start = cut
        while start < end:
            batch = vectors[start : min(end, start + near.block)]
            near.screen(batch)
            for i in range(len(batch)):
                answers.append(near.twin(i))
                if answers[-1] is None:
                    near.keep(i, f"{start + i}".encode())
            start += len(batch)
    return answers


def brute_force(vectors: np.ndarray, threshold: float) -> list[tuple[int, float] | None]:
    """Row and cosine of each vector's twin."""
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


@pytest.mark.parametrize("common", [0.0, 1.0, 2.0, 6.0])
def test_kept_documents_beyond_one_product_are_still_compared(common: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """``common``: of all vectors, so that a bound on the cosine takes part, half of it, or nothing of them."""
    for name, value in {"_COLUMNS": 7, "_ROWS": 5, "_PAIRS": 3}.items():
        monkeypatch.setattr(duplicates, name, value)
    vectors = (clustered(400, 64, 5) + common * np.ones(64)).astype(np.float16)
    threshold = {0.0: 0.8, 1.0: 0.85, 2.0: 0.9, 6.0: 0.98}[common]
    answers = greedy(vectors, threshold, [100, 101, 250])
    expected = brute_force(vectors, threshold)
    assert [a and int(a.doc_id) for a in answers] == [e and e[0] for e in expected]
    assert 20 < sum(e is not None for e in expected) < 380


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1000), st.lists(st.integers(0, 300), max_size=4))
def test_beyond_the_exact_ones_twins_are_searched_within_clusters(monkeypatch, seed: int, cuts: list[int]) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(duplicates, "EXACT", 60)
    monkeypatch.setattr(duplicates, "_COLUMNS", 32)
    monkeypatch.setattr(clusters, "CLUSTERS", 5)
    monkeypatch.setattr(clusters, "SAMPLE", 40)
    vectors = clustered(300, 12, seed, np.float16)
    answers = greedy(vectors, 0.8, cuts)
    kept = [i for i, answer in enumerate(answers) if answer is None]
    rows = unit(vectors)
    names = sorted(kept[:60], key=lambda i: f"{i}".encode())
    labels = clusters.nearest(rows, clusters.centres(rows[names[:40]], 5))
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    for i, answer in enumerate(answers):
        before = [j for j in kept if j < i]
        if len(before) >= 60:
            before = [j for j in before if labels[j] == labels[i]]
        near = [j for j in before if cosines[i, j] >= 0.8]
        assert (answer is None) == (not near)
        if answer:
            best = max(near, key=lambda j: (round(cosines[i, j], 9), -j))
            assert answer.doc_id == f"{best}"
    assert answers == greedy(vectors, 0.8, []), "to the last bit"


def test_the_nearest_centre_depends_on_the_row_alone() -> None:
    rng = np.random.default_rng(2)
    rows, centres = unit(rng.normal(size=(500, 48))), unit(rng.normal(size=(30, 48)))
    centres[20] = centres[3]  # equal ones: the first counts
    labels = clusters.nearest(rows, centres)
    exact = rows.astype(np.float64) @ centres.astype(np.float64).T
    assert 20 not in labels
    assert labels.tolist() == np.argmax(np.round(exact, 12), axis=1).tolist()
    assert labels.tolist() == [int(clusters.nearest(rows[i : i + 1], centres)[0]) for i in range(500)]


def test_centres_lie_in_the_middle_of_what_is_theirs() -> None:
    rng = np.random.default_rng(4)
    middles = np.eye(8)[:3]
    rows = unit(middles[np.arange(300) % 3] + 0.05 * rng.normal(size=(300, 8)))
    found = clusters.centres(rows, 3)
    np.testing.assert_allclose(found, middles, atol=0.03)
    alone = clusters.centres(unit(np.array([[1.0, 0], [1, 0], [0, 1]])), 3)
    np.testing.assert_allclose(alone, [[1, 0], [1, 0], [0, 1]], err_msg="a centre without rows stays")


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
