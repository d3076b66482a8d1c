"""The index of one idea of a document: what was read, the rows, the vectors; and what of it belongs to one corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.index.columns import (
    ROWS,
    SCHEMA,
    VECTORS,
    GoneError,
    LostError,
    id_range,
    ids_of,
    scan,
    vectors_of,
    weights_of,
)
from gotd_ray.index.entries import Entries, Entry, Taken, take
from gotd_ray.index.parts import LOOKS, Part, Parts
from gotd_ray.listing import StoredFile

T = TypeVar("T")


@dataclass(frozen=True)
class Index:
    """Two tables: what is costly to make, by content, and where it stands.

        <vectors>/parts/*.parquet   tokens and vector of each document, once: of one encoder and one idea of a chunk
        <rows>/parts/*.parquet      a row for each place where a document stands, with its source and its weight
        <rows>/entries/*.json       which files were read

    So another ``weight_column``, or a corpus that is moved, costs reading and no encoding.
    """

    rows_folder: str
    vectors_folder: str
    storage: Storage

    @property
    def rows(self) -> Parts:
        return Parts(storage.join(self.rows_folder, "parts"), self.storage)

    @property
    def entries(self) -> Entries:
        return Entries(storage.join(self.rows_folder, "entries"), self.storage)

    @property
    def vectors(self) -> Parts:
        return Parts(storage.join(self.vectors_folder, "parts"), self.storage)

    def committed(self) -> list[Entry]:
        """All entries that are whole, the largest first."""
        return self.entries.whole(self.rows.there())

    def snapshot(self, files: Iterable[StoredFile]) -> tuple[Snapshot, list[StoredFile]]:
        """The rows of these files as they are now, and the files that no entry covers yet."""
        taken, missing = take(self.committed(), files)
        return Snapshot(self, taken, tuple(self.vectors.there()) if taken else ()), missing

    def all_of(self, files: Iterable[StoredFile]) -> tuple[Snapshot, list[StoredFile]]:
        """The same where none should be missing: another run may merge entries between two listings of ours."""
        files = list(files)
        for _ in range(LOOKS):
            found, missing = self.snapshot(files)
            if not missing:
                break
        return found, missing


@dataclass(frozen=True)
class Documents:
    """Distinct documents: ids (n,) S32, sorted; vectors (n, d) float16; weights (n,) float64, None where all are 1."""

    ids: np.ndarray
    vectors: np.ndarray
    weights: np.ndarray | None


@dataclass(frozen=True)
class Snapshot:
    """The rows of the index that belong to one corpus at one time."""

    index: Index
    taken: tuple[Taken, ...]
    vectors: tuple[Part, ...]
    """All that there are."""

    @property
    def rows(self) -> int:
        """Documents, those with equal text counted each time."""
        return sum(taken.entry.rows(uri) for taken in self.taken for uri in taken.live)

    def _again(self) -> Snapshot:
        """The same rows, where they are by now."""
        files = [file for one in self.taken for file in one.entry.files if file.uri in one.live]
        found, missing = self.index.all_of(files)
        if missing:
            raise LostError(
                f"the index {self.index.rows_folder} has lost the rows of {len(missing):,} files, such as "
                f"{missing[0].uri}. They are read again by gotd run."
            )
        return found

    def _read(self, look: Callable[[Snapshot], T]) -> T:
        """What a look at the parts gives. Another run may merge some away at any time: what they held is elsewhere."""
        here = self
        for _ in range(LOOKS):
            try:
                return look(here)
            except GoneError:
                here = here._again()
        return look(here)

    def read(
        self,
        columns: list[str],
        low: bytes | None = None,
        high: bytes | None = None,
        only: list[str] | None = None,
    ) -> pa.Table:
        """Rows with low <= doc_id < high, or ``only`` those ids of them, in no particular order.

        Documents that stand in the corpus several times are as many rows.

        Raises:
            UserError: the index cannot be read, or lacks a vector.
        """
        of_rows = [name for name in columns if name in ROWS.names]
        of_vectors = [name for name in columns if name in VECTORS.names and name not in of_rows]
        wanted = id_range(low, high)
        if only is not None:
            wanted = wanted & pc.field("doc_id").isin(pa.array(only, pa.string()))
        table = self._read(lambda here: here._rows(list({"doc_id", *of_rows}), wanted, low, high))
        if not of_vectors:
            return table.select(columns)
        ids, back = np.unique(ids_of(table), return_inverse=True)
        found = [part for part, _ in self._found(ids, [*of_vectors, "doc_id"])]
        beside = pa.concat_tables(found).sort_by("doc_id").take(pa.array(back)) if found else SCHEMA.empty_table()
        for name in of_vectors:
            table = table.append_column(name, beside[name])
        return table.select(columns)

    def _rows(self, columns: list[str], wanted: pc.Expression, low: bytes | None, high: bytes | None) -> pa.Table:
        tables, place = [], self.index.rows
        inside = [[place.path(part) for part in one.entry.parts if part.meets(low, high)] for one in self.taken]
        met = [(one, paths) for one, paths in zip(self.taken, inside, strict=True) if paths]
        # Together what needs no look at the paths.
        if whole := [path for one, paths in met if not one.dead for path in paths]:
            tables.append(scan(whole, columns, wanted, place.storage))
        for one, paths in met:
            if dead := one.dead:
                few = len(dead) < len(one.live)
                of_dead = pc.field("path").isin(dead if few else list(one.live))
                tables.append(scan(paths, columns, wanted & (~of_dead if few else of_dead), place.storage))
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table().select(columns)

    def _found(self, ids: np.ndarray, columns: list[str]) -> list[tuple[pa.Table, np.ndarray]]:
        """Of each document one row of the vectors, with its place among the ids; these are sorted, each once."""

        def look(here: Snapshot) -> list[tuple[pa.Table, np.ndarray]]:
            have, found = np.zeros(len(ids), bool), []
            for table, places in here.index.vectors.look_up(list(here.vectors), ids, columns):
                new = np.zeros(len(places), bool)
                new[np.unique(places, return_index=True)[1]] = True
                new &= ~have[places]
                have[places] = True
                found.append((table, places) if new.all() else (table.filter(pa.array(new)), places[new]))
            here._refuse_lost(ids[~have])
            return found

        return self._read(look)

    def documents(self, width: int, low: bytes | None = None, high: bytes | None = None) -> Documents:
        """The distinct documents with low <= doc_id < high; of a document's weights the largest counts.

        Args:
            width: numbers in a vector.

        Raises:
            UserError: the index cannot be read, or lacks a vector.
        """
        table = self.read(["doc_id", "weight"], low, high)
        ids, weights = ids_of(table), weights_of(table)
        if weights is None:
            ids = np.unique(ids)
        else:
            order = np.lexsort((-weights, ids))
            ids, first = np.unique(ids[order], return_index=True)
            weights = weights[order][first].astype(np.float64)

        def look(here: Snapshot) -> np.ndarray:
            vectors, have = np.empty((len(ids), width), np.float16), np.zeros(len(ids), bool)
            for found, places in here.index.vectors.look_up(list(here.vectors), ids, ["vector"]):
                vectors[places] = vectors_of(found).reshape(-1, width)
                have[places] = True
            here._refuse_lost(ids[~have])
            return vectors

        return Documents(ids, self._read(look), weights)

    def _refuse_lost(self, ids: np.ndarray) -> None:
        """Forget the files in which these documents stand, so that the next run reads and encodes them again."""
        if not len(ids):
            return
        again = replace(self, vectors=tuple(self.index.vectors.there()))
        if again.vectors != self.vectors:
            raise GoneError("the vectors have been merged meanwhile")  # looked up anew by the caller
        some = ids.astype(str).tolist()
        paths = set(self.read(["path"], only=some)["path"].to_pylist())
        self.index.entries.delete(one.entry for one in self.taken if paths.intersection(one.live))
        raise LostError(
            f"the index {self.index.vectors_folder} has lost the vectors of {len(ids):,} documents, such as {some[0]} "
            f"in {min(paths)}. They are embedded again by gotd run."
        )
