"""The stage sieve, of a cascade: which documents are encoded, by the transport between cheap vectors.

Those whose cheap score is at most a cut, and the random sample that is encoded already.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.choosing.recall import CONFIDENCE, RECALL, Shown, cut_for
from gotd_ray.cluster import Site
from gotd_ray.earlier import own_potentials
from gotd_ray.errors import UserError, with_remedy
from gotd_ray.index import Documents, Vectors
from gotd_ray.index.kept import kept_file
from gotd_ray.ot.kernel import one_thread_each, working_precision
from gotd_ray.report.words import sieved
from gotd_ray.results import POTENTIALS
from gotd_ray.shards.pool import Pool, shards
from gotd_ray.shards.ranking import best, sources_of
from gotd_ray.shards.work import Scoring
from gotd_ray.stage import Plan, Stage

VERSION = 1
"""Raised when the result of equal settings changes."""

_KEPT = "kept-"


@dataclass(frozen=True)
class Sieve:
    """What is sieved, and how.

    Attributes:
        share: of the corpus; auto: as the sample shows.
        select: its section, for the budget.
        sketches: cheap vectors of all.
        vectors: of the sample and the target.
        coarse, solved: the potentials of either.
        shards: of the corpus.
    """

    share: float | Literal["auto"]
    select: config.Select
    sketches: Vectors
    vectors: Vectors
    coarse: Artifact
    solved: Artifact
    shards: int | None
    storage: config.Storage

    def key(self) -> Any:
        """What the potentials depend on is in their keys."""
        return self.share, self.select.budget, self.select.budget_unit, self.coarse.key, self.solved.key


def _given(plan: Plan) -> Sieve | None:
    run = plan.run
    if run.cascade is None:
        return None
    coarse, solved = plan.artifacts["coarse"], plan.artifacts["solve"]
    return Sieve(run.cascade, run.select, plan.sketches, plan.vectors, coarse, solved, run.solve.shards, run.storage)


@with_remedy()
def sieve(given: Sieve, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Write the ids of what is encoded, and commit.

    Raises:
        UserError: the budget takes more documents than are left.
    """
    started = time.perf_counter()
    artifact.begin()
    sample = given.vectors.read("reference").candidates.documents(given.vectors.width)
    cheap = own_potentials(given.coarse.path(POTENTIALS), given.storage)
    with shards(given.sketches.read(), given.shards, given.storage, site) as pool:
        candidates = sum(pool.ask("rows", 1))
        scoring = pool.share(Scoring(artifact.key, "gotd", cheap))
        shown = _shown(given, sample, pool, scoring, candidates, site) if given.share == "auto" else None
        if given.share == "auto":
            cut = shown.cut if shown else math.inf
        else:
            cut = float(best(pool, scoring, math.ceil(given.share * candidates)).scores[-1])
        ids = np.unique(np.concatenate([*pool.ask("within", scoring, cut), sample.ids]))
        sources = sources_of(pool)
    share = len(ids) / candidates
    if given.select.budget_unit == "documents" and given.select.budget > len(ids):
        raise UserError(
            f"encoder.cascade is {given.share}, which leaves {len(ids):,} of {candidates:,} documents, and the budget "
            f"is {given.select.budget:,}. Raise encoder.cascade, or lower select.budget."
        )
    facts: dict[str, Any] = {
        "candidates": candidates,
        "sample": len(sample.ids),
        "kept": len(ids),
        "share": share,
        "asked": given.share,
        "sources": sources,
        "file": None,
    }
    if shown:
        facts |= {"best": shown.best, "missed": shown.missed}
        facts |= {"recall": RECALL, "confidence": CONFIDENCE} if math.isfinite(shown.cut) else {}
    if len(ids) < candidates:
        data = kept_file(ids)
        facts["file"] = f"{_KEPT}{blake2b(data, digest_size=10).hexdigest()}.parquet"
        artifact.write(facts["file"], data)
    for name in storage.list_names(artifact.folder, given.storage):
        if name.startswith(_KEPT) and name != facts["file"]:
            storage.delete_tree(artifact.path(name), given.storage)
    site.progress.say(f"sieve: {sieved(facts)}")
    return artifact.commit(facts | {"seconds": time.perf_counter() - started})


def _shown(given: Sieve, sample: Documents, pool: Pool, scoring: Any, candidates: int, site: Site) -> Shown:
    """What the sample shows of the cheap score, at the budget's depth."""
    cheap = np.concatenate(pool.ask("scores_of", scoring, sample.ids))
    solved = own_potentials(given.solved.path(POTENTIALS), given.storage)
    double = solved.facts.get("precision") == "float64"
    score = solved.scorer("float64" if double else "float32", site.device)
    with one_thread_each(), working_precision("float32", site.device):
        exact = score(sample.ids, sample.vectors)
    return cut_for(cheap, exact, given.select.budget / candidates)


STAGE = Stage("sieve", VERSION, _given, sieve, reads_vectors=True)
