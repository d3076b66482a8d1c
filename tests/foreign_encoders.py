"""Encoders of somebody else's, each broken in one way: what ``contract.check_encoder`` must see."""

from __future__ import annotations

import re
from itertools import count
from typing import Any
from zlib import crc32

import numpy as np

from gotd_ray import config


class Good:
    """A text's vector counts its words, hashed."""

    version: int | str = 1
    width = 32

    def __init__(self, settings: config.Encoder, device: str, threads: int | None) -> None:
        self.max_tokens = settings.max_tokens or 16

    def word(self, word: str) -> int:
        return crc32(word.encode()) % 2**31

    def tokenize(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        words = [re.findall(r"\w+", text) for text in texts]
        ids = [np.array([self.word(one) for one in row[: self.max_tokens]], np.int32) for row in words]
        return ids, np.array([len(row) for row in words], np.int64)

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        found = [0.1 + np.bincount(row % self.width, minlength=self.width) for row in ids]
        return np.array([one / np.linalg.norm(one) for one in found]).reshape(len(ids), self.width)


class Draws(Good):
    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        return super().encode_ids(ids) + np.random.default_rng().normal(0, 1e-2, (len(ids), self.width))


class Looks(Good):
    """At the other texts of the batch."""

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        found = super().encode_ids(ids)
        return found - found.mean(0) if len(found) else found


class Hashes(Good):
    """As Python does, otherwise in every process."""

    def word(self, word: str) -> int:
        return hash(word) % 2**31


class Overflows(Good):
    """But of the empty text."""

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        return super().encode_ids(ids) * np.array([1e6 if len(row) else 1.0 for row in ids]).reshape(-1, 1)


class Narrow(Good):
    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        return super().encode_ids(ids)[:, 1:]


class Nothing(Good):
    """Of no texts no matrix comes."""

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        return super().encode_ids(ids) if ids else np.array([])


class Flat(Good):
    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        return np.full((len(ids), self.width), self.width**-0.5)


class Long(Good):
    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        return super().encode_ids(ids) * 2


class Uncut(Good):
    def tokenize(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        return [np.full(len(text), 1, np.int32) for text in texts], super().tokenize(texts)[1]


class Lists(Good):
    def tokenize(self, texts: list[str]) -> tuple[Any, np.ndarray]:
        ids, counts = super().tokenize(texts)
        return [row.tolist() for row in ids], counts


class Halves(Good):
    def tokenize(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        ids, counts = super().tokenize(texts)
        return ids, counts / 2


class Forgets(Good):
    def tokenize(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        ids, counts = super().tokenize(texts)
        return ids, counts[1:]


class Objects(Good):
    identity = {"width": np.float32(1)}  # noqa: RUF012


class Changes(Good):
    _made = count()

    @property
    def identity(self) -> dict[str, Any]:
        return {"made": next(self._made)}
