"""What a shard of the candidates answers. The mathematics is in ``ot``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gotd_ray import config, methods
from gotd_ray.choosing.topk import TopK, may_cross, top_k
from gotd_ray.errors import UserError
from gotd_ray.filesystems import join
from gotd_ray.index import Embedded, ids_of
from gotd_ray.methods import Part, Question
from gotd_ray.ot.kernel import Precision, Side, dtype_of, one_thread_each, side, working_precision
from gotd_ray.ot.shard import PLAIN, How, Segment, Shard, make_segments, segment_bounds
from gotd_ray.points import check_finite
from gotd_ray.storage import create


@dataclass(frozen=True)
class Mixture:
    """The candidates mixed with some of them: (1 - share) candidates + share documents, see ``Shard.reweigh``."""

    ids: np.ndarray
    share: float
    total: float
    """Mass of the candidates' own weights."""


@dataclass(frozen=True)
class Problem:
    """One transport problem, as every shard needs it."""

    name: str
    """Tells problems apart: shards keep the layout of the last one."""

    target: np.ndarray
    b: np.ndarray
    epsilon: float
    precision: Precision
    mixture: Mixture | None = None
    """None: the candidates with their own weights."""


@dataclass(frozen=True)
class Holding:
    """What one shard holds."""

    embedded: Embedded
    storage: config.Storage
    segments: range
    count: int
    """Segments of the whole corpus."""

    device: str
    threads: int
    shard: int = 0
    """Its number, from 0."""

    def bounds(self) -> tuple[bytes, bytes]:
        """The first id of the shard, and one past the last."""
        bounds = segment_bounds(self.count)
        return bytes(bounds[self.segments.start]), bytes(bounds[self.segments.stop])


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored, as every shard needs it."""

    name: str
    """Tells scorings apart: shards keep the scores of the last one."""

    method: str
    state: Any
    """What the method was fitted to."""


class Work:
    """The shard of one process: loads its rows of the index, and answers."""

    def __init__(self, holding: Holding):
        self.holding = holding
        self._side: tuple[str, Side] | None = None
        self._scores: tuple[str, list[np.ndarray]] | None = None
        self._mixed: str | None = None

    @cached_property
    def shard(self) -> Shard:
        """Loaded with the first question: what is wrong with the rows is an answer, and no death of the process."""
        return Shard(self._load(), self.holding.device, self.holding.threads)

    def _read(self, columns: list[str], only: list[str] | None = None) -> pa.Table:
        holding = self.holding
        return holding.embedded.candidates.read(columns, *holding.bounds(), only)

    def _load(self) -> list[Segment]:
        holding = self.holding
        found = holding.embedded.candidates.documents(holding.embedded.width, *holding.bounds())
        check_finite(found.ids, found.vectors, "candidates")
        return make_segments(found.ids, found.vectors, holding.count, holding.segments, found.weights)

    def rows(self, stride: int) -> int:
        """See :meth:`gotd_ray.ot.shard.Shard.rows`; so are ``support``, ``mass`` and ``moments``."""
        return self.shard.rows(stride)

    def support(self, stride: int, problem: Problem | None = None) -> int:
        self._weigh(problem)
        return self.shard.support(stride)

    def mass(self, stride: int, problem: Problem | None = None) -> int:
        self._weigh(problem)
        return self.shard.mass(stride)

    def _weigh(self, problem: Problem | None) -> None:
        """Take up the problem's weights. They come with each request: a shard made anew does not know the last ones."""
        mixture = problem.mixture if problem else None
        name = problem.name if problem and mixture else None
        if name != self._mixed:
            if mixture:
                self.shard.reweigh(mixture.ids, mixture.share, mixture.total)
            else:
                self.shard.reset()
            self._mixed = name

    def moments(self, total: float) -> np.ndarray:
        self._weigh(None)
        return self.shard.moments(total)

    def columns(self, problem: Problem, g: np.ndarray, total: float, stride: int, how: How = PLAIN) -> np.ndarray:
        """See :meth:`gotd_ray.ot.shard.Shard.columns`."""
        self._weigh(problem)
        if self._side is None or self._side[0] != problem.name:
            y, b, device = torch.tensor(problem.target), torch.tensor(problem.b), self.holding.device
            self._side = problem.name, side(y, b, problem.epsilon, dtype=dtype_of(problem.precision), device=device)
        with one_thread_each(), working_precision(problem.precision, self.holding.device):
            return self.shard.columns(self._side[1], g, total, stride, how)

    def draw(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`gotd_ray.ot.shard.Shard.draw`."""
        self._weigh(None)
        return self.shard.draw(k)

    def scores(self, scoring: Scoring) -> list[np.ndarray]:
        """Scores of each segment, kept until another scoring is asked for."""
        if self._scores is None or self._scores[0] != scoring.name:
            part = Part(*self.holding.bounds(), self.holding.device, self.holding.storage)
            score = methods.find(scoring.method).scorer(scoring.state, part)
            with one_thread_each(), working_precision("float32", self.holding.device):
                found = self.shard.each(lambda s: np.asarray(score(s.ids, s.vectors), np.float64))
            _check_scores(scoring.method, found, self.shard.segments)
            self._scores = scoring.name, found
        return self._scores[1]

    def top(self, scoring: Scoring, k: int) -> TopK:
        scores = self.scores(scoring)
        return top_k(np.concatenate([s.ids for s in self.shard.segments]), np.concatenate(scores), k)

    def within(self, scoring: Scoring, cut: float) -> np.ndarray:
        """The ids of scores up to a cut, (k,) S32 ascending."""
        scored = zip(self.shard.segments, self.scores(scoring), strict=True)
        return np.concatenate([np.empty(0, "S32"), *(segment.ids[found <= cut] for segment, found in scored)])

    def scores_of(self, scoring: Scoring, ids: np.ndarray) -> np.ndarray:
        """The scores (r,) of those of ``ids``, (k,) S32 ascending, that are the shard's, in their order."""
        scores = self.scores(scoring)
        return np.concatenate([np.empty(0), *(scores[number][rows] for number, rows in self._places(ids))])

    def near(self, scoring: Scoring, cut: float, move: float) -> int:
        """See :func:`gotd_ray.choosing.topk.may_cross`."""
        return sum(may_cross(part, cut, move) for part in self.scores(scoring))

    def left_out(self, scoring: Scoring) -> int:
        """Documents of infinite score."""
        return sum(int(np.isinf(part).sum()) for part in self.scores(scoring))

    def fold(self, question: Question) -> Any:
        """The shard's answer to a method's question."""
        with one_thread_each():
            return self.shard.fold(question.of, question.together)

    def export(self, scoring: Scoring, folder: str) -> int:
        """Write the scores to a file of the shard's own in a folder; returns how many they are."""
        table = self.score_table(scoring)
        storage = self.holding.storage
        with create(join(folder, f"part-{self.holding.shard:05d}.parquet"), storage) as file:
            pq.write_table(table, file, compression="zstd")
        return len(table)

    def score_table(self, scoring: Scoring) -> pa.Table:
        """doc_id, score; sorted by id."""
        ids = np.concatenate([s.ids for s in self.shard.segments])
        return pa.table({"doc_id": pa.array(ids.astype(str)), "score": np.concatenate(self.scores(scoring))})

    def sources(self) -> pa.Table:
        """source, count: distinct documents of each source; one in several sources counts for the first by name."""
        table = self._read(["doc_id", "source"]).group_by("doc_id").aggregate([("source", "min")])
        return table.group_by("source_min").aggregate([("doc_id", "count")])

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """The vectors (r, d) of those of ``ids``, (k,) S32 ascending, that are the shard's, in their order."""
        none, segments = np.empty((0, self.holding.embedded.width), np.float16), self.shard.segments
        return np.concatenate([none, *(segments[number].vectors[rows] for number, rows in self._places(ids))])

    def _places(self, ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Of each segment its number here, and the rows of those of ``ids`` that are in it."""
        held = self.holding.segments
        cuts = np.searchsorted(ids, segment_bounds(self.holding.count)[held.start : held.stop + 1])
        for number, (segment, low, high) in enumerate(zip(self.shard.segments, cuts[:-1], cuts[1:], strict=True)):
            places = np.searchsorted(segment.ids, ids[low:high])
            assert (segment.ids[places] == ids[low:high]).all(), "a document is asked for that is not here"
            yield number, places

    def addresses(self, ids: np.ndarray, number: int = 0) -> pa.Table:
        """Where those of ``ids`` stand that are the shard's and have so many addresses, a row each, sorted by id.

        Args:
            ids: (k,) S32 ascending.
            number: which address, from 0, where a text stands in several places.
        """
        low, high = np.searchsorted(ids, np.array(self.holding.bounds(), "S32"))
        table = self._read(ADDRESS, ids[low:high].astype(str).tolist())
        table = table.sort_by([(name, "ascending") for name in ("doc_id", "source", "path", "row", "chunk")])
        _, first, count = np.unique(ids_of(table), return_index=True, return_counts=True)
        table = table.take(pa.array(first[count > number] + number))
        for name in NAMES:
            table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
        return table


def _check_scores(method: str, found: list[np.ndarray], segments: list[Segment]) -> None:
    """Refuse what is no ranking; a method of somebody else's may give anything."""
    for scores, segment in zip(found, segments, strict=True):
        if scores.shape != segment.ids.shape:
            raise UserError(
                f"select.method {method} gave scores of shape {scores.shape} to {len(segment.ids):,} documents, and "
                "not one to each. Correct the method."
            )
        if np.isnan(scores).any():
            first = segment.ids[np.isnan(scores)][0].decode()
            raise UserError(
                f"select.method {method} gave scores that are not numbers, such as that of {first}: they have no rank. "
                "Correct the method, or take another."
            )


ADDRESS = ["doc_id", "source", "path", "row", "chunk", "chars", "tokens"]
NAMES = ["source", "path"]
"""Columns of an address that many rows share."""
