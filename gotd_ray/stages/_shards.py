"""Shards of the candidates on Ray actors, or in this process when one suffices. The mathematics is in ``ot``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from gotd_ray import config
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import Embedded, ids_of, weights_of
from gotd_ray.ot.kernel import Side, one_thread_each, rough_is_fast, side, working_precision
from gotd_ray.ot.shard import (
    PLAIN,
    How,
    Segment,
    Shard,
    make_segments,
    segment_bounds,
    segment_count,
    shard_segments,
)
from gotd_ray.ot.weights import thin
from gotd_ray.remote import answer
from gotd_ray.select.topk import TopK, may_cross, top_k
from gotd_ray.stages._points import finite_vectors
from gotd_ray.stages._scoring import Scoring

T = TypeVar("T")

ROWS_PER_SHARD = 4_000_000
"""Candidates that one process holds: 3 GB of float16 vectors of 384 numbers."""

START_SECONDS = 900
"""How long an actor may wait for its CPUs or GPU before the run gives up."""

LOOK_SECONDS = 5
"""How often a waiting pool looks whether nodes are gone."""

DEATHS = 5
"""Deaths of one shard in one request before the run gives up: then it dies of its work."""

Precision = Literal["auto", "float64", "float32", "bfloat16"]


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

    centre: np.ndarray | None = None
    """(d,), about the mean of the candidates, if passes in 8-bit integers are wanted too."""


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

    def bounds(self) -> tuple[bytes, bytes]:
        """The first id of the shard, and one past the last."""
        bounds = segment_bounds(self.count)
        return bytes(bounds[self.segments.start]), bytes(bounds[self.segments.stop])


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
        return holding.embedded.candidates.read(columns, holding.storage, *holding.bounds(), only)

    def _load(self) -> list[Segment]:
        table = self._read(["doc_id", "vector", "weight"])
        vectors = finite_vectors(table, self.holding.embedded.width, "candidates")
        return make_segments(ids_of(table), vectors, self.holding.count, self.holding.segments, weights_of(table))

    def rows(self, stride: int) -> int:
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
            dtype = torch.float64 if problem.precision == "float64" else torch.float32
            y, b, device = torch.tensor(problem.target), torch.tensor(problem.b), self.holding.device
            layout = side(y, b, problem.epsilon, dtype=dtype, device=device, centre=problem.centre)
            self._side = problem.name, layout
        with one_thread_each(), working_precision(problem.precision, self.holding.device):
            return self.shard.columns(self._side[1], g, total, stride, how)

    def draw(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`gotd_ray.ot.shard.Shard.draw`."""
        self._weigh(None)
        return self.shard.draw(k)

    def scores(self, scoring: Scoring) -> list[np.ndarray]:
        """Scores of each segment, kept until another scoring is asked for."""
        if self._scores is None or self._scores[0] != scoring.name:
            score = scoring.scorer(self.holding.device, *self.holding.bounds(), self.holding.storage)
            with one_thread_each(), working_precision("float32", self.holding.device):
                found = self.shard.each(lambda s: np.asarray(score(s.ids, s.vectors), np.float64))
            self._scores = scoring.name, found
        return self._scores[1]

    def top(self, scoring: Scoring, k: int) -> TopK:
        scores = self.scores(scoring)
        return top_k(np.concatenate([s.ids for s in self.shard.segments]), np.concatenate(scores), k)

    def near(self, scoring: Scoring, cut: float, move: float) -> int:
        """See :func:`gotd_ray.select.topk.may_cross`."""
        return sum(may_cross(part, cut, move) for part in self.scores(scoring))

    def left_out(self, scoring: Scoring) -> int:
        """Documents of infinite score."""
        return sum(int(np.isinf(part).sum()) for part in self.scores(scoring))

    def score_table(self, scoring: Scoring) -> pa.Table:
        """doc_id, score; sorted by id."""
        ids = np.concatenate([s.ids for s in self.shard.segments])
        return pa.table({"doc_id": pa.array(ids.astype(str)), "score": np.concatenate(self.scores(scoring))})

    def sources(self) -> pa.Table:
        """source, count: distinct documents of each source; one in several sources counts for the first by name."""
        table = self._read(["doc_id", "source"]).group_by("doc_id").aggregate([("source", "min")])
        return table.group_by("source_min").aggregate([("doc_id", "count")])

    def lookup(self, ids: np.ndarray, number: int = 0) -> pa.Table:
        """All columns of these documents, one row each of those that have so many addresses.

        Args:
            ids: (k,) S32.
            number: which address, from 0, where a text stands in several places.
        """
        table = self._read([*ADDRESS, "vector"], ids.astype(str).tolist())
        table = table.sort_by([(name, "ascending") for name in ("doc_id", "source", "path", "row", "chunk")])
        _, first, count = np.unique(ids_of(table), return_index=True, return_counts=True)
        return table.take(pa.array(first[count > number] + number))


ADDRESS = ["doc_id", "source", "path", "row", "chunk", "chars", "tokens"]


