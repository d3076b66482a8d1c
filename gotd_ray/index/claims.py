"""Who encodes what, so that a text is encoded once, in however many files it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from gotd_ray.index.columns import GoneError
from gotd_ray.index.parts import LOOKS, Parts

ENCODED = -1
"""In place of a unit: the index has the vector."""

_MOST = 16
"""Sorted arrays that are searched; more are merged into one."""


def packed(ids: np.ndarray) -> np.ndarray:
    """(n,) S32 of hexadecimal ids as (n,) S16 of their bytes."""
    return np.frombuffer(bytes.fromhex(ids.tobytes().decode()), "S16") if len(ids) else np.empty(0, "S16")


@dataclass
class _Known:
    """Ids of one folder of vectors, and the claim of each, in some sorted arrays; an id is in one. 20 bytes an id."""

    ids: list[np.ndarray] = field(default_factory=list)
    claims: list[np.ndarray] = field(default_factory=list)

    def add(self, ids: np.ndarray, claim: int) -> None:
        """Sorted ids that are not known yet."""
        if not len(ids):
            return
        self.ids.append(ids)
        self.claims.append(np.full(len(ids), claim, np.int32))
        if len(self.ids) > _MOST:
            every = np.concatenate(self.ids)
            order = np.argsort(every, kind="stable")
            self.ids, self.claims = [every[order]], [np.concatenate(self.claims)[order]]

    def find(self, ids: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each array that has some of these ids: its claims, the places of these, and those among the ids."""
        for held, claims in zip(self.ids, self.claims, strict=True):
            place = np.minimum(np.searchsorted(held, ids), len(held) - 1)
            hits = np.flatnonzero(held[place] == ids)
            if len(hits):
                yield claims, place[hits], hits


class Claims:
    """Readers ask which of their documents they are to have encoded: those that nobody has before them.

    A reader that is started again takes over what the one before it had claimed. Where the claims themselves are lost,
    a text may be encoded twice, with the same result.
    """

    def __init__(self) -> None:
        self._claims: dict[tuple[int, str], int] = {}
        self._units: list[int] = []  # by claim
        self._known: dict[str, _Known] = {}

    def claim(self, vectors: Parts, unit: int, reader: str, ids: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Claim what nobody has.

        Args:
            vectors: where they are; what was there when this folder was first asked about is encoded.
            unit: for which it is claimed.
            reader: any name, another for each reading of it.
            ids: (n,) S32.

        Returns:
            (n,) bool, whether a document is to be encoded, of equal ids the first; and the units that encode others.

        Raises:
            UserError: a part is damaged.
        """
        known, claim = self._of(vectors), self._claims.setdefault((unit, reader), len(self._units))
        if claim == len(self._units):
            self._units.append(unit)
        distinct, first = np.unique(packed(ids), return_index=True)
        seen, mine = np.zeros(len(distinct), bool), np.ones(len(distinct), bool)
        units, others = np.array(self._units), set()
        for claims, place, hits in known.find(distinct):
            owners = claims[place]
            claimed, ours = owners != ENCODED, units[owners] == unit
            again = claimed & ours & (owners != claim)
            claims[place[again]] = claim
            seen[hits], mine[hits] = True, again
            others |= set(units[owners[claimed & ~ours]].tolist())
        known.add(distinct[~seen], claim)
        wanted = np.zeros(len(ids), bool)
        wanted[first[mine]] = True
        return wanted, sorted(others)

    def _of(self, vectors: Parts) -> _Known:
        if vectors.folder not in self._known:
            known = _Known()
            if held := self._held(vectors):
                known.add(np.unique(np.concatenate(held)), ENCODED)
            self._known[vectors.folder] = known
        return self._known[vectors.folder]

    def _held(self, vectors: Parts) -> list[np.ndarray]:
        for _ in range(LOOKS):
            with suppress(GoneError):  # another run has merged it: its ids are elsewhere now
                return [packed(ids) for ids in vectors.ids(vectors.there())]
        return [packed(ids) for ids in vectors.ids(vectors.there())]
