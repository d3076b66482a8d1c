"""How candidates are scored, as every shard needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gotd_ray import storage as files
from gotd_ray.config import Storage
from gotd_ray.errors import UserError
from gotd_ray.index import id_range, ids_of, scan
from gotd_ray.ot.potentials import Potentials, Scorer
from gotd_ray.select.dsir import dsir_scores
from gotd_ray.select.mmd import Witness
from gotd_ray.select.scorers import nearest_scores, random_scores


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
    """The log weights that the dsir stage has left, and how they are to be used."""

    paths: list[str]
    """See :func:`weights_in`."""

    min_words: int
    sample: bool


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored: by what the method needs of the fields, and no more."""

    name: str
    """Tells scorings apart: shards keep the scores of the last one."""

    method: Literal["gotd", "mmd", "dsir", "nearest", "random"]
    seed: int
    target: np.ndarray
    potentials: Potentials | None
    witness: Witness | None = None
    log_weights: LogWeights | None = None

    def scorer(self, device: str, low: bytes, high: bytes, storage: Storage) -> Scorer:
        """The scores of documents with low <= doc_id < high; lower is better, infinite is never taken."""
        if self.method == "gotd":
            assert self.potentials is not None
            double = self.potentials.facts.get("precision") == "float64"
            return self.potentials.scorer("float64" if double else "float32", device)
        if self.method == "mmd":
            assert self.witness is not None
            return self.witness.scorer(device)
        if self.method == "dsir":
            assert self.log_weights is not None
            return _dsir_scorer(self.log_weights, self.seed, low, high, storage)
        if self.method == "nearest":
            return lambda _ids, vectors: nearest_scores(vectors, self.target)
        return lambda ids, _vectors: random_scores(ids, self.seed)


def _dsir_scorer(weights: LogWeights, seed: int, low: bytes, high: bytes, storage: Storage) -> Scorer:
    """Reads the weights of these ids. A document without one (its file has gone) is never taken."""
    table = scan(weights.paths, ["doc_id", "log_weight", "words"], id_range(low, high), storage)
    table = table.sort_by("doc_id")
    known = ids_of(table)
    scores = dsir_scores(
        known,
        table["log_weight"].to_numpy(),
        table["words"].to_numpy(),
        min_words=weights.min_words,
        seed=seed if weights.sample else None,
    )

    def score(ids: np.ndarray, _vectors: np.ndarray) -> np.ndarray:
        place = np.searchsorted(known, ids)
        found = np.append(known, b"")[place] == ids
        return np.where(found, np.append(scores, np.inf)[place], np.inf)

    return score
