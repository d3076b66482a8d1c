"""Parts: immutable Parquet files sorted by id, each of a range of ids, in one folder.

    <run>-<low>-<high>-<rows>-<digest>.parquet

A *run* of parts is what was written together: one part by a reader or an encoder, many by a merge. Parts are only ever
added, whole or not at all, and deleted when a merge has written what they held. So nothing is locked, and no storage
needs to know conditional writes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.index.columns import damaged, ids_of

ROW_GROUP = 1024
"""Rows of a row group: what is read at least to look some ids up."""

PART_ROWS = 65_536
"""Rows of a part that a merge writes, at the most: 50 MB of float16 vectors of 384 numbers."""

MERGED = 64
"""Parts that one task of a merge opens."""

READERS = 8
"""Parts read at a time."""

LOOKS = 3
"""Times that a reader looks anew at what is there, where another run merges parts away before it has read them."""

_NAME = re.compile(r"([0-9a-f]+)-([0-9a-f]{32})-([0-9a-f]{32})-([0-9]+)-([0-9a-f]{16})\.parquet")


@dataclass(frozen=True)
class Part:
    """A file, as its name tells.

    Attributes:
        run: what it was written with.
        low, high: the first id and the last.
        rows: how many.
        digest: of what it holds.
    """

    run: str
    low: str
    high: str
    rows: int
    digest: str

    @property
    def name(self) -> str:
        return f"{self.run}-{self.low}-{self.high}-{self.rows}-{self.digest}.parquet"

    @classmethod
    def named(cls, name: str) -> Part | None:
        """None: that is no part's name."""
        found = _NAME.fullmatch(name)
        return cls(found[1], found[2], found[3], int(found[4]), found[5]) if found else None

    @classmethod
    def of(cls, run: str, table: pa.Table) -> Part:
        """The part of these rows, in any order: equal names mean equal rows, for vectors depend on ids."""
        digest, columns = hashlib.blake2b(digest_size=8), [name for name in table.column_names if name != "vector"]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.select(columns).schema) as writer:
            writer.write_table(table.select(columns).combine_chunks())
        digest.update(sink.getvalue())
        ends = pc.min_max(table["doc_id"])
        return cls(run, ends["min"].as_py(), ends["max"].as_py(), len(table), digest.hexdigest())

    def meets(self, low: bytes | None, high: bytes | None) -> bool:
        """Whether it may hold an id with low <= id < high; None is no bound."""
        return (high is None or self.low.encode() < high) and (low is None or self.high.encode() >= low)


@dataclass(frozen=True)
class Parts:
    """A folder of parts."""

    folder: str
    storage: Storage

    def there(self) -> list[Part]:
        """All that are there, by name."""
        names = storage.list_names(self.folder, self.storage)
        return [part for name in names if (part := Part.named(name))]

    def path(self, part: Part) -> str:
        return storage.join(self.folder, part.name)

    def write(self, part: Part, table: pa.Table) -> None:
        """Write a part whole or not at all, sorted by id."""
        sink, ids = pa.BufferOutputStream(), ids_of(table)
        # Numbers of a vector neither repeat nor shrink: to try is what most of the time would go into.
        repeating = [name for name in table.column_names if name not in ("doc_id", "vector")]
        pq.write_table(
            table if (ids[:-1] <= ids[1:]).all() else table.sort_by("doc_id"),
            sink,
            row_group_size=ROW_GROUP,
            compression="none" if "vector" in table.column_names else "zstd",
            use_dictionary=repeating,
            write_statistics=["doc_id"],
        )
        storage.write_bytes(self.path(part), sink.getvalue().to_pybytes(), self.storage)

    def delete(self, parts: Iterable[Part]) -> None:
        """No error where one is gone."""
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda part: storage.delete_tree(self.path(part), self.storage), parts))

    def open(self, part: Part) -> pq.ParquetFile:
        """Raises GoneError or UserError: it is not there, or damaged."""
        path = self.path(part)
        filesystem, key = storage.resolve(path, self.storage)
        try:
            return pq.ParquetFile(filesystem.open_input_file(key), pre_buffer=True)
        except FileNotFoundError as error:
            raise damaged(error) from None
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged(OSError(f"{path}: {error}")) from None

    def between(self, part: Part, low: bytes | None, high: bytes | None) -> pa.Table:
        """Its rows with low <= id < high, sorted by id; row groups without any are not read."""
        file = self.open(part)
        held = ids_of(file.read(["doc_id"]))
        start = np.searchsorted(held, low) if low is not None else 0
        stop = np.searchsorted(held, high) if high is not None else len(held)
        starts = _starts(file, range(file.num_row_groups))
        groups = [i for i in range(file.num_row_groups) if starts[i] < stop and starts[i + 1] > start]
        table = file.read_row_groups(groups)
        return table.slice(start - starts[groups[0]], stop - start) if groups else table

    def ids(self, parts: list[Part]) -> Iterator[np.ndarray]:
        """Of each part (n,) S32, sorted."""
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(lambda part: ids_of(self.open(part).read(["doc_id"])), parts)

    def look_up(self, parts: list[Part], ids: np.ndarray, columns: list[str]) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """The rows of some documents, part by part: a table, and where its rows' ids stand among those asked for.

        A document that is in several parts comes several times. Only row groups that hold one are read.

        Args:
            parts: those that are looked at.
            ids: (n,) S32, sorted, each once.
        """
        if not len(ids):
            return
        low, high = bytes(ids[0]), bytes(ids[-1]) + b"\0"
        some = [part for part in parts if part.meets(low, high)]
        with ThreadPoolExecutor(READERS) as pool:
            # Not all at once: what is read waits in memory until it is taken.
            for start in range(0, len(some), READERS):
                yield from pool.map(lambda part: self._matching(part, ids, columns), some[start : start + READERS])

    def _matching(self, part: Part, ids: np.ndarray, columns: list[str]) -> tuple[pa.Table, np.ndarray]:
        """The rows of a part that are asked for, and where their ids stand among those asked for."""
        file = self.open(part)
        held = ids_of(file.read(["doc_id"]))
        place = np.minimum(np.searchsorted(ids, held), len(ids) - 1)
        hits = np.flatnonzero(ids[place] == held)
        starts = _starts(file, range(file.num_row_groups))
        groups, group_of = np.unique(np.searchsorted(starts, hits, side="right") - 1, return_inverse=True)
        table = file.read_row_groups(groups.tolist(), columns)
        rows = hits - starts[groups][group_of] + _starts(file, groups.tolist())[group_of]
        return table if len(rows) == len(table) else table.take(pa.array(rows)), place[hits]


def _starts(file: pq.ParquetFile, groups: Iterable[int]) -> np.ndarray:
    """The first row of each of some row groups that are read one after the other, and the number of all."""
    return np.cumsum([0] + [file.metadata.row_group(i).num_rows for i in groups])
