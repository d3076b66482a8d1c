"""The choice: budget, filters and quota, whatever the batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.choosing.choose import Chooser, Offer, SetAside
from gotd_ray.choosing.decontaminate import Contamination
from gotd_ray.config import Select

COPY = Contamination("eval-1", "alpha beta gamma delta epsilon")
EYE = np.eye(64, dtype=np.float16)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A row of an offer."""

    doc_id: str
    score: float
    vector: np.ndarray
    source: str = "web"
    tokens: int = 10
    gone: bool = False
    shared: Contamination | None = None


def offer(candidates: Sequence[Candidate]) -> Offer:
    n, width = len(candidates), len(candidates[0].vector) if candidates else 1
    return Offer(
        np.array([c.doc_id for c in candidates], "S32"),
        np.array([c.score for c in candidates], np.float64),
        np.array([*(c.source for c in candidates), None])[:n],
        np.array([c.tokens for c in candidates], np.int64),
        np.stack([c.vector for c in candidates]) if n else np.empty((0, width), np.float16),
        np.array([c.gone for c in candidates], bool),
        {i: c.shared for i, c in enumerate(candidates) if c.shared},
    )


def feed(chooser: Chooser, candidates: Sequence[Candidate]) -> list[str]:
    """The ids of what is kept."""
    return [candidates[row].doc_id for row in chooser.feed(offer(candidates)).tolist()]


def candidate(i: int, vector: int | None = None, **changes: Any) -> Candidate:
    return Candidate(f"{i:032x}", float(i), EYE[i if vector is None else vector], **changes)


def ranking(seed: int, n: int) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((8, 6))[rng.integers(0, 8, n)] + 0.3 * rng.standard_normal((n, 6))
    kinds: list[dict[str, Any]] = [{"gone": True}, {"shared": COPY}, *[{}] * 8]
    return [
        Candidate(
            doc_id=f"{i:032x}",
            score=float(i // 2),
            source=f"source-{rng.integers(0, 3)}",
            tokens=int(rng.integers(0, 30)),
            vector=vectors[i].astype(np.float16),
            **kinds[rng.integers(0, len(kinds))],
        )
        for i in range(n)
    ]


def one_by_one(candidates: list[Candidate], chosen: Select) -> tuple[list[str], list[tuple[str, str]]]:
    """The rules as plain loops."""
    limit = math.ceil(Fraction(str(chosen.source_quota)) * chosen.budget) if chosen.source_quota else chosen.budget
    kept: list[Candidate] = []
    aside = []

    def spent(source: str | None = None) -> int:
        of = [c for c in kept if source in (None, c.source)]
        return sum(c.tokens for c in of) if chosen.budget_unit == "tokens" else len(of)

    def close(a: Candidate, b: Candidate) -> bool:
        x, y = a.vector.astype(np.float64), b.vector.astype(np.float64)
        return bool(x @ y / np.linalg.norm(x) / np.linalg.norm(y) >= (chosen.near_duplicate or 2))

    for c in candidates:
        if spent() >= chosen.budget:
            break
        if c.gone:
            aside.append((c.doc_id, "text_changed"))
        elif c.shared:
            aside.append((c.doc_id, "contaminated"))
        elif spent(c.source) >= limit:
            aside.append((c.doc_id, "source_quota"))
        elif any(close(c, k) for k in kept):
            aside.append((c.doc_id, "near_duplicate"))
        else:
            kept.append(c)
    return [c.doc_id for c in kept], aside


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from(["documents", "tokens"]),
    st.integers(1, 200),
    st.sampled_from([None, 0.1, 0.4]),
    st.sampled_from([None, 0.9]),
)
def test_any_cut_into_batches_gives_the_choice_made_one_by_one(seed, cuts, unit, budget, quota, near) -> None:  # type: ignore[no-untyped-def]
    candidates = ranking(seed, 60)
    chosen = Select(budget=budget, budget_unit=unit, source_quota=quota, near_duplicate=near)
    chooser = Chooser(chosen)
    edges = [0, *sorted(cuts), 60]
    fed = [doc_id for start, end in pairwise(edges) for doc_id in feed(chooser, candidates[start:end])]
    kept, aside = one_by_one(candidates, chosen)
    assert fed == kept
    assert [(s.doc_id, s.reason) for s in chooser.set_aside] == aside
    taken = [c for c in candidates if c.doc_id in kept]
    assert (chooser.documents, chooser.tokens) == (len(kept), sum(c.tokens for c in taken))
    assert chooser.kept_of == Counter(c.source for c in taken)
    assert chooser.last_score == (taken[-1].score if taken else None)
    assert [one.decode() for one in chooser.judged] == sorted([*kept, *(doc_id for doc_id, _ in aside)])
    whole = Chooser(chosen)
    assert feed(whole, candidates) == kept
    assert whole.set_aside == chooser.set_aside, "details too, to the last bit"


