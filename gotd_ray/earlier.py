"""Potentials on file, of this run or an earlier one: read, and refused where they are broken or do not fit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.ot.potentials import Potentials

TOLD = (
    *("preset", "precision", "over", "candidates", "fitted_on", "targets", "epsilon", "mean_cost", "tolerance"),
    *("residual", "passes", "reason", "last_move"),
)
"""What a solve says of its potentials, and this run says on."""

MAKES_VECTORS = ("kind", "version", "sha256", "pooling", "normalize", "max_tokens", "prefix", "width")
"""What of an encoder's identity must agree. Its name and folder need not, and its precision changes roundings only."""


@dataclass(frozen=True)
class Earlier:
    """A potentials file that ``solve.potentials`` or ``solve.warm_start`` names."""

    path: str
    potentials: Potentials
    digest: str
    """Of the file's bytes: what is in it counts, not where it lies."""


def read_earlier(run: config.Run, encoder: dict[str, Any]) -> Earlier | None:
    """The file that the run names, if any.

    Args:
        encoder: identity of the run's encoder, see :class:`gotd_ray.models.encoder.TextEncoder`.

    Raises:
        UserError: it cannot be read, is of another encoder, or has a contrast where the run has none or the reverse.
    """
    key = "potentials" if run.solve.potentials else "warm_start"
    path = run.solve.potentials or run.solve.warm_start
    if path is None or run.select.method != "gotd":
        return None
    data = storage.read_if_there(path, run.storage)
    if data is None:
        raise UserError(
            f"solve.{key} '{path}' cannot be read: there is no such file. Give the path of a potentials.safetensors "
            "that a run left in its solve folder."
        )
    try:
        potentials = Potentials.from_bytes(data)
    except ValueError as error:
        raise UserError(f"solve.{key} '{path}': {error}. Solve again to write one.") from None
    lacking = [name for name in TOLD if name not in potentials.facts] if run.solve.potentials else []
    if lacking:
        raise UserError(
            f"solve.{key} '{path}' does not say how it was made: it has no {', '.join(lacking)}. Give the file that a "
            "run left in its solve folder."
        )
    _check_encoder(f"solve.{key} '{path}'", potentials.facts.get("encoder", {}), encoder)
    if run.solve.potentials and (potentials.unwanted is None) != (run.contrast is None):
        has, lacks = ("the run", "the file") if run.contrast else ("the file", "the run")
        raise UserError(
            f"solve.potentials '{path}': {has} has a contrast and {lacks} has none. Give both the same: change "
            "`contrast`, or fit anew without solve.potentials."
        )
    return Earlier(path, potentials, hashlib.blake2b(data, digest_size=16).hexdigest())


def own_potentials(path: str, settings: config.Storage) -> Potentials:
    """The potentials that this run's solve has left.

    Raises:
        UserError: they are gone or broken.
    """
    data = storage.read_if_there(path, settings)
    try:
        if data is not None:
            return Potentials.from_bytes(data)
        why = "they are not there"
    except ValueError as error:
        why = str(error)
    raise UserError(
        f"the potentials that the stage solve has left cannot be used, {path}: {why}. Delete {path.rpartition('/')[0]} "
        "and run again: the solve is done anew."
    )


def same_vectors(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether the vectors of two encoders, see ``MAKES_VECTORS``, can be compared."""
    return all(theirs.get(name) == ours.get(name) for name in MAKES_VECTORS)


def _check_encoder(where: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    differ = [name for name in MAKES_VECTORS if theirs.get(name) != ours.get(name)]
    if not differ:
        return
    named = [
        f"{encoder.get('model', 'an unknown model')} ({', '.join(f'{k}: {_short(encoder.get(k))}' for k in differ)})"
        for encoder in (theirs, ours)
    ]
    raise UserError(
        f"{where} was made with the encoder {named[0]}, but this run has {named[1]}: their vectors cannot be compared. "
        "Set `encoder` as in the run that made the file, or fit anew without it."
    )


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 24 else repr(value)
