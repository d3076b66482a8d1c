"""The stage select: index, what the method goes by and corpus -> the subset, as Parquet with its text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd_ray import config, methods, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.choosing.choose import Chooser
from gotd_ray.choosing.duplicates import EXACT
from gotd_ray.cluster import Site
from gotd_ray.errors import with_remedy
from gotd_ray.filesystems import shown
from gotd_ray.filters import check_budget, read_unwanted, refuse_nothing
from gotd_ray.index import Embedded, Vectors
from gotd_ray.methods import Fitting, Method
from gotd_ray.ot.potentials import Potentials
from gotd_ray.points import Points, points_of
from gotd_ray.progress import Progress, Task
from gotd_ray.results import SUBSET
from gotd_ray.shards.fit import total_mass
from gotd_ray.shards.pool import Pool, ask, landmarks_of, shards
from gotd_ray.shards.ranking import Stretch, looked_at, ranking, sources_of
from gotd_ray.shards.read_back import ReadBack
from gotd_ray.shards.rounds import Chosen, Rounds
from gotd_ray.shards.subset import Subset
from gotd_ray.shards.work import Scoring
from gotd_ray.stage import Plan, Stage
from gotd_ray.storage import StoredFile
from gotd_ray.text.addresses import Reading

VERSION = 4
"""Raised when the result of equal settings changes."""

SET_ASIDE = "set_aside.parquet"

NOT_SELECTED_BY = {"decontaminate": {"paths", "max_bad_files", "max_bad_rows"}}
"""Settings on which the subset does not depend, or which the files stand for."""


class Whole(NamedTuple):
    """How many documents there are, and of each source."""

    candidates: int
    sources: dict[str, int]


@dataclass(frozen=True)
class Choice:
    """What is chosen from, and how.

    Attributes:
        settings: its section.
        method: what scores.
        vectors: of candidates and target.
        text, chunks: how the candidates' texts are read again.
        seed: of what is drawn.
        shares: of the target's sources, see ``target.proportions``.
        before: the artifact of the stage that the scores come from, where they are not made here.
        fit: how later rounds fit; how many shards there are.
        unwanted: files of the evaluation sets.
        whole: the corpus of which a cascade has left the best.
    """

    settings: config.Select
    method: Method
    vectors: Vectors
    text: config.Text
    chunks: config.Chunks
    storage: config.Storage
    seed: int
    shares: dict[str, float] | None
    before: Artifact | None
    fit: config.Solve
    unwanted: list[StoredFile]
    whole: Whole | None = None

    def key(self) -> Any:
        """What the stage before depends on is in its own key."""
        scores = self.before.key if self.before else [self.vectors.key(), self.shares]
        scores = [scores, self.vectors.key()] if self.whole else scores
        unwanted = [(file.uri, file.size, file.modified) for file in self.unwanted]
        settings = self.settings.model_dump(exclude=NOT_SELECTED_BY)
        return scores, settings, self.method.version, unwanted, self.seed


def _given(plan: Plan) -> Choice:
    run, settings = plan.run, plan.run.select
    method, sieved = methods.find(settings.method), plan.manifests.get("sieve")
    return Choice(
        settings=settings,
        method=method,
        vectors=plan.vectors,
        text=run.corpus,
        chunks=run.chunks,
        storage=run.storage,
        seed=run.seed if settings.seed is None else settings.seed,
        shares=run.target.proportions,
        before=plan.artifacts.get(method.after or ""),
        fit=run.solve,
        unwanted=plan.listing(settings.decontaminate).files if settings.decontaminate else [],
        whole=Whole(sieved["candidates"], sieved["sources"]) if sieved else None,
    )


@with_remedy()
def select(given: Choice, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Score all candidates, choose the budget's worth in one round or several, read their texts back, and commit.

    Raises:
        UserError: the budget exceeds the corpus; an evaluation set or a result of an earlier stage cannot be read; the
            arithmetic broke down; no document is left to take.
    """
    started = time.perf_counter()
    artifact.begin()
    storage.delete_tree(artifact.path("scores"), given.storage)  # another number of shards leaves other files
    settings, progress, embedded = given.settings, site.progress, given.vectors.read()
    unwanted = read_unwanted(settings, given.unwanted, given.storage)
    method = given.method
    chooser = Chooser(settings)
    with shards(embedded, given.fit.shards, given.storage, site) as pool:
        available = sum(pool.ask("rows", 1))
        check_budget(settings, available)
        scoring = Scoring(artifact.key, method.name, method.fit(_fitting(given, embedded, pool)))
        solved = scoring.state if isinstance(scoring.state, Potentials) else None
        shared = first = pool.share(scoring)
        rounds = None
        if solved and settings.rounds > 1:
            rounds = Rounds(given.fit, pool, solved, artifact.key, progress)
        sizes = {file.uri: file.size for file in given.vectors.collections["corpus"].files}
        reading = Reading(given.text, given.chunks, given.storage, unwanted.index if unwanted else None)
        read_back = ReadBack(reading, pool, site.resources.cpus, sizes)
        subset = Subset(rounds is not None, conversations=given.text.turns is not None)
        with progress.task("select", total=settings.budget, unit=settings.budget_unit) as task:
            _take_round(chooser, subset, ranking(pool, shared, chooser, available, settings), read_back, task)
            while rounds and chooser.next_round() and len(chooser.judged) < available:
                rounds.refit(_taken(chooser, subset, settings), task)
                name = f"{artifact.key}-{chooser.round}"
                shared = pool.share(replace(scoring, name=name, state=rounds.potentials))
                _take_round(chooser, subset, ranking(pool, shared, chooser, available, settings), read_back, task)
        whole = given.whole or Whole(available, sources_of(pool))
        facts = _facts(chooser, whole.candidates, whole.sources, settings) | {"scored": available}
        facts |= {"decontaminated": unwanted.facts} if unwanted else {}
        facts |= _changed(read_back, progress) | _clusters(chooser, progress)
        facts |= method.facts(scoring.state) | {"taken": method.taken, "score_means": method.means}
        left_out = {}
        if method.leaves_out:
            reason, words = method.leaves_out
            left_out[reason] = facts["left_out"] = sum(pool.ask("left_out", shared))
            facts["left_out_as"] = words
        with storage.create(artifact.path(SET_ASIDE), given.storage) as file:
            pq.write_table(_set_aside_table(chooser), file, compression="zstd")
        if not chooser.documents:
            listed = artifact.path(SET_ASIDE) if chooser.set_aside else ""
            refuse_nothing(settings, available, facts["set_aside"] | left_out, listed)
        if solved and chooser.full:  # else all that may be taken is, and there is no cut
            last_move = (rounds.potentials if rounds else solved).facts["last_move"]
            facts["near_cut"] = sum(pool.ask("near", shared, facts["cut_score"], last_move))
        if rounds:
            facts |= rounds.close(_taken(chooser, subset, settings))
        if settings.export_scores:
            pool.ask("export", first, artifact.path("scores"))
    with storage.create(artifact.path(SUBSET), given.storage) as file:
        subset.write(file)
    return artifact.commit(facts | {"seconds": time.perf_counter() - started})


