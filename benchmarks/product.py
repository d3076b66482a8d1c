"""The stages after embed on given vectors, in this process and without Ray: what the benchmarks of selection measure.

The vectors are written to an index, and from there on all is the package's own: the solve stage, the scores of its
shards, the rounds and the choice. Left out is what select does with texts: it reads them back and looks for evaluation
texts in them.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from gotd_ray import config, methods
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.choosing.choose import Chooser, Offer
from gotd_ray.cluster import Resources, Site
from gotd_ray.index import ROWS, Embedded, Entry, Index, Part, Snapshot
from gotd_ray.methods import Fitting
from gotd_ray.ot.potentials import Potentials
from gotd_ray.points import Points
from gotd_ray.progress import Progress
from gotd_ray.results import POTENTIALS
from gotd_ray.shards.pool import Pool, ask, landmarks_of, shards
from gotd_ray.shards.ranking import looked_at
from gotd_ray.shards.rounds import Chosen, Rounds
from gotd_ray.shards.work import Scoring
from gotd_ray.stages.solve import Fit, solve
from gotd_ray.storage import StoredFile
from gotd_ray.text.tally import Tally

_CPUS = os.cpu_count() or 1
SITE = Site(Resources(_CPUS, 0, 1, _CPUS, private=True), "cpu", Progress(Console(quiet=True)))
BLOCK = 4096
"""Candidates that are judged at a time."""


class Library:
    """Candidates and a target as the stages see them once they are embedded."""

    def __init__(self, folder: Path, ids: np.ndarray, x: np.ndarray, target_ids: np.ndarray, y: np.ndarray):
        """Args:
        folder: of the index and what the stages leave; new for each library.
        ids: (n,) S32, distinct and ascending; x: (n, d) float16.
        target_ids: (m,) S32, distinct; y: (m, d) float16.
        """
        assert bool((ids[:-1] < ids[1:]).all()), "ids are not ascending"
        self.ids, self.x = ids, x
        self._folder = folder
        corpus, target = _stored(folder / "corpus", ids, x), _stored(folder / "target", target_ids, y)
        self._embedded = Embedded(corpus, target, x.shape[1])
        self._target = y.astype(np.float32)

    def _run(self, **sections: dict[str, Any]) -> config.Run:
        given: dict[str, Any] = {"corpus": {"paths": "vectors"}, "target": {"paths": "vectors"}, **sections}
        return config.Run.model_validate({"out": str(self._folder), **given})

    def solve(self, select: dict[str, Any] | None = None, **settings: Any) -> Potentials:
        """What the solve stage leaves, by the keys of ``solve``; ``landmarks: auto`` looks at ``select`` besides."""
        artifact = Artifact(str(self._folder / "solve"), make_key([settings, select]), config.Storage())
        vectors: Any = SimpleNamespace(read=lambda _: self._embedded, collections=())
        solve(Fit.of(self._run(solve=settings, select=select or {}), vectors, encoder={}, earlier=None), artifact, SITE)
        return Potentials.from_bytes(Path(artifact.path(POTENTIALS)).read_bytes())

    def scores(self, how: Potentials | str, seed: int = 0, **settings: Any) -> np.ndarray:
        """(n,) float64, lower is better: by potentials, or by a method that needs no stage before it.

        Args:
            settings: the keys of ``select``; of round_robin the budget is one.
        """
        name = how if isinstance(how, str) else "gotd"
        run = self._run(select={"method": name, **settings})
        with shards(self._embedded, run.solve.shards, run.storage, SITE) as pool:
            state = how
            if isinstance(how, str):
                state = methods.find(how).fit(self._fitting(pool, run, seed))
            scoring = Scoring("scores", name, state)
            return np.concatenate([table["score"].to_numpy() for table in pool.ask("score_table", scoring)])

    def _fitting(self, pool: Pool, run: config.Run, seed: int) -> Fitting:
        even = np.full(len(self._target), 1 / len(self._target))
        target = Points(np.arange(len(self._target)).astype("S32"), self._target, even)

        def sample(count: int) -> Points:
            ids, points, _ = landmarks_of(pool, count)
            return Points(ids, points, np.full(len(ids), 1 / len(ids)))

        wanted = partial(looked_at, pool, run.select)
        return Fitting(lambda: target, sample, run.select, seed, None, run.storage, partial(ask, pool), wanted)

    def choose(self, scores: np.ndarray, solved: Potentials | None = None, **settings: Any) -> np.ndarray:
        """Places (k,) in ``ids`` of what is taken, in the order of taking.

        Args:
            scores: (n,) of the first round.
            solved: a debiased fit, from which the later rounds go on.
            settings: the keys of ``select``.
        """
        run = self._run(select=settings)
        chooser = Chooser(run.select)
        kept = self._feed(chooser, scores)
        if solved and run.select.rounds > 1:
            kept = self._later_rounds(chooser, kept, solved, run)
        return kept

    def _later_rounds(self, chooser: Chooser, kept: np.ndarray, solved: Potentials, run: config.Run) -> np.ndarray:
        """As in the select stage, but for the texts."""
        with shards(self._embedded, run.solve.shards, run.storage, SITE) as pool, SITE.progress.task("rounds") as task:
            rounds = Rounds(run.solve, pool, solved, "rounds", SITE.progress)
            while chooser.next_round() and len(chooser.judged) < len(self.ids):
                rounds.refit(Chosen(self.ids[kept], self.x[kept], run.select.mix * min(chooser.spent, 1.0)), task)
                scoring = Scoring(f"round {chooser.round}", "gotd", rounds.potentials)
                tables = pool.ask("score_table", scoring)
                found = self._feed(chooser, np.concatenate([table["score"].to_numpy() for table in tables]))
                kept = np.concatenate([kept, found])
        return kept

    def _feed(self, chooser: Chooser, scores: np.ndarray) -> np.ndarray:
        """Judge in rank order until this round's part is taken; places (k,) of what is kept."""
        places = np.lexsort((self.ids, scores))
        places = places[np.isfinite(scores[places]) & ~np.isin(self.ids[places], chooser.judged)]
        found = [np.empty(0, np.int64)]
        for start in range(0, len(places), BLOCK):
            if chooser.round_full:
                break
            some = places[start : start + BLOCK]
            count = len(some)
            offer = Offer(
                self.ids[some],
                scores[some],
                np.full(count, "", object),
                np.ones(count, np.int64),
                self.x[some],
                np.zeros(count, bool),
                {},
            )
            found.append(some[chooser.feed(offer)])
        return np.concatenate(found)


def _stored(folder: Path, ids: np.ndarray, vectors: np.ndarray) -> Snapshot:
    """An index of these documents, as if they were the rows of one file."""
    index = Index(str(folder / "rows"), str(folder / "vectors"), config.Storage())
    file = StoredFile(f"{folder.name}.parquet", 1, 1)
    names, n = pa.array(ids.astype(str)), len(ids)
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).reshape(-1)), vectors.shape[1])
    address = {"source": [folder.name] * n, "path": [file.uri] * n, "row": range(n), "chunk": [0] * n}
    rows = pa.table({"doc_id": names} | address | {"chars": [1] * n, "weight": [1.0] * n}, ROWS)
    made = pa.table({"doc_id": names, "tokens": pa.array([1] * n, pa.int32()), "vector": values})
    index.vectors.write(Part.of("0", made), made)
    index.rows.write(part := Part.of("0", rows), rows)
    index.entries.commit(Entry("0", (file,), (part,), {file.uri: Tally(documents=n).to_dict()}))
    return index.snapshot([file])[0]
