"""Data selection with importance resampling (Xie et al. 2023, arXiv 2302.03169), on the words of the texts.

A text is a bag of hashed n-grams: its words and its pairs of neighbouring words, each in one of 10,000 buckets. The log
weight of a text is the sum over its n-grams of log p_target(bucket) - log p_raw(bucket); with Gumbel noise added, the
largest are a sample without replacement in proportion to the weights. Features, smoothing and minimum length are those
of the authors' package ``data-selection``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from gotd_ray.choosing.scorers import random_scores

BUCKETS = 10_000
SMOOTHING = 1e-8
"""Added to each bucket's share before the logarithm."""

_BLOCK = 4096
_WORD = re.compile(r"\w+|[^\w\s]+")  # NLTK's WordPunctTokenizer


@dataclass(frozen=True)
class Features:
    """The n-grams of some texts: those of text i are ``buckets[offsets[i] : offsets[i + 1]]``."""

    buckets: np.ndarray
    """(total,) uint16; of each text its words, then its pairs, in their order."""

    offsets: np.ndarray
    """(n + 1,) int64."""

    def words(self) -> np.ndarray:
        """(n,) int64: w words give 2 w - 1 n-grams."""
        return (np.diff(self.offsets) + 1) // 2

    def counts(self) -> np.ndarray:
        """(BUCKETS,) int64 over all texts."""
        total = np.zeros(BUCKETS, np.int64)
        for low, high in self._blocks():
            total += np.bincount(self.buckets[self.offsets[low] : self.offsets[high]], minlength=BUCKETS)
        return total

    def log_weights(self, log_ratio: np.ndarray) -> np.ndarray:
        """(n,) float64. A text's sum runs in its own order: it has the same bits among any others."""
        weights = np.empty(len(self.offsets) - 1)
        for low, high in self._blocks():
            ends = self.offsets[low : high + 1]
            owner = np.repeat(np.arange(high - low), np.diff(ends))
            terms = log_ratio[self.buckets[ends[0] : ends[-1]]]
            weights[low:high] = np.bincount(owner, weights=terms, minlength=high - low)
        return weights

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Runs of texts: what is computed of them for a moment takes eight times their own memory."""
        rows = len(self.offsets) - 1
        return ((low, min(low + _BLOCK, rows)) for low in range(0, rows, _BLOCK))


def features(texts: Sequence[str]) -> Features:
    """The n-grams of texts. Each distinct one is hashed once, so give many texts at a time."""
    words = [_WORD.findall(text.lower()) for text in texts]
    lengths = np.array([len(found) for found in words], np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(2 * lengths - 1, 0))])
    number: dict[str, int] = {}
    numbers = np.array([number.setdefault(word, len(number)) for found in words for word in found], np.int64)
    names = list(number)

    owner = np.repeat(np.arange(len(words)), lengths)
    place = offsets[owner] + np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    buckets = np.empty(offsets[-1], np.uint16)
    buckets[place] = _buckets_of(names)[numbers]

    first = np.flatnonzero(owner[:-1] == owner[1:])  # words that have a next one in their text
    pairs, which = np.unique(numbers[first] * len(names) + numbers[first + 1], return_inverse=True)
    halves = zip(*(part.tolist() for part in np.divmod(pairs, max(len(names), 1))), strict=True)
    buckets[place[first] + lengths[owner[first]]] = _buckets_of([f"{names[a]} {names[b]}" for a, b in halves])[which]
    return Features(buckets, offsets)


def _buckets_of(grams: list[str]) -> np.ndarray:
    """SHA-256 as one large number, modulo BUCKETS."""
    digests = np.frombuffer(b"".join(sha256(gram.encode()).digest() for gram in grams), ">u4").reshape(-1, 8)
    rest = np.zeros(len(grams), np.int64)
    for column in digests.T:
        rest = (rest * 2**32 + column) % BUCKETS
    return rest


def log_ratio(target: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """(BUCKETS,) float64: log p_target - log p_raw, from counts that are not all 0."""
    shares = [counts / counts.sum() + SMOOTHING for counts in (target, raw)]
    return np.log(shares[0]) - np.log(shares[1])


def gumbel(ids: np.ndarray, seed: int) -> np.ndarray:
    """(n,) float64, a standard Gumbel draw per id (n,) S32, the same wherever and whenever the id is seen.

    The k largest of log weight + draw are a sample of k without replacement (Gumbel top-k).
    """
    uniform = np.maximum(random_scores(ids, seed, purpose="gumbel"), 2.0**-54)
    return -np.log(-np.log(uniform))


def dsir_scores(
    ids: np.ndarray, log_weights: np.ndarray, words: np.ndarray, *, min_words: int, seed: int | None
) -> np.ndarray:
    """Minus the log weight, (n,) float64: lower is better, infinite below ``min_words`` words.

    Args:
        ids: (n,) S32; log_weights: (n,) float64; words: (n,) int.
        seed: of the Gumbel noise; None takes the largest weights without noise.
    """
    noise = 0.0 if seed is None else gumbel(ids, seed)
    return np.where(words >= min_words, -(log_weights + noise), np.inf)
