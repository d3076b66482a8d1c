"""The choice itself: go down the ranking, set aside what must not be taken, stop when the budget is spent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from gotd_ray.choosing.decontaminate import Contamination
from gotd_ray.choosing.duplicates import NearDuplicates
from gotd_ray.config import Select

Reason = Literal["text_changed", "contaminated", "source_quota", "near_duplicate"]

PART = 4096
"""Documents that are judged at a time where no duplicates are looked for."""


@dataclass(frozen=True, eq=False)
class Offer:
    """Documents of a ranking, best first, as columns of n rows. Their texts are not among them: they were searched
    where they were read.

    Attributes:
        ids: (n,) S32.
        scores: (n,) float64.
        sources: (n,) names.
        tokens: (n,) integers.
        vectors: (n, d) float16 or float32.
        gone: (n,) bool, whether its text could not be read back.
        shared: by row, what a text shares with the evaluation texts.
    """

    ids: np.ndarray
    scores: np.ndarray
    sources: np.ndarray
    tokens: np.ndarray
    vectors: np.ndarray
    gone: np.ndarray
    shared: Mapping[int, Contamination]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Offer:
        """Some of the rows, numbered from 0."""
        stop = min(stop, len(self))
        rows = slice(start, stop)
        shared = {i - start: self.shared[i] for i in range(start, stop) if i in self.shared} if self.shared else {}
        return Offer(
            self.ids[rows],
            self.scores[rows],
            self.sources[rows],
            self.tokens[rows],
            self.vectors[rows],
            self.gone[rows],
            shared,
        )

    def in_order(self) -> bool:
        """Whether the rows ascend by (score, id), each id once."""
        before, after = self.scores[:-1], self.scores[1:]
        return bool(((before < after) | ((before == after) & (self.ids[:-1] < self.ids[1:]))).all())


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
    """Feed it the ranking, best first, in parts of any size, until it is ``full`` or the ranking ends.

    A document is judged by what was kept before it, so the answer does not depend on how the ranking was cut. The
    first reason that holds is the one recorded, in the order of ``Reason``.

    With several rounds each takes its part of the budget from a ranking of its own: feed it until ``round_full``, then
    call ``next_round`` and feed it the next ranking, without the documents that were ``judged``.

    The budget counts documents or tokens. In tokens, the document that reaches the budget is kept whole, so the sum
    may exceed it by less than one document. A source's quota, rounded up, works in the same unit and the same way.

    Attributes:
        documents, tokens: how many are kept.
        kept_of: documents kept of each source.
        last_score: of the document kept last; None while there is none.
        set_aside: the documents passed over, in the order of the rankings.
        round: the round that is being taken, from 1.
    """

    def __init__(self, settings: Select) -> None:
        self.documents = self.tokens = 0
        self.kept_of: Counter[str] = Counter()
        self.last_score: float | None = None
        self.set_aside: list[SetAside] = []
        self.round = 1
        self._rounds = settings.rounds
        self._unit = settings.budget_unit
        self._budget = settings.budget
        share = 1 if settings.source_quota is None else Fraction(str(settings.source_quota))
        self._quota = math.ceil(share * settings.budget)
        self._duplicates = NearDuplicates(settings.near_duplicate) if settings.near_duplicate is not None else None
        self._tokens_of: Counter[str] = Counter()
        self._judged: list[np.ndarray] = []
        self._earlier = self.judged
        self._last = (-math.inf, b"")

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
        return -(-self._budget * self.round // self._rounds) - self._spent

    @property
    def round_full(self) -> bool:
        """Whether this round's part of the budget is spent."""
        return self.wanted <= 0

    @property
    def judged(self) -> np.ndarray:
        """The ids of the documents kept or set aside, (n,) S32 ascending."""
        return np.sort(np.concatenate([np.empty(0, "S32"), *self._judged]))

    @property
    def clusters(self) -> int | None:
        """See :attr:`NearDuplicates.clusters`."""
        return self._duplicates.clusters if self._duplicates else None

    @property
    def _spent(self) -> int:
        return self.tokens if self._unit == "tokens" else self.documents

    @property
    def block(self) -> int:
        """Documents that are screened at a time: no more than may be kept, but for a few."""
        most = self._duplicates.block if self._duplicates else PART
        return most if self._unit == "tokens" else min(most, max(self.wanted, 64))

    def next_round(self) -> bool:
        """Go to the next round that has something to take; False when the last one is over."""
        while self.round < self._rounds:
            self.round += 1
            self._last = (-math.inf, b"")
            if not self.round_full:
                self._earlier = self.judged
                return True
        return False

    def feed(self, offer: Offer) -> np.ndarray:
        """Judge the next documents of the ranking, by (score, id); returns the rows (k,) of those that it keeps.

        Documents behind the one that fills the round's part are not judged: they are neither kept nor set aside.
        """
        if not len(offer) or self.round_full:
            return np.empty(0, np.int64)
        first = float(offer.scores[0]), bytes(offer.ids[0])
        assert self._last < first and offer.in_order(), f"not in rank order: {first} after {self._last}"
        assert not _among(offer.ids, self._earlier).any(), "a document is offered again"
        kept: list[int] = []
        start = 0
        while start < len(offer) and not self.round_full:
            block = offer.part(start, start + self.block)
            if self._duplicates:
                self._duplicates.screen(block.vectors)
            rows = zip(block.ids.tolist(), block.scores.tolist(), block.sources, block.tokens.tolist(), strict=True)
            judged = 0
            for i, (doc_id, score, source, tokens) in enumerate(rows):
                if self.round_full:
                    break
                judged, self._last = i + 1, (score, doc_id)
                if objection := self._objection(i, block, source):
                    self.set_aside.append(SetAside(doc_id.decode(), score, source, **objection))
                    continue
                if self._duplicates:
                    self._duplicates.keep(i, doc_id)
                self.documents, self.tokens, self.last_score = self.documents + 1, self.tokens + tokens, score
                self.kept_of[source] += 1
                self._tokens_of[source] += tokens
                kept.append(start + i)
            self._judged.append(block.ids[:judged])
            start += judged
        return np.array(kept, np.int64)

    def _objection(self, i: int, block: Offer, source: str) -> dict[str, Any] | None:
        """Why row ``i`` is not kept, by the fields of :class:`SetAside`."""
        if block.gone[i]:
            return {"reason": "text_changed"}
        if found := block.shared.get(i):
            return {"reason": "contaminated", "other": found.eval_id, "span": found.span}
        if (self._tokens_of if self._unit == "tokens" else self.kept_of)[source] >= self._quota:
            return {"reason": "source_quota"}
        if self._duplicates and (twin := self._duplicates.twin(i)):
            return {"reason": "near_duplicate", "other": twin.doc_id, "cosine": twin.cosine}
        return None


def _among(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of ``ids`` (n,) are among ``known``, ascending."""
    if not len(known):
        return np.zeros(len(ids), bool)
    return known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
