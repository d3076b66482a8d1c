"""Merges: many small parts become few large ones, each of a range of ids, so that a shard opens what is its own.

A run of parts is merged with all that are smaller once these together are more than half as many rows. So there are at
most as many runs as the number of rows has binary digits, and a row is written again about as often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd_ray.index.columns import ids_of
from gotd_ray.index.entries import Entry, Taken
from gotd_ray.index.parts import Part, Parts
from gotd_ray.index.snapshot import Index, Snapshot
from gotd_ray.listing import StoredFile

PART_BYTES = 64 << 20
"""Of a merged part, before compression."""

ROW_BYTES = 128
"""Of a row without a vector, about."""

TASK_PARTS = 2
"""Merged parts that one task writes: their rows are in its memory two or three times."""

FAN_IN = 64
"""Runs that are merged at once: a task opens a part or two of each."""


@dataclass(frozen=True)
class Run:
    """Parts that were written together.

    Attributes:
        dead: files whose rows are left out.
    """

    parts: tuple[Part, ...]
    dead: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def name(self) -> str:
        return self.parts[0].run


@dataclass(frozen=True)
class Merge:
    """What one task does: the rows of some runs with low <= id < high become parts of a new run.

    Attributes:
        rows: of a part, at the most.
        once: whether equal ids are one row.
    """

    place: Parts
    name: str
    runs: tuple[Run, ...]
    low: bytes
    high: bytes
    rows: int
    once: bool


Do = Callable[[list[Merge]], Iterable[list[Part]]]
"""Does some merges, here or elsewhere; in their order, the parts that were written."""


def merge(one: Merge) -> list[Part]:
    """Write the parts of a merge. The same bytes each time, and in whatever order the runs come.

    Raises:
        GoneError or UserError: a part is not there, or damaged.
    """
    tables = []
    for run in one.runs:
        for part in run.parts:
            table = one.place.between(part, one.low, one.high)
            if run.dead:
                table = table.filter(pc.invert(pc.is_in(table["path"], pa.array(sorted(run.dead), pa.string()))))
            tables.append(table)
    table = pa.concat_tables(tables) if tables else pa.table({"doc_id": pa.array([], pa.string())})
    if one.once:
        table = table.take(pa.array(np.unique(ids_of(table), return_index=True)[1]))
    else:
        names = [name for name in ("doc_id", "path", "row", "chunk") if name in table.column_names]
        table = table.sort_by([(name, "ascending") for name in names])
    size = -(-len(table) // max(1, -(-len(table) // one.rows))) if len(table) else 1
    written = []
    for start in range(0, len(table), size):
        some = table.slice(start, size)
        part = Part.of(one.name, some)
        one.place.write(part, some)
        written.append(part)
    return written


def due(sizes: Sequence[int]) -> int:
    """How many of the smallest runs are to be merged.

    Args:
        sizes: rows of each run, ascending.
    """
    below, many = 0, 0
    for number, size in enumerate(sizes):
        if number and size < 2 * below:
            many = number + 1
        below += size
    return many


def merged(place: Parts, runs: Sequence[Run], do: Do, row_bytes: int, once: bool) -> list[Part]:
    """Merge runs into one, a number of them at a time, and return its parts. What was merged stays where it is.

    Args:
        row_bytes: of a row, about.
    """
    first, passing = {part for run in runs for part in run.parts}, list(runs)
    rows = max(1, PART_BYTES // row_bytes)
    while True:
        groups = [tuple(passing[start : start + FAN_IN]) for start in range(0, len(passing), FAN_IN)]
        work = [one for group in groups for one in _ranges(place, group, rows, once)]
        written: dict[str, list[Part]] = {}
        for one, parts in zip(work, do(work), strict=True):
            written.setdefault(one.name, []).extend(parts)
        place.delete(part for run in passing for part in run.parts if part not in first)
        passing = [Run(tuple(parts)) for parts in written.values() if parts]
        if len(passing) <= 1:
            return [part for run in passing for part in run.parts]


def _ranges(place: Parts, runs: tuple[Run, ...], rows: int, once: bool) -> list[Merge]:
    """The tasks that make one run of some. Ids are hashes, so equal ranges hold about as many rows."""
    many = max(1, -(-sum(run.rows for run in runs) // (TASK_PARTS * rows)))
    ends = [f"{(number << 128) // many:032x}".encode() for number in range(many)] + [b"g"]
    said = "\n".join(f"{part.name} {sorted(run.dead)}" for run in runs for part in run.parts)
    name = hashlib.blake2b(said.encode(), digest_size=10).hexdigest()
    return [Merge(place, name, _between(runs, low, high), low, high, rows, once) for low, high in pairwise(ends)]


def _between(runs: tuple[Run, ...], low: bytes, high: bytes) -> tuple[Run, ...]:
    """What of them a task opens."""
    met = (replace(run, parts=tuple(part for part in run.parts if part.meets(low, high))) for run in runs)
    return tuple(run for run in met if run.parts)


def merge_vectors(place: Parts, width: int, do: Do) -> int:
    """Merge what is due of the vectors; the number of runs that were merged.

    A merge that was killed leaves parts that hold what others hold too: that is no fault, and the next one takes them.
    """
    found: dict[str, list[Part]] = {}
    for part in place.there():
        found.setdefault(part.run, []).append(part)
    runs = sorted((Run(tuple(parts)) for parts in found.values()), key=lambda run: (run.rows, run.name))
    some = runs[: due([run.rows for run in runs])]
    if some:
        kept = set(merged(place, some, do, ROW_BYTES + 2 * width, once=True))
        place.delete(part for run in some for part in run.parts if part not in kept)
    return len(some)


def merge_rows(snapshot: Snapshot, listed: Sequence[StoredFile], paths: Sequence[str], do: Do) -> int:
    """Merge what is due of the rows, without those of files that have gone; the number of entries that were merged.

    Args:
        snapshot: of the files that are read.
        listed: all that there are now.
        paths: by which they were listed.
    """
    index, now = snapshot.index, _Now(listed, paths)
    covering = {one.entry.name for one in snapshot.taken}
    live = {file for one in snapshot.taken for file in one.entry.files if file.uri in one.live}

    def is_settled(file: StoredFile) -> bool:
        return file in live or now.is_gone(file)

    idle = [one for one in index.committed() if one.name not in covering and all(map(is_settled, one.files))]
    _forget(index, idle)
    taken = sorted(snapshot.taken, key=lambda one: (_live(one), one.entry.name))
    many = due([_live(one) for one in taken])
    # What is half dead is written anew in any case.
    some = taken[:many] + [one for one in taken[many:] if 2 * _live(one) < one.entry.size]
    some = [one for one in some if all(map(is_settled, one.entry.files))]
    if not some:
        return 0
    runs = [Run(one.entry.parts, frozenset(one.dead)) for one in some if one.entry.parts]
    parts = merged(index.rows, runs, do, ROW_BYTES, once=False) if runs else []
    index.entries.commit(_sum(some, parts))
    _forget(index, [one.entry for one in some])
    return len(some)


def _forget(index: Index, entries: Sequence[Entry]) -> None:
    """Delete entries and the parts that no other has: rows merged again after a loss are in parts of the same name."""
    if entries:
        index.entries.delete(entries)
        kept = {part for one in index.committed() for part in one.parts}
        index.rows.delete(part for one in entries for part in one.parts if part not in kept)


def _live(one: Taken) -> int:
    return sum(one.entry.rows(uri) for uri in one.live)


def _sum(some: Sequence[Taken], parts: list[Part]) -> Entry:
    """The entry of what the live files of some have become."""
    files = sorted(
        (file for one in some for file in one.entry.files if file.uri in one.live), key=lambda file: file.uri
    )
    tallies = {uri: one.entry.tallies[uri] for one in some for uri in one.live if uri in one.entry.tallies}
    bad = [bad for one in some for bad in one.entry.bad_files if bad["uri"] in one.live]
    said = "\n".join([*(one.entry.name for one in some), *map(repr, files)])
    name = hashlib.blake2b(said.encode(), digest_size=10).hexdigest()
    return Entry(name, tuple(files), tuple(parts), tallies, tuple(bad))


@dataclass
class _Now:
    """What a listing says of files that were read before."""

    listed: Sequence[StoredFile]
    paths: Sequence[str]
    _there: set[StoredFile] = field(init=False)
    _uris: set[str] = field(init=False)
    _folders: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._there, self._uris = set(self.listed), {file.uri for file in self.listed}
        self._folders = tuple(f"{path.rstrip('/')}/" for path in self.paths)

    def is_gone(self, file: StoredFile) -> bool:
        """Whether it has changed, or has gone from a folder that is listed whole. Any other may be in use: by another
        set, or another run with the same settings."""
        return file not in self._there and (file.uri in self._uris or file.uri.startswith(self._folders))
