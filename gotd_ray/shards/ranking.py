"""The ranking of all candidates, best first, and what the shards and the index know of its documents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gotd_ray import config
from gotd_ray.choosing.choose import Chooser, Offer
from gotd_ray.choosing.topk import TopK, merge
from gotd_ray.shards.pool import Pool, landmarks_of
from gotd_ray.shards.read_back import Texts

SLACK = 2048
"""Documents that a round judges beyond what it takes, so that few rankings are looked at twice; besides an eighth."""

STRETCH = 1 << 20
"""Documents of a stretch at the most: it bounds the vectors that wait on the driver."""


@dataclass(frozen=True)
class Stretch:
    """Some documents of the ranking, best first.

    Attributes:
        ids: (k,) S32.
        scores: (k,) float64.
        address: k rows, see ``address_of``.
        vectors: (k, d) float16.
    """

    ids: np.ndarray
    scores: np.ndarray
    address: pa.Table
    vectors: np.ndarray

    def offer(self, texts: Texts) -> Offer:
        """For the chooser, with what was found where the texts were read."""
        sources = texts.address["source"].combine_chunks()
        names = np.array([*sources.dictionary.to_pylist(), None])[sources.indices.to_numpy()]
        tokens = texts.address["tokens"].to_numpy()
        return Offer(self.ids, self.scores, names, tokens, self.vectors, texts.gone, texts.shared)


def ranking(pool: Pool, scoring: Any, chooser: Chooser, available: int, settings: config.Select) -> Iterator[Stretch]:
    """The ranking by (score, id), a stretch at a time, for one round.

    The first stretch is what the round wants and some more, so that nearly always it is the only one; each further one
    goes by how much the round has taken of those that it was offered. Documents that the chooser has judged in earlier
    rounds are left out, and those of infinite score.

    Args:
        scoring: shared with the pool.
        available: candidates.
    """
    judged, budget = chooser.judged, chooser.wanted
    wanted = budget if settings.budget_unit == "documents" else _documents_of(budget, pool, scoring, judged)
    more = len(judged) + _with_slack(wanted)
    done = offered = 0
    while done < available:
        top = best(pool, scoring, min(done + min(more, STRETCH), available))
        new = np.isfinite(top.scores[done:]) & ~np.isin(top.ids[done:], judged)
        if new.any():
            ids, scores = top.ids[done:][new], top.scores[done:][new]
            yield Stretch(ids, scores, address_of(pool, ids), vectors_of(pool, ids))
        if np.isinf(top.scores[-1:]).any():
            return
        done, offered = len(top), offered + int(new.sum())
        taken = (budget - chooser.wanted) / max(offered, 1)  # of the budget, by a document that was offered
        more = min(math.ceil(1.125 * chooser.wanted / taken) + 64 if taken else done, done)


def _with_slack(wanted: int) -> int:
    return wanted + max(min(SLACK, wanted + 64), wanted // 8)


def looked_at(pool: Pool, settings: config.Select) -> int:
    """Documents that a whole budget is likely to look at."""
    return min(_with_slack(documents_in(pool, settings)), sum(pool.ask("rows", 1)))


def documents_in(pool: Pool, settings: config.Select) -> int:
    """Documents in a budget. One in tokens has as many as have the mean length of a random sample: that of the
    smallest ids, or by weight."""
    wanted = settings.budget
    if settings.budget_unit == "tokens":
        ids, _, _ = landmarks_of(pool, SLACK)
        wanted = math.ceil(wanted / float(address_of(pool, ids)["tokens"].to_numpy().mean()))
    return min(wanted, sum(pool.ask("rows", 1)))


def _documents_of(tokens: int, pool: Pool, scoring: Any, judged: np.ndarray) -> int:
    """About how many documents have so many tokens, if they are as long as the first of the ranking."""
    ids = best(pool, scoring, len(judged) + SLACK).ids
    ids = ids[~np.isin(ids, judged)][:SLACK]
    found = int(address_of(pool, ids)["tokens"].to_numpy().sum()) if len(ids) else 0
    return math.ceil(tokens * len(ids) / max(1, found))


def best(pool: Pool, scoring: Any, k: int) -> TopK:
    """The first ``k`` of the ranking, or all.

    Ids are hashes, so a shard has about its share of the first: it is asked for a little more than that, and for the
    rest only where all of that is among the first.
    """
    share = k // pool.size
    share = min(k, share + 6 * math.isqrt(share) + 64)
    while True:
        parts = pool.ask("top", scoring, share)
        top = merge(parts, k)
        last = (top.scores[-1], top.ids[-1]) if len(top) else (-math.inf, b"")
        if share == k or all(len(part) < share or (part.scores[-1], part.ids[-1]) > last for part in parts):
            return top
        share = min(k, 2 * share)


def sources_of(pool: Pool) -> dict[str, int]:
    """Distinct documents of each source, by name."""
    counts: Counter[str] = Counter()
    for table in pool.ask("sources"):
        counts.update(dict(zip(table["source_min"].to_pylist(), table["doc_id_count"].to_pylist(), strict=True)))
    return dict(sorted(counts.items()))


def address_of(pool: Pool, ids: np.ndarray) -> pa.Table:
    """The first address of each document (k rows): source, path, row, chunk, chars, tokens; names in dictionaries."""
    order = np.argsort(ids)
    parts = [part.drop_columns(["doc_id"]) for part in pool.each("addresses", ids[order])]
    table = pa.concat_tables(parts).unify_dictionaries()
    assert len(table) == len(ids), f"the index has {len(table):,} of {len(ids):,} documents"
    return table.take(pa.array(np.argsort(order))).combine_chunks()


def vectors_of(pool: Pool, ids: np.ndarray) -> np.ndarray:
    """(k, d) float16: the shards hold them, so that nothing is read."""
    order = np.argsort(ids)
    vectors = np.empty((len(ids), pool.width), np.float16)
    done = 0
    for part in pool.each("vectors", ids[order]):  # shards are ranges of ids, in their order
        vectors[order[done : done + len(part)]] = part
        done += len(part)
    assert done == len(ids), f"the shards have {done:,} of {len(ids):,} documents"
    return vectors