class Pool:
    """All shards, asked together. A dead one is made anew, loads its rows again, and the question is put again."""

    def __init__(self, holdings: list[Holding], resources: Resources):
        self._holdings = holdings
        self._options = _actor_options(holdings, resources)
        self._local = Work(holdings[0]) if len(holdings) == 1 and resources.private else None
        self._actors: list[Any] = [None] * len(holdings)
        self._asked: list[dict[str, Any]] = [{}] * len(holdings)
        self._unheard = set(range(len(holdings)))
        """Shards whose actor has not answered yet, and may still wait for a place."""

        for shard in () if self._local else range(len(holdings)):
            self._make(shard)

    def _make(self, shard: int) -> None:
        if self._actors[shard]:
            ray.kill(self._actors[shard])  # one that is only out of reach, or waits for a place, would keep its request
        self._asked[shard] = self._request()
        self._actors[shard] = ray.remote(Work).options(**self._asked[shard]).remote(self._holdings[shard])
        self._unheard.add(shard)

    def _request(self) -> dict[str, Any]:
        """What a shard asks of Ray now: no CPUs where nodes are gone and the rest cannot hold all shards otherwise.

        The shards that are left then share their CPUs with it: the run is slower, but goes on. A GPU is waited for.
        """
        wanted = self._options.get("num_cpus", 0) * len(self._holdings)
        if wanted <= ray.cluster_resources().get("CPU", 0):
            return self._options
        return self._options | {"num_cpus": 0, "scheduling_strategy": "SPREAD"}

    @property
    def rough(self) -> bool:
        """Whether passes in 8-bit integers pay. Asked of this machine: the shards' answers do not depend on theirs."""
        return self._holdings[0].device == "cpu" and rough_is_fast()

    def share(self, value: T) -> T:
        """A value to be passed to many requests: it travels to each shard once."""
        return value if self._local else ray.put(value)

    def ask(self, method: str, *args: Any) -> list[Any]:
        """The answers of all shards, in their order.

        Raises:
            UserError: the cluster has no room for a shard, a shard dies again and again, or what it raised itself.
            FloatingPointError: what a shard raised.
        """
        if self._local:
            with _has_room(0, method):
                return [getattr(self._local, method)(*args)]
        pending = [getattr(actor, method).remote(*args) for actor in self._actors]
        return [self._answer(i, pending[i], method, args) for i in range(len(pending))]

    def _answer(self, shard: int, pending: Any, method: str, args: tuple[Any, ...]) -> Any:
        deaths, asked = 0, time.monotonic()
        while deaths < DEATHS:
            try:
                with _has_room(shard, method):
                    found = answer(pending, timeout=LOOK_SECONDS)
            except GetTimeoutError:
                if shard not in self._unheard or self._asked[shard] == self._request():
                    self._refuse_to_wait(shard, time.monotonic() - asked)
                    continue
            except (RayActorError, ObjectLostError):  # a node takes with it the answers that were not fetched
                deaths += 1
            else:
                self._unheard.discard(shard)
                return found
            self._make(shard)
            pending = getattr(self._actors[shard], method).remote(*args)
        raise UserError(f"shard {shard} died {DEATHS} times in '{method}', most likely for want of memory. {_SMALLER}")

    def _refuse_to_wait(self, shard: int, seconds: float) -> None:
        """A shard that has answered before has its place, and takes the time that its work takes."""
        if shard in self._unheard and seconds > START_SECONDS:
            raise UserError(
                f"shard {shard} gave no answer in {START_SECONDS} s. Its request is {self._asked[shard]}, the cluster "
                f"has {ray.cluster_resources()}. Lower solve.shards, or add nodes."
            )

    def close(self) -> None:
        for actor in () if self._local else self._actors:
            ray.kill(actor)


_SMALLER = "Raise solve.shards so that each holds less, or use larger nodes."


@contextmanager
def _has_room(shard: int, method: str) -> Iterator[None]:
    """A shard that runs out of memory and lives is told as one that dies of it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # Ray's copy of an error is one of its kind
        no_room = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not no_room:
            raise
        raise UserError(f"shard {shard} ran out of memory in '{method}'. {_SMALLER}") from None


@contextmanager
def shards(embedded: Embedded, run: config.Run, site: Site) -> Iterator[Pool]:
    """A pool over a run's candidates, for the length of a stage."""
    resources, rows = site.resources, embedded.candidates.rows
    count = segment_count(rows)
    default = resources.gpus if site.device == "cuda" else max(1, -(-rows // ROWS_PER_SHARD))
    number = min(run.solve.shards or default, count)
    threads = 1 if site.device == "cuda" else max(1, int(_cpu_share(number, resources)))
    ranges = shard_segments(count, number)
    pool = Pool([Holding(embedded, run.storage, part, count, site.device, threads) for part in ranges], resources)
    try:
        yield pool
    finally:
        pool.close()


def _cpu_share(shards: int, resources: Resources) -> float:
    """CPUs for each shard when they are dealt to the nodes evenly: an actor cannot reach over two nodes."""
    return resources.node_cpus / -(-shards // resources.nodes)


def _actor_options(holdings: list[Holding], resources: Resources) -> dict[str, Any]:
    """No restarts by Ray: a restarted actor would have lost its rows silently, the pool reloads them knowingly."""
    if holdings[0].device == "cuda":
        return {"num_gpus": min(1.0, resources.gpus / len(holdings)), "max_restarts": 0}
    share = _cpu_share(len(holdings), resources)
    return {"num_cpus": int(share) if share >= 1 else round(share * 0.9, 3), "max_restarts": 0}


def landmarks_of(pool: Pool, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Ids (k,), float32 vectors (k, d) and weights (k,) of a sample that stands for all candidates, sorted by id.

    Weights sum to 1; None is equal ones. Without weights it is the documents with the smallest ids.
    """
    ids, vectors, weights = (np.concatenate(part) for part in zip(*pool.ask("draw", count + 1), strict=True))
    kept, masses = thin(ids, weights, count)
    return ids[kept], vectors[kept].astype(np.float32), masses
