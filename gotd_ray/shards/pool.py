"""Shards of the candidates on Ray actors, or in this process when one suffices."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from gotd_ray import config
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import Embedded
from gotd_ray.methods import Question
from gotd_ray.ot.shard import segment_count, shard_segments
from gotd_ray.ot.weights import thin
from gotd_ray.remote import answer
from gotd_ray.shards.work import Holding, Work

T = TypeVar("T")

ROWS_PER_SHARD = 4_000_000
"""Candidates that one process holds: 3 GB of float16 vectors of 384 numbers."""

START_SECONDS = 900
"""How long an actor may wait for its CPUs or GPU before the run gives up."""

LOOK_SECONDS = 5
"""How often a waiting pool looks whether nodes are gone."""

DEATHS = 5
"""Deaths of one shard in one request before the run gives up: then it dies of its work."""


class Pool:
    """All shards, asked together. A dead one is made anew, loads its rows again, and the question is put again."""

    def __init__(self, holdings: list[Holding], resources: Resources):
        self._holdings = holdings
        self.segments = holdings[0].count  # of the whole corpus
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
    def size(self) -> int:
        """How many shards there are."""
        return len(self._holdings)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self._holdings[0].embedded.width

    @property
    def holds_cpus(self) -> bool:
        """Whether shards hold CPUs of the cluster, also while they are asked nothing."""
        return self._local is None and "num_cpus" in self._options

    def share(self, value: T) -> T:
        """A value to be passed to many requests: it travels to each shard once."""
        return value if self._local else ray.put(value)

    def ask(self, method: str, *args: Any) -> list[Any]:
        """The answers of all shards, in their order.

        Raises:
            UserError: the cluster has no room for a shard, a shard dies again and again, or what it raised itself.
            FloatingPointError: what a shard raised.
        """
        return list(self.each(method, *args))

    def each(self, method: str, *args: Any) -> Iterator[Any]:
        """As ``ask``, one answer after the other: each can be let go before the next is fetched."""
        if self._local:
            with _has_room(0, method):
                found = getattr(self._local, method)(*args)
            yield found
            return
        pending = deque(getattr(actor, method).remote(*args) for actor in self._actors)
        for shard in range(len(pending)):
            yield self._answer(shard, pending.popleft(), method, args)

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
def shards(embedded: Embedded, wanted: int | None, storage: config.Storage, site: Site) -> Iterator[Pool]:
    """A pool over a run's candidates, for the length of a stage.

    Args:
        wanted: shards; None: one per GPU, or one per ``ROWS_PER_SHARD`` candidates.
    """
    resources, rows = site.resources, embedded.candidates.rows
    count = segment_count(rows)
    default = resources.gpus if site.device == "cuda" else max(1, -(-rows // ROWS_PER_SHARD))
    number = min(wanted or default, count)
    threads = 1 if site.device == "cuda" else max(1, int(_cpu_share(number, resources)))
    ranges = shard_segments(count, number)
    pool = Pool(
        [Holding(embedded, storage, part, count, site.device, threads, shard) for shard, part in enumerate(ranges)],
        resources,
    )
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


def ask(pool: Pool, question: Question) -> Any:
    """The answer of all candidates to a method's question, put together one shard after the other."""
    return reduce(lambda *parts: question.together(list(parts)), pool.each("fold", pool.share(question)))


def landmarks_of(pool: Pool, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Ids (k,), float32 vectors (k, d) and weights (k,) of a sample that stands for all candidates, sorted by id.

    Weights sum to 1; None is equal ones. Without weights it is the documents with the smallest ids.
    """
    ids, vectors, weights = (np.concatenate(part) for part in zip(*pool.ask("draw", count + 1), strict=True))
    kept, masses = thin(ids, weights, count)
    return ids[kept], vectors[kept].astype(np.float32), masses
