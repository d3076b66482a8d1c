"""What a document of each source would buy, by its score and the measured slope of the loss: the linear theory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from gotd_ray import config, pipeline, storage
from gotd_ray.curves.noise import Noise
from gotd_ray.curves.theory import gains, linear
from gotd_ray.index import scan, table_of
from gotd_ray.results import SUBSET

SAMPLE = 20_000
"""Candidates by which the mean score of each source is known, at the most about so many."""

FEWEST = 10
"""Documents of a source in that sample, below which nothing is said of it."""


@dataclass(frozen=True)
class Scores:
    """Debiased scores of a selection.

    Attributes:
        taken: (n,) of the subset, by rank.
        mean: over a sample of all candidates.
        sources: of each source in it the mean, and its documents there.
    """

    taken: np.ndarray
    mean: float
    sources: dict[str, tuple[float, int]]


def why_not(run: config.Run) -> str | None:
    """Why a run's scores are no gradient of the divergence; None where they are."""
    if run.select.method != "gotd":
        return f"select.method is {run.select.method}, whose scores are no gradient of the divergence"
    if run.solve.preset != "debiased" or run.contrast:
        return "the scores are not debiased"
    if run.select.rounds > 1:
        return f"select.rounds is {run.select.rounds}, and each round has another gradient"
    return None if run.select.export_scores else "select.export_scores is false"


def scores(plan: pipeline.Plan) -> Scores:
    """Of a run whose selection is done.

    Raises:
        UserError: its files, or the index, cannot be read.
    """
    options, chosen = plan.run.storage, plan.artifacts["select"]
    subset = table_of(storage.read_bytes(chosen.path(SUBSET), options), ["rank", "score"]).sort_by("rank")
    candidates = plan.vectors.read().candidates
    high = None  # ids are hashes: those below some id are a random sample
    if candidates.rows > SAMPLE:
        high = f"{int(16**15 * SAMPLE / candidates.rows):015x}".encode()
    names = [name for name in storage.list_names(chosen.path("scores"), options) if name.endswith(".parquet")]
    wanted = pc.scalar(True) if high is None else pc.field("doc_id") < high.decode()
    found = scan([chosen.path("scores", name) for name in names], ["doc_id", "score"], wanted, options)
    found = found.filter(pc.is_finite(found["score"]))
    of = candidates.read(["doc_id", "source"], high=high).group_by("doc_id").aggregate([("source", "min")])
    by = found.join(of, "doc_id").group_by("source_min").aggregate([("score", "mean"), ("score", "count")])
    rows = zip(*(by[name].to_pylist() for name in ("source_min", "score_mean", "score_count")), strict=True)
    sources = {str(source): (float(mean), int(count)) for source, mean, count in rows if source is not None}
    return Scores(subset["score"].to_numpy(), float(pc.mean(found["score"]).as_py()), sources)


def told(known: Scores, sizes: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """What the theory says of one curve of the subset.

    Args:
        sizes, losses: as of :func:`gotd_ray.curves.advice.advise`.

    Returns:
        What ``curves.theory.linear`` does; besides, where the slope says something, ``sources``: of each its mean
        score, documents in the sample, and ``gain``, by how much 1,000 more documents of it lower the loss.
    """
    found = linear(Noise(sizes, losses), known.taken, known.mean)
    if found["refused"]:
        return found | {"sources": []}
    enough = {source: mean for source, (mean, count) in known.sources.items() if count >= FEWEST}
    each = gains(found["slope"], enough, known.mean)
    rows = [
        {"source": source, "mean": enough[source], "documents": known.sources[source][1], "gain": 1000 * gain}
        for source, gain in each.items()
    ]
    return found | {"sources": rows}
