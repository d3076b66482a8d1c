"""What an encoder is: texts to vectors of one width, the same to the last bit whatever else is in the batch."""

from __future__ import annotations

import time
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, get_args

import numpy as np

from gotd_ray import plugins
from gotd_ray.config import Encoder, EncoderKind
from gotd_ray.errors import UserError

MACHINE = {"device", "actors", "batch_tokens", "cascade"}
"""Settings on which a vector does not depend."""


class Kind(Protocol):
    """What the class of a kind gives: ``Encoder`` in a file of ``models/encoders/``, or a plug-in.

    It is made on the driver, in every reader and in every actor: what is large is loaded when first needed.

    Attributes:
        version: raised when equal settings give other vectors; a number or a text.
        width: numbers in a vector, d.
        max_tokens: ids kept of a text at most.

    A class may have two more: ``gpu``, true where it makes use of one; and ``identity``, a JSON-like dict of what
    determines its vectors besides name and version. Without it all settings do but those of the machine.
    """

    version: int | str
    width: int
    max_tokens: int

    def __init__(self, settings: Encoder, device: str, threads: int | None) -> None:
        """Args:
        settings: the section ``encoder``.
        device: ``cpu``, ``cuda`` or ``cuda:0``.
        threads: CPU threads that this process may use; null: as many as it likes.
        """

    def tokenize(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """In a reader: n arrays int32 of ids, at most ``max_tokens`` each, and (n,) tokens of each uncut text."""

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        """In an actor: (n, d) vectors of n such arrays, each a function of its ids alone."""


class TextEncoder:
    """The encoder of a run, of whatever kind.

    Attributes:
        width: numbers in a vector, d.
        max_tokens: ids kept of a text at most.
        device: where it runs.
        tokenize: see ``Kind.tokenize``.
    """

    def __init__(self, settings: Encoder, device: str = "cpu", threads: int | None = None) -> None:
        """Args: see ``Kind``.

        Raises:
            UserError: see ``plugins.load``; the kind cannot do what the settings ask.
        """
        self.settings, self.device = settings, device if uses_gpu(settings) else "cpu"
        self._kind = kind_of(settings)(settings, self.device, threads)
        self.width, self.max_tokens, self.tokenize = self._kind.width, self._kind.max_tokens, self._kind.tokenize

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines the vectors, up to rounding, and their width: equal identities may share an index."""
        own = getattr(self._kind, "identity", None) or self.settings.model_dump(mode="json", exclude=MACHINE)
        return {"kind": self.settings.kind, "version": self._kind.version, "width": self.width} | own

    def loaded(self) -> TextEncoder:
        """Itself, with in memory what it needs to encode: what is wrong with that is raised here."""
        self.encode([""])
        return self

    def rate(self, texts: list[str]) -> float:
        """Documents per second here, measured on these; the first of them are encoded beforehand to warm up."""
        self.encode(texts[:16])
        started = time.perf_counter()
        self.encode(texts)
        return len(texts) / (time.perf_counter() - started)

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n, d) float16 of n texts; see ``encode_ids``."""
        return self.encode_ids(self.tokenize(texts)[0])

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        """(n, d) float16 of n arrays of token ids, in their order. Give thousands at once.

        Raises:
            UserError: a number of a vector is not finite, or a plug-in gives vectors of another shape.
        """
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
            vectors = np.asarray(self._kind.encode_ids(ids)).astype(np.float16, copy=False)
        if vectors.shape != (len(ids), self.width):
            raise UserError(
                f"encoder.kind '{self.settings.kind}' gave {len(ids)} texts vectors of the shape {vectors.shape}, and "
                f"its width is {self.width}. Correct the plug-in."
            )
        if broken := int((~np.isfinite(vectors).all(1)).sum()):
            raise UserError(
                f"the encoder gave {broken} of {len(ids)} texts a vector that is not finite, in "
                f"{self.identity.get('precision')}. Set encoder.precision to float32, or encoder.normalize to true; "
                "else the model is broken."
            )
        return vectors


def kind_of(settings: Encoder) -> type[Kind]:
    """The class of the settings' kind: one of ours, or a plug-in.

    Raises:
        UserError: see ``plugins.load``.
    """
    if settings.kind in get_args(EncoderKind):
        return import_module(f"gotd_ray.models.encoders.{settings.kind}").Encoder
    return plugins.load(plugins.ENCODERS, settings.kind)


def uses_gpu(settings: Encoder) -> bool:
    """Whether the settings' kind makes use of a GPU."""
    return getattr(kind_of(settings), "gpu", False)
