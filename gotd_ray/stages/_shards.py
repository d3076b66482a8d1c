"""Shards of the candidates on Ray actors, or in this process when one suffices. The mathematics is in ``ot``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError
from threadpoolctl import threadpool_limits

from gotd_ray import config
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import Embedded, ids_of, vectors_of
from gotd_ray.ot.kernel import Side, fast_matmul_is_exact, matmul_precision, side
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.shard import Segment, Shard, make_segments, segment_bounds, segment_count, shard_segments
from gotd_ray.select.scorers import nearest_scores, random_scores
from gotd_ray.select.topk import TopK, top_k

T = TypeVar("T")

ROWS_PER_SHARD = 4_000_000
"""Candidates that one process holds: 3 GB of float16 vectors of 384 numbers."""

START_SECONDS = 900
"""How long an actor may wait for its CPUs or GPU before the run gives up."""

DEATHS = 5
"""Deaths of one shard in one request before the run gives up: then it dies of its work."""

Precision = Literal["auto", "float64", "float32", "bfloat16"]


@dataclass(frozen=True)
class Problem:
    """One transport problem, as every shard needs it."""

    name: str
    """Tells problems apart: shards keep the layout of the last one."""

    target: np.ndarray
    b: np.ndarray
    epsilon: float
    precision: Precision


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored: by potentials, by the nearest target, or at random."""

    name: str
    """Tells scorings apart: shards keep the scores of the last one."""

    method: Literal["gotd", "nearest", "random"]
    seed: int
    target: np.ndarray
    potentials: Potentials | None

    def scorer(self, device: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """(ids, vectors) -> scores, lower is better."""
        if self.method == "gotd":
            assert self.potentials is not None
            double = self.potentials.facts.get("precision") == "float64"
            return self.potentials.scorer("float64" if double else "float32", device)
        if self.method == "nearest":
            return lambda _ids, vectors: nearest_scores(vectors, self.target)
        return lambda ids, _vectors: random_scores(ids, self.seed)


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


class Work:
    """The shard of one process: loads its rows of the index, and answers."""

    def __init__(self, holding: Holding):
        self.holding = holding
        self.shard = Shard(self._load(), holding.device, holding.threads)
        self._side: tuple[str, Side] | None = None
        self._scores: tuple[str, list[np.ndarray]] | None = None

    def _read(self, columns: list[str], only: list[str] | None = None) -> pa.Table:
        holding = self.holding
        bounds = segment_bounds(holding.count)
        low, high = bounds[holding.segments.start], bounds[holding.segments.stop]
        return holding.embedded.candidates.read(columns, holding.storage, bytes(low), bytes(high), only)

    def _load(self) -> list[Segment]:
        table = self._read(["doc_id", "vector"])
        vectors = vectors_of(table).reshape(-1, self.holding.embedded.width)
        return make_segments(ids_of(table), vectors, self.holding.count, self.holding.segments)

    def rows(self, stride: int) -> int:
        return self.shard.rows(stride)

    def moments(self, total_rows: int) -> np.ndarray:
        return self.shard.moments(total_rows)

    def columns(self, problem: Problem, g: np.ndarray, total_rows: int, stride: int) -> np.ndarray:
        """See :meth:`gotd_ray.ot.shard.Shard.columns`."""
        if self._side is None or self._side[0] != problem.name:
            dtype = torch.float64 if problem.precision == "float64" else torch.float32
            y, b = torch.tensor(problem.target), torch.tensor(problem.b)
            self._side = problem.name, side(y, b, problem.epsilon, dtype=dtype, device=self.holding.device)
        with one_thread_each(), self._matmul(problem.precision):
            return self.shard.columns(self._side[1], g, total_rows, stride)

    def _matmul(self, precision: Precision) -> Any:
        fast = precision == "bfloat16" or (self.holding.device == "cpu" and fast_matmul_is_exact())
        return matmul_precision("medium" if fast else "highest")

    def smallest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids (<=k,) and vectors of the k smallest ids: a uniform sample, since ids are hashes."""
        ids, vectors, found = [], [], 0
        for segment in self.shard.segments:
            ids.append(segment.ids[: k - found])
            vectors.append(segment.vectors[: k - found])
            found += len(ids[-1])
            if found == k:
                break
        return np.concatenate(ids), np.concatenate(vectors)

    def scores(self, scoring: Scoring) -> list[np.ndarray]:
        """Scores of each segment, kept until another scoring is asked for."""
        if self._scores is None or self._scores[0] != scoring.name:
            score = scoring.scorer(self.holding.device)
            with one_thread_each(), self._matmul("float32"):
                found = self.shard.each(lambda s: np.asarray(score(s.ids, s.vectors), np.float64))
            self._scores = scoring.name, found
        return self._scores[1]

    def top(self, scoring: Scoring, k: int) -> TopK:
        scores = self.scores(scoring)
        return top_k(np.concatenate([s.ids for s in self.shard.segments]), np.concatenate(scores), k)

    def near(self, scoring: Scoring, cut: float, width: float) -> int:
        """Documents whose score is so close to the cut that an error of ``width`` could take them across."""
        return sum(int((np.abs(part - cut) <= width).sum()) for part in self.scores(scoring))

    def score_table(self, scoring: Scoring) -> pa.Table:
        """doc_id, score; sorted by id."""
        ids = np.concatenate([s.ids for s in self.shard.segments])
        return pa.table({"doc_id": pa.array(ids.astype(str)), "score": np.concatenate(self.scores(scoring))})

    def sources(self) -> pa.Table:
        """source, count: distinct documents of each source; one in several sources counts for the first by name."""
        table = self._read(["doc_id", "source"]).group_by("doc_id").aggregate([("source", "min")])
        return table.group_by("source_min").aggregate([("doc_id", "count")])

    def lookup(self, ids: np.ndarray) -> pa.Table:
        """All columns of these documents, one row each: the address that comes first where there are several."""
        table = self._read([*ADDRESS, "vector"], ids.astype(str).tolist())
        table = table.sort_by([(name, "ascending") for name in ("doc_id", "source", "path", "row", "chunk")])
        _, first = np.unique(ids_of(table), return_index=True)
        return table.take(pa.array(first))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Every operation of torch and of BLAS on one thread; the old numbers come back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


ADDRESS = ["doc_id", "source", "path", "row", "chunk", "chars", "tokens"]


class Pool:
    """All shards, asked together. A dead one is made anew, loads its rows again, and the question is put again."""

    def __init__(self, holdings: list[Holding], resources: Resources):
        self._holdings = holdings
        self._options = _actor_options(holdings, resources)
        self._local = Work(holdings[0]) if len(holdings) == 1 and resources.private else None
        self._actors = [] if self._local else [self._actor(i) for i in range(len(holdings))]

    def _actor(self, shard: int) -> Any:
        return ray.remote(Work).options(**self._options).remote(self._holdings[shard])

    def share(self, value: T) -> T:
        """A value to be passed to many requests: it travels to each shard once."""
        return value if self._local else ray.put(value)

    def ask(self, method: str, *args: Any) -> list[Any]:
        """The answers of all shards, in their order.

        Raises:
            UserError: the cluster has no room for a shard, or a shard dies again and again.
        """
        if self._local:
            return [getattr(self._local, method)(*args)]
        pending = [getattr(actor, method).remote(*args) for actor in self._actors]
        return [self._answer(i, pending[i], method, args) for i in range(len(pending))]

    def _answer(self, shard: int, pending: Any, method: str, args: tuple[Any, ...]) -> Any:
        for _ in range(DEATHS):
            try:
                return ray.get(pending, timeout=START_SECONDS)
            except RayActorError:
                self._actors[shard] = self._actor(shard)
                pending = getattr(self._actors[shard], method).remote(*args)
            except GetTimeoutError:
                raise UserError(
                    f"shard {shard} gave no answer in {START_SECONDS} s. Its request is {self._options}, the cluster "
                    f"has {ray.cluster_resources()}. Lower solve.shards, or add nodes."
                ) from None
        raise UserError(
            f"shard {shard} died {DEATHS} times in '{method}', most likely for want of memory. Raise solve.shards so "
            "that each holds less, or use larger nodes."
        )

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


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


def target_points(embedded: Embedded, storage: config.Storage) -> np.ndarray:
    """(m, d) float32 vectors of the distinct target documents, by id.

    Raises:
        UserError: there is none.
    """
    table = embedded.target.read(["doc_id", "vector"], storage)
    ids, first = np.unique(ids_of(table), return_index=True)
    if not len(ids):
        raise UserError(
            "the target has no document: every row was empty, too short (chunks.min_chars) or left out. "
            "Check target.paths and target.text_column."
        )
    return vectors_of(table).reshape(-1, embedded.width)[first].astype(np.float32)
