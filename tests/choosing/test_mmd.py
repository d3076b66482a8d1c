"""The MMD witness: right against the formula in float64, blind to shards, and an oracle's bandwidth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gotd_ray.choosing.mmd import Witness, median_bandwidth
from gotd_ray.ot.shard import Shard, make_segments, shard_segments


def points(rng: np.random.Generator, rows: int, width: int = 16) -> np.ndarray:
    x = rng.standard_normal((rows, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def ids_of(rows: int) -> np.ndarray:
    """Ids spread over all segments, ascending."""
    return np.array([f"{number * (2**128 // rows):032x}" for number in range(rows)], "S32")


def brute_force(x: np.ndarray, y: np.ndarray, landmarks: np.ndarray, own: list[int], bandwidth: float) -> np.ndarray:
    """One kernel at a time in float64; ``own[i]`` is the landmark that candidate i is, or -1."""
    scores = []
    for i, point in enumerate(x.astype(np.float64)):
        kernels = [np.exp(-((point - other) ** 2).sum() / (2 * bandwidth)) for other in landmarks.astype(np.float64)]
        corpus = [value for j, value in enumerate(kernels) if j != own[i]]
        target = [np.exp(-((point - other) ** 2).sum() / (2 * bandwidth)) for other in y.astype(np.float64)]
        scores.append(np.mean(corpus) - np.mean(target))
    return np.array(scores)


@pytest.mark.parametrize(("bandwidth", "atol"), [(0.5, 1e-6), (0.05, 1e-6), (2e-4, 1e-9)])
def test_the_witness_is_the_formula_without_a_landmarks_own_term(bandwidth: float, atol: float) -> None:
    rng = np.random.default_rng(0)
    x, y, ids = points(rng, 200), points(rng, 30).astype(np.float32), ids_of(200)
    x[150] = x[7]  # a document as near as itself, which is no landmark
    witness = Witness(y, x[:40].astype(np.float32), ids[:40], bandwidth)
    own = [i if i < 40 else -1 for i in range(200)]
    scores = witness.scorer()(ids, x)
    np.testing.assert_allclose(scores, brute_force(x, y, x[:40], own, bandwidth), atol=atol, rtol=0)


def test_vectors_of_any_length_are_scored_by_their_distance() -> None:
    rng = np.random.default_rng(1)
    x = (points(rng, 50).astype(np.float32) * rng.uniform(1, 20, (50, 1))).astype(np.float32)
    y = points(rng, 9).astype(np.float32) * 7
    witness = Witness(y, x[:10], ids_of(50)[:10], 30.0)
    own = [i if i < 10 else -1 for i in range(50)]
    np.testing.assert_allclose(witness.scorer()(ids_of(50), x), brute_force(x, y, x[:10], own, 30.0), atol=2e-5)


def test_the_same_bits_in_any_number_of_shards_and_threads() -> None:
    rng = np.random.default_rng(2)
    x, y, ids = points(rng, 3000, 384), points(rng, 101, 384).astype(np.float32), ids_of(3000)
    score = Witness(y, x[:256].astype(np.float32), ids[:256], 0.7).scorer()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def scored(shards: int, threads: int) -> np.ndarray:
        found = []
        for part in shard_segments(64, shards):
            inside = [segment for segment in whole if segment.index in part]
            found += Shard(inside, threads=threads).each(lambda s: score(s.ids, s.vectors))
        return np.concatenate(found)

    whole = make_segments(ids, x, 64, range(64))
    try:
        assert all(np.array_equal(scored(shards, n), scored(1, 1)) for shards, n in ((1, 3), (2, 1), (7, 2)))
    finally:
        torch.set_num_threads(threads)


def test_the_median_bandwidth_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    x, y = points(rng, 31), points(rng, 20)
    squares = [((a - b) ** 2).sum() for a in x.astype(np.float64) for b in y.astype(np.float64)]
    assert median_bandwidth(x, y) == pytest.approx(np.median(squares), rel=1e-9)


def test_a_corpus_of_one_vector_has_no_median_bandwidth() -> None:
    x = np.tile(np.array([[3.0, 4.0]], np.float32), (5, 1))
    with pytest.raises(ValueError, match=r"^the median squared distance between corpus and target is 0, which is no"):
        median_bandwidth(x, x)


def test_weights_count_on_either_side() -> None:
    rng = np.random.default_rng(4)
    x, y, ids = points(rng, 60), points(rng, 20).astype(np.float32), ids_of(60)
    masses, b = rng.exponential(size=15), rng.exponential(size=20)
    witness = Witness(y, x[:15].astype(np.float32), ids[:15], 0.5, b / b.sum(), masses / masses.sum())
    expected = []
    for i, point in enumerate(x.astype(float)):
        corpus, target = (np.exp(-((point - others.astype(float)) ** 2).sum(1) / (2 * 0.5)) for others in (x[:15], y))
        rest = np.arange(15) != i  # a landmark's own term is left out
        expected.append(np.average(corpus[rest], weights=masses[rest]) - np.average(target, weights=b))
    np.testing.assert_allclose(witness.scorer()(ids, x), expected, atol=1e-5)
