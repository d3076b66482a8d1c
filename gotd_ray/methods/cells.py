"""Cells of k-means at the target's frequency: importance sampling over clusters.

CRISP (Grangier et al. 2025, arXiv 2410.03735) cuts the corpus into clusters, and draws from each as often as the target
falls into it. A document's importance weight is that of its cell: the target's share of it over the corpus's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gotd_ray.choosing.clusters import centres, nearest
from gotd_ray.choosing.dsir import gumbel
from gotd_ray.choosing.scorers import unit
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.exact import from_units, to_units
from gotd_ray.ot.potentials import Scorer
from gotd_ray.ot.shard import Segment

SAMPLE = 64
"""Documents for each cell, from which the centres are found."""


@dataclass(frozen=True)
class Shares:
    """A question to all candidates: how much of their weight lies in each cell, as exact integers (c,)."""

    centres: np.ndarray

    def of(self, segment: Segment) -> np.ndarray:
        """The answer of one segment."""
        labels = nearest(unit(segment.vectors), self.centres)
        if segment.weights is None:
            counts = np.bincount(labels, minlength=len(self.centres))
            return np.array([to_units(count) for count in counts.tolist()], object)
        return np.array([sum(map(to_units, segment.weights[labels == c])) for c in range(len(self.centres))], object)

    def together(self, parts: list[np.ndarray]) -> np.ndarray:
        """The answer of several parts."""
        total: np.ndarray = np.sum(parts, axis=0)
        return total


@dataclass(frozen=True)
class Cells:
    """Cells with their scores."""

    centres: np.ndarray
    """(c, d) float32, unit vectors."""

    scores: np.ndarray
    """(c,) minus the log of target's share over corpus's; infinite where the target has none."""

    seed: int | None
    """Of the draw; None takes the highest ratios."""


def _fit(given: Fitting) -> Cells:
    target, wanted = given.target(), given.settings.cells
    found = centres(given.sample(SAMPLE * wanted).vectors, wanted)
    shares = np.array([from_units(total) for total in given.ask(Shares(found))])
    of_target = np.bincount(nearest(unit(target.vectors), found), target.b, len(found))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(of_target > 0, np.log(shares / shares.sum()) - np.log(of_target), np.inf)
    # A cell of no corpus has no documents, or some of weight 0, which come last.
    scores = np.where(np.isneginf(ratio), np.finfo(np.float64).max / 2, ratio)
    return Cells(found, scores, given.seed if given.settings.cells_sample else None)


def _scorer(cells: Cells, _: Part) -> Scorer:
    def score(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        if not len(ids):
            return np.empty(0)
        found: np.ndarray = cells.scores[nearest(unit(vectors), cells.centres)]
        return found if cells.seed is None else found - gumbel(ids, cells.seed)

    return score


METHOD = Method(
    "cells",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="by cells of k-means at the target's frequency (CRISP)",
    means="A score is the log of the corpus's share of the document's cell over the target's, with Gumbel noise where "
    "documents are drawn.",
    leaves_out=("empty_cell", "lie in cells that hold no target document"),
    facts=lambda cells: {"cells": len(cells.centres), "cells_of_target": int(np.isfinite(cells.scores).sum())},
)
