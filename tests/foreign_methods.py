"""Methods of somebody else's, sound ones, and others that are each broken in one way, which
``contract.check_method`` must see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Good:
    """The squared distance to the mean of the target."""

    version = 1
    taken = "by nearness to the target's mean"

    def fit(self, target: Any, sample: Any, seed: int) -> Any:
        return target.b @ target.vectors

    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return ((vectors.astype(np.float64) - state) ** 2).sum(1)


class Company(Good):
    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        found = super().score(state, ids, vectors)
        return found - found.mean() if len(found) else found


class Draws(Good):
    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return super().score(state, ids, vectors) + np.random.default_rng().normal(size=len(ids))


class NotANumber(Good):
    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return np.full(len(ids), np.nan)


class OneForAll(Good):
    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> Any:
        return 1.0


class Writes(Good):
    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        vectors[:] = 0
        return super().score(state, ids, vectors)


class Local(Good):
    """Its state cannot be sent to the shards."""

    def fit(self, target: Any, sample: Any, seed: int) -> Callable[[], None]:
        return lambda: None

    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return np.zeros(len(ids))


class Half(Good):
    """It leaves out the documents whose id begins with a digit below 8."""

    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return np.where(ids < b"8", np.inf, super().score(state, ids, vectors))


class Nobody(Good):
    """It leaves out all documents."""

    def score(self, state: Any, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return np.full(len(ids), np.inf)


class Unfit:
    """It has no fit."""

    version, score = 1, Good.score


good, company, draws, not_a_number = Good(), Company(), Draws(), NotANumber()
one_for_all, writes, local, unfit = OneForAll(), Writes(), Local(), Unfit()
half, nobody = Half(), Nobody()
