"""The target, or the contrast, as one side of a transport; and what its section may say of it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from gotd_ray.errors import UserError
from gotd_ray.index import Snapshot, ids_of, weights_of
from gotd_ray.ot.weights import by_source

_SHOWN = 10
"""Names of sources that an error lists."""


@dataclass(frozen=True)
class Points:
    """One side of a transport, or a sample that stands for the candidates: distinct documents, by id."""

    ids: np.ndarray
    """(m,) S32."""

    vectors: np.ndarray
    """(m, d) float32."""

    b: np.ndarray
    """(m,) float64 weights, summing to 1."""


def points_of(
    snapshot: Snapshot, width: int, name: str = "target", shares: Mapping[str, float] | None = None
) -> Points:
    """The documents of a target that have weight.

    Args:
        name: target or contrast, for errors.
        shares: of each source in the weight, see ``target.proportions``.

    Raises:
        UserError: there is none; shares and sources do not name the same; the index cannot be read; a vector is not
            finite.
    """
    found = snapshot.documents(width)
    if not len(found.ids):
        raise UserError(
            f"the {name} has no document: every row was empty, too short (chunks.min_chars) or left out. "
            f"Check {name}.paths and {name}.text_column."
        )
    b = np.ones(len(found.ids)) if found.weights is None else found.weights
    if shares is not None:
        table = snapshot.read(["doc_id", "source", "weight"])
        sources, weights = np.array(table["source"].to_pylist()), weights_of(table)
        weighted = sources if weights is None else sources[weights > 0]
        check_proportions(shares, set(sources.tolist()), weighted=set(weighted.tolist()))
        _, _, b = by_source(ids_of(table), weights, sources, shares)
    check_weights(name, bool(b.sum() > 0))
    check_finite(found.ids, found.vectors, name)
    some = b > 0
    return Points(found.ids[some], found.vectors[some].astype(np.float32), b[some] / b.sum())


def check_finite(ids: np.ndarray, vectors: np.ndarray, name: str) -> None:
    """Hold vectors (n, d) of documents (n,) against what no score would see: each has its own way to pass over a NaN.

    Args:
        name: whose they are, for errors.

    Raises:
        UserError: one is not finite.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if finite.all():
        return
    broken = np.flatnonzero(~finite)
    raise UserError(
        f"{len(broken):,} of {len(vectors):,} vectors of the {name} are not finite (the first is that of document "
        f"{ids[broken[0]].decode()}), so the vectors are broken: set encoder.precision to float32 and "
        "encoder.normalize to true (float16 holds up to 65,504), or take another encoder."
    )


def check_weights(name: str, some: bool) -> None:
    """Refuse a set none of whose documents has a positive weight.

    Raises:
        UserError: ``some`` is false.
    """
    if not some:
        raise UserError(
            f"every document of the {name} has weight 0. Check {name}.weight_column: some weight must be positive."
        )


def check_proportions(
    shares: Mapping[str, float], sources: Set[str], complete: bool = True, weighted: Set[str] | None = None
) -> None:
    """Hold ``target.proportions`` against the sources that the target has.

    Args:
        complete: these are all sources; otherwise only those without a share are refused.
        weighted: those of them that have a document of positive weight, where that is known.

    Raises:
        UserError: they do not name the same; a source with a share has no weight.
    """
    if sources - set(shares) or (complete and set(shares) - sources):
        raise UserError(
            f"target.proportions names {_listed(set(shares))}, but the target's sources are {_listed(sources)}. Name "
            "each of them once (target.source_column and source_from say what a source is); the share 0 leaves one out."
        )
    for source, share in sorted(shares.items()):
        if weighted is not None and share > 0 and source not in weighted:
            raise UserError(
                f"target.proportions gives the source '{source}' a share, but all of its documents have weight 0. "
                "Check target.weight_column, or give the source the share 0."
            )


def _listed(names: Set[str]) -> str:
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in sorted(names)[:_SHOWN]) + more
