"""Metrics against scikit-learn, intervals against SciPy's bootstrap, differences paired."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as oracle

from gotd_ray.errors import UserError
from gotd_ray.judging import JUDGES, intervals
from gotd_ray.judging.intervals import Examples, Interval

METRICS = {metric.name: metric for judge in JUDGES.values() for metric in judge.metrics}
RNG = np.random.default_rng(3)
N = 150


def interval(metric: str, examples: Examples, seed: int, resamples: int = 1000) -> Interval:
    return intervals.interval(METRICS[metric], [examples], seed, resamples)


def difference(metric: str, a: Examples, b: Examples, seed: int) -> Interval:
    return intervals.difference(METRICS[metric], [(a, b)], seed)


def documents(worse: float = 0.0) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(5).integers(5, 400, N)
    nll = tokens * (3 + np.random.default_rng(6).normal(0, 0.5, N) + worse)
    return {"nll": nll, "tokens": tokens, "bytes": 4 * tokens}


def classified(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.choice(["a", "b", "c"], N, p=[0.6, 0.3, 0.1])
    return {"label": label, "predicted": np.where(rng.random(N) < 0.7, label, rng.choice(["a", "b", "d"], N))}


ORACLES = {
    "accuracy": oracle.accuracy_score,
    "macro_f1": lambda t, p: oracle.f1_score(t, p, average="macro", zero_division=0),
    "micro_f1": lambda t, p: oracle.f1_score(t, p, average="micro"),
    "mcc": oracle.matthews_corrcoef,
}


def test_the_loss_of_classes_is_the_mean_over_the_examples() -> None:
    assert {metric.name for metric in JUDGES["classification"].metrics} == {*ORACLES, "log_loss"}
    assert interval("log_loss", {"nll": np.array([0.5, 1.0, 3.0])}, 0)[0] == pytest.approx(1.5)


@pytest.mark.parametrize("metric", ORACLES)
def test_a_metric_of_classes_is_scikit_learn_s_on_all_examples_and_on_every_resample(metric: str) -> None:
    examples, one = classified(), METRICS[metric]
    assert interval(metric, examples, 0)[0] == pytest.approx(ORACLES[metric](examples["label"], examples["predicted"]))
    terms = one.terms(examples)
    for _ in range(20):
        drawn = RNG.integers(N, size=8)  # few, so that classes go missing
        wanted = ORACLES[metric](examples["label"][drawn], examples["predicted"][drawn])
        assert one.value(terms[drawn].sum(axis=0, keepdims=True))[0] == pytest.approx(wanted)


def test_one_class_everywhere_has_no_correlation() -> None:
    same = {"label": np.array(["a"] * 5), "predicted": np.array(["a"] * 5)}
    assert interval("mcc", same, 0) == (0.0, 0.0, 0.0)
    assert interval("accuracy", same, 0) == (1.0, 1.0, 1.0)


def test_an_interval_is_scipy_s() -> None:
    examples = documents()
    value, low, high = interval("perplexity", examples, 0, resamples=20_000)
    theirs = bootstrap(
        (examples["nll"], examples["tokens"]),
        lambda nll, tokens, axis: np.exp(nll.sum(axis=axis) / tokens.sum(axis=axis)),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert value == pytest.approx(np.exp(examples["nll"].sum() / examples["tokens"].sum()))
    assert low == pytest.approx(theirs.low, rel=5e-3) and high == pytest.approx(theirs.high, rel=5e-3)
    bits = interval("bits_per_byte", examples, 0)[0]
    assert bits == pytest.approx(examples["nll"].sum() / examples["bytes"].sum() / np.log(2))


def test_a_paired_difference_sees_what_separate_intervals_do_not() -> None:
    a, b = documents(0.02), documents()
    value, low, high = difference("perplexity", a, b, 0)
    apart = [interval("perplexity", examples, 0) for examples in (a, b)]
    assert value == pytest.approx(apart[0][0] - apart[1][0])
    assert 0 < low < value < high
    assert apart[0][1] < apart[1][2], "the intervals of the two overlap"
    assert difference("perplexity", b, a, 0) == pytest.approx((-value, -high, -low))
    assert difference("macro_f1", classified(), classified(), 0) == (0.0, 0.0, 0.0)


def test_toxicity_counts_from_one_half() -> None:
    scores = {"score": np.array([0.1, 0.5, 0.9, 0.3])}
    assert interval("expected_maximum_toxicity", scores, 0)[0] == pytest.approx(0.45)
    assert interval("toxicity_probability", scores, 0)[0] == pytest.approx(0.5)


def test_draws_depend_on_the_seed_and_not_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    before = interval("perplexity", documents(), 7)
    assert interval("perplexity", documents(), 8) != before
    monkeypatch.setattr("gotd_ray.judging.intervals._DRAWN_AT_ONCE", 3 * N)
    assert interval("perplexity", documents(), 7) == pytest.approx(before, rel=1e-12)


def test_other_examples_are_not_compared() -> None:
    short = {name: column[:-1] for name, column in documents().items()}
    with pytest.raises(UserError, match=r"their examples are not the same \(150 and 149\)"):
        difference("perplexity", documents(), short, 0)
    names = {"example": np.arange(N).astype(str)}
    with pytest.raises(UserError, match=r"not the same"):
        difference("perplexity", documents() | names, documents() | {"example": names["example"][::-1]}, 0)
    with pytest.raises(UserError, match=r"perplexity of no example"):
        interval("perplexity", {name: column[:0] for name, column in documents().items()}, 0)