def _changed(read_back: ReadBack, progress: Progress) -> dict[str, Any]:
    """What is to be told of files that are not what they were when they were embedded."""
    if not (changed := sorted(read_back.changed.items())):
        return {}
    some = shown("; ".join(f"{path}: {why}" for path, why in changed[:3]))
    progress.say(
        f"select: {len(changed):,} files are not what they were when they were embedded, and what has gone is set "
        f"aside as text_changed. Run again to embed them as they are now. {some}"
    )
    return {"changed_files": {"files": len(changed), "examples": changed[:10]}}


def _clusters(chooser: Chooser, progress: Progress) -> dict[str, Any]:
    """What is to be told of a search for near-duplicates that did not look at all pairs."""
    if not chooser.clusters:
        return {}
    progress.say(
        f"select: near-duplicates searched within {chooser.clusters:,} clusters from document {EXACT + 1:,} on, and "
        "not among all that are taken"
    )
    return {"near_duplicate_clusters": chooser.clusters}


def _fitting(given: Choice, embedded: Embedded, pool: Pool) -> Fitting:
    """What the method may be fitted to."""

    def target() -> Points:
        return points_of(embedded.target, embedded.width, shares=given.shares)

    def sample(count: int) -> Points:
        total_mass(pool, 1)  # refuses weights that are all 0
        ids, vectors, weights = landmarks_of(pool, count)
        return Points(ids, vectors, np.full(len(ids), 1 / len(ids)) if weights is None else weights)

    def wanted() -> int:
        return looked_at(pool, given.settings)

    asked = partial(ask, pool)
    return Fitting(target, sample, given.settings, given.seed, given.before, given.storage, asked, wanted)


def _take_round(
    chooser: Chooser, subset: Subset, stretches: Iterator[Stretch], read_back: ReadBack, task: Task
) -> None:
    """Feed the ranking to the chooser until this round's part is taken; ``subset`` gets what is kept."""
    for stretch in stretches:
        texts = read_back(stretch.ids, stretch.address)
        offer = stretch.offer(texts)
        start = 0
        while start < len(offer) and not chooser.round_full:
            part = offer.part(start, start + chooser.block)
            rows = chooser.feed(part)
            task.advance(int(part.tokens[rows].sum()) if task.unit == "tokens" else len(rows))
            subset.add(chooser.round, offer, texts, start + rows)
            start += len(part)
        if chooser.round_full:
            break


def _taken(chooser: Chooser, subset: Subset, settings: config.Select) -> Chosen:
    """The documents taken so far; their share of the mixture grows with the part of the budget that is spent."""
    return Chosen(*subset.points(), settings.mix * min(chooser.spent, 1.0))


def _set_aside_table(chooser: Chooser) -> pa.Table:
    """What was passed over above the cut, and why."""
    names = ["doc_id", "score", "source", "reason", "other", "cosine", "span"]
    types = [pa.string(), pa.float64(), pa.string(), pa.string(), pa.string(), pa.float64(), pa.string()]
    columns = [[getattr(item, name) for item in chooser.set_aside] for name in names]
    return pa.table(columns, schema=pa.schema(list(zip(names, types, strict=True))))


def _facts(chooser: Chooser, available: int, corpus_sources: dict[str, int], settings: config.Select) -> dict[str, Any]:
    return {
        "method": settings.method,
        "candidates": available,
        "documents": chooser.documents,
        "tokens": chooser.tokens,
        "budget": settings.budget,
        "budget_unit": settings.budget_unit,
        "budget_reached": chooser.full,
        "cut_score": chooser.last_score,
        "sources": {source: [count, chooser.kept_of[source]] for source, count in corpus_sources.items()},
        "set_aside": dict(Counter(item.reason for item in chooser.set_aside)),
    }


STAGE = Stage("select", VERSION, _given, select, reads_vectors=True)
