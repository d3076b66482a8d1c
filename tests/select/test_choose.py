"""The choice: budget, filters and quota, whatever the batches."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.config import Select
from gotd_ray.select.choose import Candidate, Chooser, Kept, SetAside
from gotd_ray.select.decontaminate import NgramIndex

INDEX = NgramIndex(5, [("eval-1", "alpha beta gamma delta epsilon zeta")])
DIRTY = "we copy alpha beta gamma delta epsilon here"
EYE = np.eye(64, dtype=np.float16)


def candidate(i: int, source: str = "web", tokens: int = 10, text: str | None = "clean", **more: int) -> Candidate:
    return Candidate(f"{i:032x}", float(i), source, tokens, text, EYE[more.get("vector", i)])


def ranking(seed: int, n: int) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((8, 6))[rng.integers(0, 8, n)] + 0.3 * rng.standard_normal((n, 6))
    texts = [None, DIRTY, *["clean text of a document"] * 8]
    return [
        Candidate(
            doc_id=f"{i:032x}",
            score=float(i // 2),
            source=f"source-{rng.integers(0, 3)}",
            tokens=int(rng.integers(0, 30)),
            text=texts[rng.integers(0, len(texts))],
            vector=vectors[i].astype(np.float16),
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
        if c.text is None:
            aside.append((c.doc_id, "text_changed"))
        elif c.text == DIRTY:
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
    chooser = Chooser(chosen, INDEX)
    edges = [0, *sorted(cuts), 60]
    fed = [kept for start, end in pairwise(edges) for kept in chooser.feed(candidates[start:end])]
    kept, aside = one_by_one(candidates, chosen)
    assert [k.doc_id for k in chooser.kept] == kept
    assert [(s.doc_id, s.reason) for s in chooser.set_aside] == aside
    assert fed == chooser.kept
    assert [k.rank for k in fed] == list(range(1, len(fed) + 1))
    whole = Chooser(chosen, INDEX)
    whole.feed(candidates)
    assert (whole.kept, whole.set_aside) == (chooser.kept, chooser.set_aside), "details too, to the last bit"


def test_every_removal_says_why() -> None:
    chooser = Chooser(Select(budget=4, source_quota=0.5, near_duplicate=0.95), INDEX)
    chooser.feed(
        [
            candidate(0),
            candidate(1, text=None),
            candidate(2, text=DIRTY),
            candidate(3, vector=0),
            candidate(4),
            candidate(5),
            candidate(6, source="book"),
        ]
    )
    assert chooser.kept == [
        Kept(1, 1, f"{0:032x}", 0.0, "web", 10),
        Kept(2, 1, f"{4:032x}", 4.0, "web", 10),
        Kept(3, 1, f"{6:032x}", 6.0, "book", 10),
    ]
    assert chooser.set_aside == [
        SetAside(f"{1:032x}", 1.0, "web", "text_changed"),
        SetAside(f"{2:032x}", 2.0, "web", "contaminated", other="eval-1", span="alpha beta gamma delta epsilon"),
        SetAside(f"{3:032x}", 3.0, "web", "near_duplicate", other=f"{0:032x}", cosine=1.0),
        SetAside(f"{5:032x}", 5.0, "web", "source_quota"),
    ]
    assert not chooser.full


def test_the_document_that_reaches_a_token_budget_is_kept_whole_and_is_the_last() -> None:
    chooser = Chooser(Select(budget=25, budget_unit="tokens"))
    chooser.feed([candidate(i) for i in range(5)])
    assert chooser.full
    assert [k.doc_id for k in chooser.kept] == [f"{i:032x}" for i in range(3)]
    assert chooser.set_aside == [], "what lies behind the budget was not judged"
    assert chooser.feed([candidate(9)]) == []


def test_a_quota_is_not_pushed_up_by_binary_fractions() -> None:
    chooser = Chooser(Select(budget=100, source_quota=0.07))  # 0.07 * 100 is 7.000000000000001 in floating point
    chooser.feed([candidate(i) for i in range(10)])
    assert len(chooser.kept) == 7


def test_a_ranking_out_of_order_is_refused() -> None:
    chooser = Chooser(Select())
    chooser.feed([candidate(5)])
    with pytest.raises(AssertionError, match="not in rank order"):
        chooser.feed([candidate(4)])
    with pytest.raises(AssertionError, match="not in rank order"):
        chooser.feed([candidate(5)])


@given(st.integers(0, 1000), st.integers(1, 7), st.sampled_from(["documents", "tokens"]), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_rounds_over_an_unchanged_ranking_take_what_one_round_takes(
    seed: int, rounds: int, unit: str, budget: int
) -> None:
    candidates = ranking(seed, 40)
    chosen = Select(budget=max(budget, rounds), budget_unit=unit, rounds=rounds, source_quota=0.5, near_duplicate=0.9)
    once = Chooser(chosen.model_copy(update={"rounds": 1}), INDEX)
    once.feed(candidates)
    chooser, spent = Chooser(chosen, INDEX), 0
    while True:
        kept = chooser.feed([c for c in candidates if c.doc_id not in chooser.judged])
        spent += sum(row.tokens for row in kept) if unit == "tokens" else len(kept)
        assert {row.round for row in kept} <= {chooser.round}
        if not chooser.next_round():
            break
    assert [row.doc_id for row in chooser.kept] == [row.doc_id for row in once.kept]
    assert [row.rank for row in chooser.kept] == list(range(1, len(chooser.kept) + 1))
    assert {item.doc_id for item in chooser.set_aside} == {item.doc_id for item in once.set_aside}
    assert chooser.spent == spent / chosen.budget


def test_each_round_takes_its_part_and_one_with_nothing_to_take_is_passed_over() -> None:
    chooser = Chooser(Select(budget=10, rounds=3))
    candidates = [candidate(i) for i in range(30)]
    assert len(chooser.feed(candidates)) == len(chooser.judged) == 4
    assert chooser.next_round()
    assert [row.round for row in chooser.feed(candidates[4:])] == [2, 2, 2]
    tokens = Chooser(Select(budget=100, budget_unit="tokens", rounds=10))
    tokens.feed([candidate(0, tokens=35)])
    assert tokens.next_round()
    assert (tokens.round, tokens.wanted) == (4, 5)
    tokens.feed([candidate(1, tokens=90)])
    assert tokens.full
    assert not tokens.next_round()


def test_a_later_round_may_rank_otherwise_but_not_offer_a_document_again() -> None:
    chooser = Chooser(Select(budget=4, rounds=2))
    chooser.feed([candidate(8), candidate(9)])
    assert chooser.next_round()
    assert [row.doc_id for row in chooser.feed([candidate(1), candidate(2)])] == [f"{i:032x}" for i in (1, 2)]
    chooser = Chooser(Select(budget=4, rounds=2))
    chooser.feed([candidate(8), candidate(9)])
    chooser.next_round()
    with pytest.raises(AssertionError, match="offered again"):
        chooser.feed([candidate(9)])
