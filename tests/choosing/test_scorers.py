"""Scores of the baselines: right against the formula, and the same in every shard."""

from __future__ import annotations

import numpy as np
import pytest

from gotd_ray.choosing.scorers import nearest_scores, random_scores

IDS = np.array([f"{number * 7919:032x}" for number in range(20_000)], "S32")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_nearest_is_minus_the_largest_cosine_for_vectors_of_any_length(dtype: type) -> None:
    rng = np.random.default_rng(1)
    vectors: np.ndarray = (rng.standard_normal((300, 32)) * rng.uniform(0.5, 4, (300, 1))).astype(dtype)
    target: np.ndarray = rng.standard_normal((17, 32)).astype(dtype)
    X, Y = vectors.astype(np.float64), target.astype(np.float64)
    cosines = X @ Y.T / np.linalg.norm(X, axis=1)[:, None] / np.linalg.norm(Y, axis=1)
    scores = nearest_scores(vectors, target, block=64)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, -cosines.max(axis=1), atol=2e-6)


def test_nearest_gives_a_document_the_same_bits_in_every_shard() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((3000, 384)).astype(np.float16)
    target = rng.standard_normal((101, 384)).astype(np.float16)
    whole = nearest_scores(vectors, target)
    for size in (1, 7, 999, 1500):
        rows = rng.permutation(3000)[:size]
        assert np.array_equal(nearest_scores(vectors[rows], target), whole[rows])


def test_nearest_takes_a_zero_vector_and_an_empty_shard() -> None:
    target = np.eye(4, dtype=np.float32)
    assert nearest_scores(np.zeros((1, 4), np.float16), target).tolist() == [0.0]
    assert nearest_scores(np.zeros((0, 4), np.float16), target).shape == (0,)


def test_random_depends_on_the_id_and_the_seed_only() -> None:
    scores = random_scores(IDS, seed=3)
    order = np.random.default_rng(0).permutation(len(IDS))
    assert np.array_equal(random_scores(IDS[order], seed=3), scores[order])
    assert np.array_equal(np.concatenate([random_scores(IDS[:11], 3), random_scores(IDS[11:], 3)]), scores)
    assert abs(np.corrcoef(scores, random_scores(IDS, seed=4))[0, 1]) < 0.03, "another seed, another draw"


def test_random_keeps_its_values_between_releases() -> None:
    assert random_scores(IDS[:2], seed=0).tolist() == pytest.approx([0.9621415409030298, 0.84204045434616], abs=1e-15)


def test_random_is_uniform() -> None:
    scores = random_scores(IDS, seed=0)
    assert scores.min() >= 0 and scores.max() < 1
    counts = np.histogram(scores, bins=20, range=(0, 1))[0]
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(scores[:-1], scores[1:])[0, 1]) < 0.03, "ids in order do not give scores in order"
