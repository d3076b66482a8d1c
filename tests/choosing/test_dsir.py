"""DSIR's features and weights: right against a count of one n-gram at a time, and the same in any batch and order."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from corpora import documents
from hypothesis import given
from hypothesis import strategies as st

from gotd_ray.choosing.dsir import BUCKETS, Features, dsir_scores, features, gumbel, log_ratio
from gotd_ray.text.documents import document_id

ODD = ["", " ", "one", "...", "a  b", "a b a b a", "Don't STOP!? «naïve» 東京 タワー", "x\n\ny", "ǅ İstanbul ß"]


def brute_force(text: str) -> Counter[int]:
    """Buckets of a text, one n-gram at a time."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    grams = words + [f"{a} {b}" for a, b in pairwise(words)]
    return Counter(int(hashlib.sha256(gram.encode()).hexdigest(), 16) % 10_000 for gram in grams)


def bags(found: Features) -> list[Counter[int]]:
    cuts = found.offsets.tolist()
    return [Counter(found.buckets[a:b].tolist()) for a, b in pairwise(cuts)]


def texts(count: int = 60) -> list[str]:
    return [text for text, _ in documents()[0][:count]]


def test_features_are_the_words_and_pairs_of_each_text() -> None:
    everything = ODD + texts()
    found = features(everything)
    assert bags(found) == [brute_force(text) for text in everything]
    assert found.words().tolist() == [len(re.findall(r"\w+|[^\w\s]+", text.lower())) for text in everything]
    assert features([]).counts().sum() == features([""]).counts().sum() == 0


@given(st.lists(st.text(max_size=30), max_size=6))
def test_features_of_any_text(some: list[str]) -> None:
    some = [text.encode("utf-8", "ignore").decode() for text in some]
    assert bags(features(some)) == [brute_force(text) for text in some]


def test_log_weights_are_the_sums_of_the_log_ratios_of_the_shares() -> None:
    raw, target = texts(), [text for text, _ in documents()[1][:40]]
    counts = {name: sum(map(brute_force, some), Counter()) for name, some in (("raw", raw), ("target", target))}

    def log_share(name: str, bucket: int) -> float:
        return math.log(counts[name][bucket] / counts[name].total() + 1e-8)

    expected = [
        math.fsum(n * (log_share("target", b) - log_share("raw", b)) for b, n in brute_force(text).items())
        for text in raw
    ]
    found = features(raw)
    ratio = log_ratio(features(target).counts(), found.counts())
    assert ratio.shape == (BUCKETS,)
    np.testing.assert_allclose(found.log_weights(ratio), expected, rtol=1e-12)


def test_a_text_has_the_same_bits_among_any_others_and_counts_add_up() -> None:
    raw = texts()
    ratio = np.random.default_rng(0).standard_normal(BUCKETS)
    whole = features(raw)
    order = np.random.default_rng(1).permutation(len(raw))
    assert np.array_equal(features([raw[i] for i in order]).log_weights(ratio), whole.log_weights(ratio)[order])
    parts = [features(raw[start : start + 17]) for start in range(0, len(raw), 17)]
    assert np.array_equal(np.concatenate([part.log_weights(ratio) for part in parts]), whole.log_weights(ratio))
    assert np.array_equal(np.sum([part.counts() for part in parts], axis=0), whole.counts())


def test_short_texts_are_never_taken_and_no_seed_is_no_noise() -> None:
    ids = np.array([document_id(str(i)) for i in range(3)], "S32")
    scores = dsir_scores(ids, np.array([1.0, 9.0, -2.0]), np.array([100, 99, 101]), min_words=100, seed=None)
    assert scores.tolist() == [-1.0, math.inf, 2.0]


def test_gumbel_noise_depends_on_id_and_seed_and_on_nothing_else() -> None:
    ids = np.array([document_id(str(i)) for i in range(20_000)], "S32")
    draws = gumbel(ids, 3)
    order = np.random.default_rng(0).permutation(len(ids))
    assert np.array_equal(gumbel(ids[order], 3), draws[order])
    assert abs(np.corrcoef(draws, gumbel(ids, 4))[0, 1]) < 0.03
    assert draws.mean() == pytest.approx(np.euler_gamma, abs=0.03)
    assert draws.var() == pytest.approx(math.pi**2 / 6, rel=0.05)


def test_the_first_are_sampled_without_replacement_in_proportion_to_the_weights() -> None:
    """Over many seeds, ordered pairs of the first two come as often as drawing twice from an urn gives them."""
    ids = np.array([document_id(str(i)) for i in range(4)], "S32")
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    words, seeds = np.full(4, 100), 4_000
    first_two = Counter(
        tuple(np.argsort(dsir_scores(ids, np.log(weights), words, min_words=100, seed=seed))[:2].tolist())
        for seed in range(seeds)
    )
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = np.array([weights[i] * weights[j] / (1 - weights[i]) for i, j in pairs]) * seeds
    chi_square = float(((np.array([first_two[pair] for pair in pairs]) - expected) ** 2 / expected).sum())
    assert chi_square < 31.3  # 11 degrees of freedom, p = 0.001
