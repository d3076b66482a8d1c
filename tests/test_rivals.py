"""round_robin and cells: against the definition by brute force, and the same for any split and order of the corpus."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selected import TEXTS, Selected, read_here

from gotd_ray import methods
from gotd_ray.choosing.scorers import nearest_scores
from gotd_ray.config import Select, Storage
from gotd_ray.methods import Question, round_robin
from gotd_ray.ot.shard import Shard, make_segments, shard_segments
from gotd_ray.points import Points

SEGMENTS = 64


def side(seed: int, count: int, weights: bool = False) -> Points:
    """Unit vectors in five dimensions around three centres, some of them equal, and ids in their order."""
    draw = np.random.default_rng(seed)
    ids = np.sort(np.array([draw.bytes(16).hex() for _ in range(count)], "S32"))
    vectors = draw.normal(size=(count, 5)) + 3 * np.eye(5)[draw.integers(3, size=count)]
    vectors[1 : count // 4 : 2] = vectors[: count // 4 - 1 : 2][: len(vectors[1 : count // 4 : 2])]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    b = draw.random(count) + 0.1 if weights else np.ones(count)
    return Points(ids, vectors, b / b.sum())


def scores(
    method: str, corpus: Points, target: Points, shards: int = 1, weights: np.ndarray | None = None, **settings: Any
) -> np.ndarray:
    """Of the corpus, whose rows come in another order for another number of shards."""
    record = methods.find(method)
    order = np.random.default_rng(shards).permutation(len(corpus.ids))
    parts = [
        Shard(make_segments(ids, x, SEGMENTS, wanted, some))
        for wanted in shard_segments(SEGMENTS, shards)
        for held in [order[np.isin((np.array([int(i[:8], 16) for i in corpus.ids[order]]) >> 26), list(wanted))]]
        for ids, x, some in [
            (corpus.ids[held], corpus.vectors[held].astype(np.float16), None if weights is None else weights[held])
        ]
    ]

    def ask(question: Question) -> Any:
        return reduce(
            lambda *both: question.together(list(both)), [part.fold(question.of, question.together) for part in parts]
        )

    def sample(count: int) -> Points:
        return Points(corpus.ids[:count], corpus.vectors[:count], corpus.b[:count])

    select = Select.model_validate({"method": method, **settings})
    wanted = min(select.budget, len(corpus.ids))
    given = methods.Fitting(lambda: target, sample, select, 7, None, Storage(), ask, lambda: wanted)
    scorer = record.scorer(record.fit(given), methods.Part(b"0", b"g", "cpu", Storage()))
    return np.asarray(scorer(corpus.ids, corpus.vectors.astype(np.float16)), np.float64)


def by_turns(corpus: Points, target: Points, count: int) -> list[int]:
    """Places in the corpus, in the order of taking: the definition."""
    near = [nearest_scores(corpus.vectors, y[None]) for y in target.vectors]
    taken: list[int] = []
    while len(taken) < count:
        mine = near[len(taken) % len(near)]
        left = [place for place in range(len(corpus.ids)) if place not in taken]
        taken.append(min(left, key=lambda place: (mine[place], corpus.ids[place])))
    return taken


@pytest.mark.parametrize("targets", [1, 7, 60])
def test_each_target_in_turn_takes_its_nearest_that_is_left(targets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With lists so short that targets come to their end, and have to ask again."""
    monkeypatch.setattr(round_robin, "DEPTH", 3)
    corpus, target = side(0, 300), side(1, targets)
    found = scores("round_robin", corpus, target, budget=120)
    order = np.lexsort((corpus.ids, found))
    assert order[:120].tolist() == by_turns(corpus, target, 120)
    rest = nearest_scores(corpus.vectors, target.vectors)[order[120:]]
    assert (np.diff(rest) >= 0).all()  # behind the turns by nearness


def test_the_turns_end_when_all_is_taken() -> None:
    corpus, target = side(0, 50), side(1, 4)
    assert sorted(scores("round_robin", corpus, target, budget=1000)) == list(range(50))


@pytest.mark.parametrize("settings", [{"method": "round_robin"}, {"method": "cells", "cells": 16}])
@pytest.mark.parametrize("shards", [2, 5, 64])
def test_the_number_of_shards_and_the_order_change_nothing(settings: dict[str, Any], shards: int) -> None:
    corpus, target = side(0, 500, weights=True), side(1, 30, weights=True)
    weights = np.float32(corpus.b * 500).astype(np.float64)
    one = scores(corpus=corpus, target=target, weights=weights, budget=90, **settings)
    assert scores(corpus=corpus, target=target, weights=weights, budget=90, shards=shards, **settings).tolist() == (
        one.tolist()
    )


def cell_of(corpus: Points, x: np.ndarray, count: int) -> np.ndarray:
    """k-means by the cosine, ten rounds from the first rows, by brute force."""
    means = corpus.vectors[:count].astype(np.float64)
    for _ in range(10):
        own = np.array([np.argmax([v @ c / np.linalg.norm(c) for c in means]) for v in corpus.vectors])
        means = np.array([corpus.vectors[own == c].mean(0) if (own == c).any() else means[c] for c in range(count)])
    return np.array([np.argmax([v @ c / np.linalg.norm(c) for c in means]) for v in x])


def test_a_cell_weighs_its_share_of_the_target_over_that_of_the_corpus() -> None:
    corpus, target = side(0, 200), side(1, 20, weights=True)
    weights = np.where(np.arange(200) % 3, 1.0, 2.5)
    found = scores("cells", corpus, target, weights=weights, cells=12, cells_sample=False)
    own, of_target = cell_of(corpus, corpus.vectors, 12), cell_of(corpus, target.vectors, 12)
    p = np.array([weights[own == c].sum() / weights.sum() for c in own])
    q = np.array([target.b[of_target == c].sum() for c in own])
    assert 0 < (q == 0).sum() < 200
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found, np.log(p) - np.log(q), rtol=1e-5)


def test_cells_are_drawn_at_the_targets_frequency_by_the_seed() -> None:
    """Of a corpus far larger than the draw, the cells' shares of it are the target's."""
    corpus, target = side(0, 20_000), side(1, 400)
    settings: dict[str, Any] = {"method": "cells", "cells": 6, "corpus": corpus, "target": target}
    found = scores(**settings)
    assert found.tolist() == scores(**settings).tolist()
    drawn = np.argsort(found)[:1000]
    whole = scores(**settings, cells_sample=False)
    shares = np.array([(np.isclose(whole[drawn], one)).mean() for one in np.unique(whole[np.isfinite(whole)])])
    of_corpus = np.array([(np.isclose(whole, one)).mean() for one in np.unique(whole[np.isfinite(whole)])])
    wanted = of_corpus * np.exp(-np.unique(whole[np.isfinite(whole)]))
    assert wanted.sum() == pytest.approx(1) and np.abs(shares - wanted).max() < 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "round_robin", "budget": 10},
        {"method": "round_robin", "budget": 600, "budget_unit": "tokens"},
        {"method": "cells", "budget": 10, "cells": 4},
    ],
)
def test_they_choose_in_a_run(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch)
    here = Selected(tmp_path, {"a.parquet": TEXTS}, **settings)
    facts = here.select()
    scores = [row["score"] for row in here.table("subset.parquet")]
    assert len(scores) == facts["documents"] > 0 and scores == sorted(scores) and facts["budget_reached"]
    if settings["method"] == "round_robin":
        assert scores == list(range(len(scores))) and facts["turns"] >= len(scores)
