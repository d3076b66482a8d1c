"""Each target in turn takes its nearest document that none has taken yet.

So chooses RDS+ (Ivison et al. 2025, arXiv 2503.01807), the strongest of the rankings by similarity that they compare. A
target far from the corpus has as many turns as one in the midst of it, which ``nearest`` never hears of.

The turns are taken on the driver, from a list for each target of its nearest documents: O(targets * DEPTH) ids. Where a
target has taken or lost all of its list, the shards are asked for more, so the order is that of the whole corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gotd_ray.choosing.scorers import nearest_scores, unit
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.potentials import Scorer
from gotd_ray.ot.shard import Segment

DEPTH = 32
"""Documents in a target's list, or twice the turns that it has, if that is more."""

BLOCK = 1024
"""Targets per product."""


@dataclass(frozen=True)
class Near:
    """The documents nearest to each of m targets, by (score, id)."""

    scores: np.ndarray
    """(m, k) float32, minus the cosine, ascending."""

    ids: np.ndarray
    """(m, k) S32."""


@dataclass(frozen=True)
class NearestUnseen:
    """A question to all candidates: which ``depth`` documents are the nearest to each target, without those taken."""

    target: np.ndarray
    """(m, d) float32."""

    depth: int
    taken: np.ndarray
    """(t,) S32 ascending."""

    def of(self, segment: Segment) -> Near:
        """The answer of one segment."""
        place = np.searchsorted(self.taken, segment.ids)
        new = np.append(self.taken, b"")[place] != segment.ids
        ids, found = segment.ids[new], []
        # In double precision and rounded: a document has the same score in whatever part it comes, see nearest_scores.
        x = unit(segment.vectors[new]).astype(np.float64).T
        for start in range(0, len(self.target), BLOCK):
            scores = -(unit(self.target[start : start + BLOCK]).astype(np.float64) @ x).astype(np.float32)
            first = np.argsort(scores, 1, kind="stable")[:, : self.depth]
            found.append(Near(np.take_along_axis(scores, first, 1), ids[first]))
        return Near(np.concatenate([part.scores for part in found]), np.concatenate([part.ids for part in found]))

    def together(self, parts: list[Near]) -> Near:
        """The answer of several parts. They come in the order of their ids, so places stand for these in a tie."""
        scores = np.concatenate([part.scores for part in parts], 1)
        ids = np.concatenate([part.ids for part in parts], 1)
        first = np.argsort(scores, 1, kind="stable")[:, : self.depth]
        return Near(np.take_along_axis(scores, first, 1), np.take_along_axis(ids, first, 1))


@dataclass(frozen=True)
class Turns:
    """What was taken, and by which targets the rest goes."""

    ids: np.ndarray
    """(t,) S32 ascending."""

    turn: np.ndarray
    """(t,), from 0."""

    target: np.ndarray
    """(m, d) float32."""


def _fit(given: Fitting) -> Turns:
    target, wanted = given.target().vectors, given.wanted()
    depth = max(DEPTH, 2 * -(-wanted // len(target)))
    order: list[bytes] = []
    seen: set[bytes] = set()
    lists: list[np.ndarray] = [np.empty(0, "S32")] * len(target)
    whole = [False] * len(target)  # whether a list holds all that was left
    while len(order) < wanted:
        j = len(order) % len(target)
        lists[j] = _unseen(lists[j], seen)
        if not len(lists[j]):
            if whole[j]:
                break  # all candidates are taken
            lists = [_unseen(some, seen, all_of_it=True) for some in lists]
            short = [i for i, some in enumerate(lists) if 2 * len(some) <= depth and not whole[i]]
            near = given.ask(NearestUnseen(target[short], depth, np.sort(np.array(order, "S32"))))
            for i, ids in zip(short, near.ids, strict=True):
                lists[i], whole[i] = ids, len(ids) < depth
            continue
        order.append(bytes(lists[j][0]))
        seen.add(order[-1])
    taken = np.array(order, "S32")
    turn = np.argsort(taken)
    return Turns(taken[turn], turn, target)


def _unseen(ids: np.ndarray, seen: set[bytes], all_of_it: bool = False) -> np.ndarray:
    """A list without what was taken; at its head, or all through it."""
    if all_of_it:
        return ids[[doc_id not in seen for doc_id in ids.tolist()]] if len(ids) else ids
    start = 0
    while start < len(ids) and bytes(ids[start]) in seen:
        start += 1
    return ids[start:]


def _scorer(turns: Turns, _: Part) -> Scorer:
    """The turn, from 0; and behind all turns, for filters may leave more than they are, by nearness."""

    def score(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        place = np.searchsorted(turns.ids, ids)
        known = np.append(turns.ids, b"")[place] == ids
        rest = len(turns.ids) + 1 + nearest_scores(vectors, turns.target).astype(np.float64)
        return np.where(known, np.append(turns.turn, 0)[place], rest)

    return score


METHOD = Method(
    "round_robin",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="by the targets in turn, each its nearest document that none has taken yet",
    means="A score is the turn in which a target takes the document; behind all turns, documents follow by nearness to "
    "the target.",
    facts=lambda turns: {"turns": len(turns.ids)},
)
