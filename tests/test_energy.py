"""The witness of the energy distance against the definition, and where it ranks."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from gotd_ray import methods
from gotd_ray.config import Select, Storage
from gotd_ray.points import Points


def side(seed: int, count: int, shift: float = 0.0) -> Points:
    draw = np.random.default_rng(seed)
    b = draw.random(count) + 0.1
    ids = np.sort(np.array([draw.bytes(16).hex() for _ in range(count)], "S32"))
    vectors = draw.normal(size=(count, 5)) + np.eye(5)[0] * shift
    return Points(ids, vectors.astype(np.float16).astype(np.float32), b / b.sum())


def scores(target: Points, around: Points, ids: np.ndarray, x: np.ndarray) -> np.ndarray:
    method = methods.find("energy")
    settings = Select(method="energy")
    given = methods.Fitting(lambda: target, lambda _: around, settings, 0, None, Storage(), lambda _: None, int)
    scorer = method.scorer(method.fit(given), methods.Part(b"0", b"g", "cpu", Storage()))
    return np.asarray(scorer(ids, x.astype(np.float16)))


def test_it_is_the_difference_of_mean_distances_without_the_own_one() -> None:
    target, around, other = side(0, 30), side(1, 50), side(2, 2000)
    expected = cdist(other.vectors, target.vectors) @ target.b - cdist(other.vectors, around.vectors) @ around.b
    np.testing.assert_allclose(scores(target, around, other.ids, other.vectors), expected, atol=1e-6)
    alone = [
        cdist(around.vectors[[k]], target.vectors)[0] @ target.b
        - np.delete(cdist(around.vectors[[k]], around.vectors)[0] * around.b, k).sum() / (1 - around.b[k])
        for k in range(50)
    ]
    np.testing.assert_allclose(scores(target, around, around.ids, around.vectors), alone, atol=1e-6)


def test_documents_like_the_target_come_first() -> None:
    target, around = side(0, 100, shift=3.0), side(1, 200)
    wanted, rest = side(2, 100, shift=3.0), side(3, 100)
    found = scores(
        target, around, np.concatenate([wanted.ids, rest.ids]), np.concatenate([wanted.vectors, rest.vectors])
    )
    assert (np.argsort(found)[:100] < 100).mean() > 0.9
