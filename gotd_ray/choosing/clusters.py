"""Clusters of unit vectors: k-means by the cosine, whose answer depends on the vectors alone and on no batch."""

from __future__ import annotations

import numpy as np

from gotd_ray.choosing.scorers import unit

CLUSTERS = 1024
"""Of ten million documents, some ten thousand in each."""

SAMPLE = 64 * CLUSTERS
"""Documents that the centres are found from."""

ROUNDS = 10
_SLACK = 1e-5  # above the rounding of a float32 product of unit vectors, about 1e-6
_ROWS = 16_384  # rows per product


def centres(sample: np.ndarray, count: int) -> np.ndarray:
    """Centres (c, d) of a sample (n, d) of unit vectors: c is ``count``, or n where that is less.

    Lloyd's rounds from the first c rows, so the rows must come in random order, as documents by id do. A centre that
    loses all of its rows stays where it is.
    """
    found = unit(sample[:count])
    for _ in range(ROUNDS):
        labels = nearest(sample, found)
        sums = np.zeros(found.shape, np.float64)
        np.add.at(sums, labels, sample)
        found = np.where((sums != 0).any(axis=1, keepdims=True), unit(sums), found)
    return found


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centre (n,) int32 of the largest product with each row (n, d); the first of equals.

    BLAS rounds by shape: where several are near the largest, their own float64 products decide.
    """
    labels = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        products = part @ centres.T
        labels[start : start + _ROWS] = products.argmax(axis=1)
        close = products >= products.max(axis=1, keepdims=True) - _SLACK
        for i in np.flatnonzero(close.sum(axis=1) > 1).tolist():
            places = np.flatnonzero(close[i])
            exact = (centres[places].astype(np.float64) * part[i].astype(np.float64)).sum(axis=1)
            labels[start + i] = places[exact.argmax()]
    return labels