def test_every_removal_says_why() -> None:
    chooser = Chooser(Select(budget=4, source_quota=0.5, near_duplicate=0.95))
    kept = feed(
        chooser,
        [
            candidate(0),
            candidate(1, gone=True),
            candidate(2, shared=COPY),
            candidate(3, vector=0),
            candidate(4),
            candidate(5),
            candidate(6, source="book"),
        ],
    )
    assert kept == [f"{i:032x}" for i in (0, 4, 6)]
    assert (chooser.kept_of, chooser.last_score) == ({"web": 2, "book": 1}, 6.0)
    assert chooser.set_aside == [
        SetAside(f"{1:032x}", 1.0, "web", "text_changed"),
        SetAside(f"{2:032x}", 2.0, "web", "contaminated", other="eval-1", span="alpha beta gamma delta epsilon"),
        SetAside(f"{3:032x}", 3.0, "web", "near_duplicate", other=f"{0:032x}", cosine=1.0),
        SetAside(f"{5:032x}", 5.0, "web", "source_quota"),
    ]
    assert not chooser.full


def test_the_document_that_reaches_a_token_budget_is_kept_whole_and_is_the_last() -> None:
    chooser = Chooser(Select(budget=25, budget_unit="tokens"))
    assert feed(chooser, [candidate(i) for i in range(5)]) == [f"{i:032x}" for i in range(3)]
    assert chooser.full
    assert chooser.set_aside == [], "what lies behind the budget was not judged"
    assert len(chooser.judged) == 3
    assert feed(chooser, [candidate(9)]) == []


def test_a_quota_is_not_pushed_up_by_binary_fractions() -> None:
    chooser = Chooser(Select(budget=100, source_quota=0.07))  # 0.07 * 100 is 7.000000000000001 in floating point
    assert len(feed(chooser, [candidate(i) for i in range(10)])) == 7


def test_a_ranking_out_of_order_is_refused() -> None:
    chooser = Chooser(Select())
    feed(chooser, [candidate(5)])
    for wrong in ([candidate(4)], [candidate(5)], [candidate(7), candidate(6)], [candidate(6), candidate(6)]):
        with pytest.raises(AssertionError, match="not in rank order"):
            feed(chooser, wrong)


@given(st.integers(0, 1000), st.integers(1, 7), st.sampled_from(["documents", "tokens"]), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_rounds_over_an_unchanged_ranking_take_what_one_round_takes(
    seed: int, rounds: int, unit: str, budget: int
) -> None:
    candidates = ranking(seed, 40)
    chosen = Select(budget=max(budget, rounds), budget_unit=unit, rounds=rounds, source_quota=0.5, near_duplicate=0.9)
    once = Chooser(chosen.model_copy(update={"rounds": 1}))
    wanted = feed(once, candidates)
    chooser, kept = Chooser(chosen), []
    while True:
        judged = set(chooser.judged.astype(str).tolist())
        kept += feed(chooser, [c for c in candidates if c.doc_id not in judged])
        if not chooser.next_round():
            break
    assert kept == wanted
    assert (chooser.documents, chooser.tokens) == (once.documents, once.tokens)
    assert {item.doc_id for item in chooser.set_aside} == {item.doc_id for item in once.set_aside}
    assert chooser.spent == (chooser.tokens if unit == "tokens" else chooser.documents) / chosen.budget


def test_each_round_takes_its_part_and_one_with_nothing_to_take_is_passed_over() -> None:
    chooser = Chooser(Select(budget=10, rounds=3))
    candidates = [candidate(i) for i in range(30)]
    assert len(feed(chooser, candidates)) == len(chooser.judged) == 4
    assert chooser.next_round()
    assert feed(chooser, candidates[4:]) == [f"{i:032x}" for i in (4, 5, 6)]
    assert chooser.round == 2
    tokens = Chooser(Select(budget=100, budget_unit="tokens", rounds=10))
    feed(tokens, [candidate(0, tokens=35)])
    assert tokens.next_round()
    assert (tokens.round, tokens.wanted) == (4, 5)
    feed(tokens, [candidate(1, tokens=90)])
    assert tokens.full
    assert not tokens.next_round()


def test_a_later_round_may_rank_otherwise_but_not_offer_a_document_again() -> None:
    def second() -> Chooser:
        chooser = Chooser(Select(budget=4, rounds=2))
        feed(chooser, [candidate(8), candidate(9)])
        assert chooser.next_round()
        return chooser

    assert feed(second(), [candidate(1), candidate(2)]) == [f"{i:032x}" for i in (1, 2)]
    with pytest.raises(AssertionError, match="offered again"):
        feed(second(), [candidate(9)])
