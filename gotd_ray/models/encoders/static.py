"""Vectors of single tokens, averaged: numpy alone, hundreds of times as fast as the transformer they come from.

Each token of the vocabulary goes once through the run's own model, alone between the special tokens. The vectors are
centred, those of frequent tokens count less, and a text's vector is the average over its tokens, of length 1 where
``encoder.normalize`` is on: Model2Vec (Minish 2024) without its PCA. A token of the probability p counts a / (a + p)
(SIF, Arora et al. 2017); p is guessed, and the centre is the mean weighted by p a / (a + p), as texts have it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from gotd_ray import config
from gotd_ray.artifacts import make_key
from gotd_ray.models import cache
from gotd_ray.models.encoders import transformer
from gotd_ray.models.tokenizer import Tokenizer

RARE = 1e-4
"""The a of a / (a + p)."""

FREQUENT, SCARCE = 10, 3000
"""Ranks that a single character is taken to have, of ASCII and of other scripts."""

TABLE = "tokens.safetensors"


class Encoder:
    """See :class:`gotd_ray.models.encoder.Kind`."""

    version = 1

    def __init__(self, settings: config.Encoder, _device: str = "cpu", threads: int | None = None) -> None:
        """Args: see ``Kind``; it runs on the CPU whatever the device.

        Raises:
            UserError: see ``transformer.Encoder``.
        """
        distilled = settings.model_copy(update={"precision": "float32", "batch_tokens": None})  # alike on all machines
        self._model = transformer.Encoder(distilled, "cpu", threads)
        self.tokenize = Tokenizer(settings.model_copy(update={"prefix": ""}))
        self.max_tokens, self.width = self._model.max_tokens, self._model.width

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the vectors: the model that they come from."""
        return self._model.identity

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        """(n, d) float32. A text without tokens of its own has the vector that the model gives the empty text."""
        head, tail = map(len, self.tokenize.frame)
        vectors = np.empty((len(ids), self.width), np.float32)
        for row, text in zip(vectors, ids, strict=True):
            own = text[head : len(text) - tail]
            row[:] = self._table[own].mean(0) if len(own) else self._table[-1]
        if self._model.settings.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return vectors

    @cached_property
    def _table(self) -> np.ndarray:
        """(V + 1, d) float32 of the tokens, centred and weighted; the last row is the empty text's.

        It is made once on a machine.

        Raises:
            UserError: the weights do not load, or the cache cannot be written.
        """
        key = make_key(self.version, *(self.identity[name] for name in ("sha256", "pooling", "prefix")))
        folder = cache.kept("the vectors of the encoder's tokens", "static", key, self._distil)
        return load_file(folder / TABLE)["vectors"].astype(np.float32)

    def _distil(self, folder: Path) -> None:
        head, tail = self._model.tokenize.frame
        size = len(head) + 1 + len(tail)
        settings = self._model.settings.model_copy(update={"normalize": True, "max_tokens": size})
        texts = [np.concatenate([head, own, tail]) for own in (*np.arange(len(self.tokenize.vocabulary))[:, None], [])]
        vectors = transformer.Encoder(settings).encode_ids(texts).astype(np.float32)
        probabilities = guessed(self.tokenize.vocabulary)
        weights = RARE / (RARE + probabilities)
        vectors -= np.average(vectors[:-1], 0, probabilities * weights).astype(np.float32)
        vectors[:-1] *= weights[:, None]
        save_file({"vectors": vectors.astype(np.float16)}, folder / TABLE)


def guessed(vocabulary: list[str]) -> np.ndarray:
    """(V,) probabilities of tokens by Zipf's law: 1 / rank, in the order of the vocabulary, which is by frequency.

    But for what stands before the words there: special tokens, which have no rank, and single characters by their code.
    """
    texts = [
        token.lstrip("#\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}\N{LOWER ONE EIGHTH BLOCK}") for token in vocabulary
    ]
    words = np.array([len(text) > 1 and text[0] not in "[<" for text in texts])
    others = [FREQUENT if len(text) < 2 and text.isascii() else SCARCE for text in texts]
    found = 1 / np.where(words, np.cumsum(words), others)
    return found / found.sum()
