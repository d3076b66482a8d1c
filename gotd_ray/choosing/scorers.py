"""The scores that need no transport, as pure functions over a shard. Lower is better, as with the potential f."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (n, d) scaled to length 1, float32. A zero row stays zero."""
    rows = np.asarray(vectors, np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def nearest_scores(vectors: np.ndarray, target: np.ndarray, block: int = 1024) -> np.ndarray:
    """Minus the cosine to the nearest target document.

    Args:
        vectors: (n, d) float16 or float32 candidates, of any length but zero.
        target: (m, d) float16 or float32.
        block: candidates per product; memory is O(block * (d + m)).

    Returns:
        (n,) float32 in [-1, 1] up to rounding.
    """
    assert len(target) > 0
    # BLAS picks its kernel by the matrix's shape and the row's place, and kernels differ in the last bit. What double
    # precision loses there is gone after rounding, so a document has the same score in whatever shard it comes.
    columns = unit(target).T.astype(np.float64)
    scores = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), block):
        part = unit(vectors[start : start + block]).astype(np.float64)
        scores[start : start + block] = -(part @ columns).max(axis=1)
    return scores


def random_scores(ids: np.ndarray, seed: int, purpose: str = "") -> np.ndarray:
    """A uniform draw per document: BLAKE2b of its id, keyed by the seed.

    Args:
        ids: (n,) S32.
        seed: at least 0, up to 64 digits.
        purpose: up to 16 letters; draws for different purposes are independent.

    Returns:
        (n,) float64 in [0, 1), the same for an id wherever and whenever it is seen.
    """
    key, person = str(seed).encode(), purpose.encode()
    digests = b"".join(blake2b(doc_id, digest_size=8, key=key, person=person).digest() for doc_id in ids.tolist())
    return (np.frombuffer(digests, "<u8") >> np.uint64(11)) * 2.0**-53
