"""The choice itself: go down the ranking, set aside what must not be taken, stop when the budget is spent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from gotd_ray.config import Select
from gotd_ray.select.decontaminate import NgramIndex
from gotd_ray.select.duplicates import NearDuplicates

Reason = Literal["text_changed", "contaminated", "source_quota", "near_duplicate"]

_BLOCK = 512  # candidates screened for duplicates at a time


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A document of the ranking. ``text`` is None when it could not be read back; ``vector`` is (d,) float16/32."""

    doc_id: str
    score: float
    source: str
    tokens: int
    text: str | None
    vector: np.ndarray


@dataclass(frozen=True, slots=True)
class Kept:
    """A chosen document; ``rank`` is its place in the order of taking, from 1, and ``round`` when it was taken."""

    rank: int
    round: int
    doc_id: str
    score: float
    source: str
    tokens: int


@dataclass(frozen=True, slots=True)
class SetAside:
    """A document passed over.

    Attributes:
        reason: ``text_changed`` (not readable any more), ``contaminated``, ``source_quota``, ``near_duplicate``.
        other: the evaluation text (contaminated) or the kept document (near_duplicate), else None.
        cosine: to the kept document (near_duplicate), else None.
        span: the words shared with the evaluation text (contaminated), else None.
    """

    doc_id: str
    score: float
    source: str
    reason: Reason
    other: str | None = None
    cosine: float | None = None
    span: str | None = None


class Chooser:
    """Feed it the ranking, best first, in batches of any size, until it is ``full`` or the ranking ends.

    A document is judged by what was kept before it, so the answer does not depend on how the ranking was cut. The
    first reason that holds is the one recorded, in the order of ``Reason``.

    With several rounds each takes its part of the budget from a ranking of its own: feed it until ``round_full``, then
    call ``next_round`` and feed it the next ranking, without the documents that were ``judged``.

    The budget counts documents or tokens. In tokens, the document that reaches the budget is kept whole, so the sum
    may exceed it by less than one document. A source's quota, rounded up, works in the same unit and the same way.

    Attributes:
        kept: the chosen documents in the order of taking.
        set_aside: the documents passed over, in the order of the rankings.
        judged: the ids of both.
    """

    def __init__(self, settings: Select, index: NgramIndex | None = None) -> None:
        """``index``: the evaluation texts that must not be selected; None checks none."""
        self.kept: list[Kept] = []
        self.set_aside: list[SetAside] = []
        self.judged: set[str] = set()
        self._index = index
        self._rounds, self._round = settings.rounds, 1
        self._unit = settings.budget_unit
        self._budget = settings.budget
        share = 1 if settings.source_quota is None else Fraction(str(settings.source_quota))
        self._quota = math.ceil(share * settings.budget)
        self._duplicates = NearDuplicates(settings.near_duplicate) if settings.near_duplicate is not None else None
        self._spent = 0
        self._spent_by: Counter[str] = Counter()
        self._last = (-math.inf, "")

    @property
    def full(self) -> bool:
        """Whether the budget is spent."""
        return self._spent >= self._budget

    @property
    def spent(self) -> float:
        """The share of the budget that is spent; above 1 by a document at the most."""
        return self._spent / self._budget

    @property
    def wanted(self) -> int:
        """What this round has left to take, in the budget's unit."""
        return -(-self._budget * self._round // self._rounds) - self._spent

    @property
    def round_full(self) -> bool:
        """Whether this round's part of the budget is spent."""
        return self.wanted <= 0

    @property
    def round(self) -> int:
        """The round that is being taken, from 1."""
        return self._round

    def next_round(self) -> bool:
        """Go to the next round that has something to take; False when the last one is over."""
        while self._round < self._rounds:
            self._round += 1
            self._last = (-math.inf, "")
            if not self.round_full:
                return True
        return False

    def feed(self, batch: Sequence[Candidate]) -> list[Kept]:
        """Judge the next candidates of the ranking, by (score, doc_id); returns those newly kept.

        Candidates behind the one that fills the round's part are not judged: they are neither kept nor set aside.
        """
        before = len(self.kept)
        for start in range(0, len(batch), _BLOCK):
            block = batch[start : start + _BLOCK]
            if self.round_full:
                break
            if self._duplicates:
                self._duplicates.screen(np.stack([candidate.vector for candidate in block]))
            for i, candidate in enumerate(block):
                if self.round_full:
                    break
                self._judge(i, candidate)
        return self.kept[before:]

    def _judge(self, i: int, candidate: Candidate) -> None:
        place = (candidate.score, candidate.doc_id)
        assert self._last < place, f"not in rank order: {place} after {self._last}"
        assert candidate.doc_id not in self.judged, f"offered again: {candidate.doc_id}"
        self._last = place
        self.judged.add(candidate.doc_id)
        objection = self._objection(i, candidate)
        if objection:
            self.set_aside.append(objection)
            return
        if self._duplicates:
            self._duplicates.keep(i, candidate.doc_id)
        cost = candidate.tokens if self._unit == "tokens" else 1
        self._spent += cost
        self._spent_by[candidate.source] += cost
        rank = len(self.kept) + 1
        self.kept.append(Kept(rank, self._round, candidate.doc_id, candidate.score, candidate.source, candidate.tokens))

    def _objection(self, i: int, candidate: Candidate) -> SetAside | None:
        who = candidate.doc_id, candidate.score, candidate.source
        if candidate.text is None:
            return SetAside(*who, "text_changed")
        if self._index and (found := self._index.match(candidate.text)):
            return SetAside(*who, "contaminated", other=found.eval_id, span=found.span)
        if self._spent_by[candidate.source] >= self._quota:
            return SetAside(*who, "source_quota")
        if self._duplicates and (twin := self._duplicates.twin(i)):
            return SetAside(*who, "near_duplicate", other=twin.doc_id, cosine=twin.cosine)
        return None
