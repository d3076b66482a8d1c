"""DSIR: the importance weights that the stage dsir has left, with noise where documents are drawn by them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gotd_ray import storage as files
from gotd_ray.choosing.dsir import dsir_scores
from gotd_ray.config import Storage
from gotd_ray.errors import UserError
from gotd_ray.index import id_range, ids_of, scan
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.potentials import Scorer
from gotd_ray.ot.shard import segment_bounds
from gotd_ray.results import LOG_WEIGHTS


def weights_name(number: int, count: int) -> str:
    """The name of one of the files in which the dsir stage leaves its log weights: each says how many there are."""
    return f"part-{number:05d}-of-{count:05d}.parquet"


def weights_in(folder: str, storage: Storage) -> list[str]:
    """The files of log weights in a folder.

    Raises:
        UserError: one is missing; its documents would have no weight, and never be taken.
    """
    names = files.list_names(folder, storage)
    wanted = [weights_name(number, len(names)) for number in range(len(names))]
    if not names or names != wanted:
        stage = folder.rstrip("/").rpartition("/")[0]
        raise UserError(
            f"{folder} does not hold all log weights that the stage dsir has left there: {len(names):,} files. Delete "
            f"{stage} and run again: dsir is done anew."
        )
    return [files.join(folder, name) for name in names]


@dataclass(frozen=True)
class LogWeights:
    """The log weights that the dsir stage has left, and how they are used."""

    paths: list[str]
    """See :func:`weights_in`: each of an equal range of ids, in their order."""

    min_words: int
    seed: int | None
    """None takes the largest."""

    def meeting(self, low: bytes, high: bytes) -> list[str]:
        """The files that may hold ids with low <= id < high."""
        ranges = pairwise(segment_bounds(len(self.paths)))
        return [path for path, (start, stop) in zip(self.paths, ranges, strict=True) if start < high and low < stop]


def _fit(given: Fitting) -> LogWeights:
    assert given.before
    paths = weights_in(given.before.path(LOG_WEIGHTS), given.storage)
    return LogWeights(paths, given.settings.dsir_min_words, given.seed if given.settings.dsir_sample else None)


def _scorer(weights: LogWeights, part: Part) -> Scorer:
    """Reads the weights of the shard's ids. A document without one (its file has gone) is never taken."""
    some = weights.meeting(part.low, part.high)
    table = scan(some, ["doc_id", "log_weight", "words"], id_range(part.low, part.high), part.storage)
    table = table.sort_by("doc_id")
    known, values, words = ids_of(table), table["log_weight"].to_numpy(), table["words"].to_numpy()
    scores = dsir_scores(known, values, words, min_words=weights.min_words, seed=weights.seed)

    def score(ids: np.ndarray, _vectors: np.ndarray) -> np.ndarray:
        place = np.searchsorted(known, ids)
        found = np.append(known, b"")[place] == ids
        return np.where(found, np.append(scores, np.inf)[place], np.inf)

    return score


METHOD = Method(
    "dsir",
    version=1,
    fit=_fit,
    scorer=_scorer,
    taken="by importance weights of hashed n-grams (DSIR)",
    means="A score is the negative log of the importance weight, with Gumbel noise where documents are drawn.",
    after="dsir",
    leaves_out=("too_few_words", "are shorter than select.dsir_min_words, or could not be read again"),
)
