"""Weights of documents: of equal texts the largest counts, sources can be given shares, few can stand for many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def distinct(ids: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The distinct ids in order, where each stands first, and the largest weight of each (float64; None is ones).

    Args:
        ids: (n,) S32, in any order; weights: (n,), at least 0.
    """
    if weights is None:
        return *np.unique(ids, return_index=True), None
    ids, first, place = np.unique(ids, return_index=True, return_inverse=True)
    largest = np.zeros(len(ids))
    np.maximum.at(largest, place, weights)
    return ids, first, largest


def by_source(
    ids: np.ndarray, weights: np.ndarray | None, sources: np.ndarray, shares: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents of several targets, each target's weights scaled to its share.

    A document that stands in several targets has a part in each, so its weight is the sum of them.

    Args:
        ids: (n,) S32, in any order; weights: (n,), at least 0, None is ones; sources: (n,) names.
        shares: by source, at least 0, of any sum.

    Returns:
        The distinct ids in order, where each stands first, and the weight of each (float64).

    Raises:
        ValueError: shares and sources do not name the same; a source with a share has no weight.
    """
    if set(shares) != set(sources.tolist()):
        raise ValueError(f"the shares name {sorted(shares)}, the sources are {sorted(set(sources.tolist()))}")
    distinct_ids, first = np.unique(ids, return_index=True)
    b = np.zeros(len(distinct_ids))
    for source in sorted(name for name, share in shares.items() if share > 0):
        mine = sources == source
        own, _, a = distinct(ids[mine], None if weights is None else weights[mine])
        a = np.ones(len(own)) if a is None else a
        if not a.sum() > 0:
            raise ValueError(f"the source '{source}' has a share, but all of its documents have weight 0")
        b[np.searchsorted(distinct_ids, own)] += a / a.sum() * shares[source]
    return distinct_ids, first, b


def priorities(ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """a_i / u_i (n,), u_i in (0, 1] from the first 52 bits of the id, which is a hash: for equal weights, by id."""
    digits = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 32)[:, :13].astype(np.int64)
    nibbles = np.where(digits >= ord("a"), digits - ord("a") + 10, digits - ord("0"))
    return weights * (2.0**52 / (nibbles @ (16 ** np.arange(12, -1, -1, dtype=np.int64)) + 1))


def thin(ids: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A sample that stands for all: the k documents of largest priority, the same ones however they are split.

    Priority sampling (Duffield, Lund & Thorup 2007): with t the priority that comes after them, weights max(a_i, t)
    estimate every sum over all documents without bias. Heavy documents are taken for certain, and keep their weight.

    Args:
        ids: (n,) S32, distinct, all of them or each part's k + 1 of largest priority; weights: (n,), at least 0.

    Returns:
        Which ones (<=k,), in the order of their ids, none of weight 0; their weights, summing to 1, None if equal.
    """
    priority = priorities(ids, weights)
    order = np.lexsort((ids, -priority))[: np.count_nonzero(priority)]
    kept = order[:k]
    kept = kept[np.argsort(ids[kept])]
    found = np.maximum(weights[kept], priority[order[k]] if len(order) > k else 0.0)
    return kept, None if len(found) and (found == found[0]).all() else found / found.sum()
