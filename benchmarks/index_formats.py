"""The storages that bench_index.py compares, each as one class: append, compact, read a range, look up, delete.

A row is doc_id (32 hex digits, random), tokens and a vector. Delta has no half floats: its vectors are bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from gotd_ray import storage
from gotd_ray.config import Storage

Rows = tuple[np.ndarray, np.ndarray]
"""Ids (n,) S32 and vectors (n, d) float16, in no particular order."""

ALL = ("0", "g")
"""Bounds around every id."""


def bounds(number: int, of: int) -> tuple[str, str]:
    """One of so many equal ranges of ids: low <= doc_id < high."""
    edges = [f"{part * 2**32 // of:08x}" if part < of else ALL[1] for part in (number, number + 1)]
    return edges[0], edges[1]


def fixed(ids: pa.ChunkedArray) -> np.ndarray:
    """Ids as (n,) S32."""
    column = ids.cast(pa.binary()).cast(pa.binary(32)).combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    start = column.offset * 32
    return np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * 32].view("S32")


def arrays(table: pa.Table) -> Rows:
    """Rows whose vectors are lists of half floats, or bytes."""
    column = table["vector"]
    if not len(table):
        return np.empty(0, "S32"), np.empty((0, 0), np.float16)
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        flat = pc.list_flatten(column)
        values = pa.concat_arrays(flat.chunks) if isinstance(flat, pa.ChunkedArray) else flat
        return fixed(table["doc_id"]), values.to_numpy(zero_copy_only=False).reshape(len(table), -1)
    whole = pa.concat_arrays(column.cast(pa.large_binary()).chunks)
    ends = np.frombuffer(whole.buffers()[1], np.int64)[whole.offset : whole.offset + len(whole) + 1]
    flat = np.frombuffer(whole.buffers()[2][ends[0] : ends[-1]], np.float16)
    return fixed(table["doc_id"]), flat.reshape(len(table), -1)


def with_bytes(table: pa.Table) -> pa.Table:
    """The same rows, their vectors as bytes of a fixed size."""
    flat = pc.list_flatten(table["vector"]).combine_chunks()
    data = flat.buffers()[1][flat.offset * 2 : (flat.offset + len(flat)) * 2]
    kind = pa.binary(len(flat) // len(table) * 2)
    vectors = pa.FixedSizeBinaryArray.from_buffers(kind, len(table), [None, data])
    return table.set_column(table.schema.get_field_index("vector"), "vector", vectors)


def joined(pieces: Sequence[Rows]) -> Rows:
    whole = [piece for piece in pieces if len(piece[0])]
    if not whole:
        return np.empty(0, "S32"), np.empty((0, 0), np.float16)
    return np.concatenate([ids for ids, _ in whole]), np.concatenate([vectors for _, vectors in whole])


def quoted(ids: Sequence[str]) -> str:
    return ", ".join(f"'{one}'" for one in ids)


@dataclass
class Format:
    """Where the rows are: a local folder, or s3://bucket/key with its endpoint; credentials are in the environment."""

    folder: str
    endpoint: str | None = None
    needs: ClassVar[tuple[str, ...]] = ()
    """Distributions to install besides what the package needs anyway; the first is imported."""

    def settings(self) -> Storage:
        return Storage(endpoint=self.endpoint)

    def options(self) -> dict[str, str] | None:
        """What the Rust clients of S3 are given."""
        if self.endpoint is None:
            return None
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
        given = {name: os.environ[name] for name in names}
        return given | {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ENDPOINT": self.endpoint, "AWS_ALLOW_HTTP": "true"}

    def append(self, table: pa.Table) -> None:
        raise NotImplementedError

    def compact(self) -> None:
        """Put small files together, leave large ones as they are, and delete what is no longer read."""
        raise NotImplementedError

    def read(self, low: str, high: str) -> Rows:
        raise NotImplementedError

    def look_up(self, ids: list[str]) -> Rows:
        raise NotImplementedError

    def delete(self, ids: list[str]) -> None:
        raise NotImplementedError

    def count(self) -> int:
        """Rows, those with equal ids once."""
        return len(set(self.read(*ALL)[0]))


class Lance(Format):
    """Fragments in the order of their writing; an index over doc_id where one was made."""

    needs = ("pylance", "lance-namespace", "lance-namespace-urllib3-client")

    def _open(self) -> Any:
        return import_module("lance").dataset(self.folder, storage_options=self.options())

    def append(self, table: pa.Table) -> None:
        import_module("lance").write_dataset(table, self.folder, mode="append", storage_options=self.options())

    def index(self) -> None:
        self._open().create_scalar_index("doc_id", "BTREE")

    def compact(self) -> None:
        dataset = self._open()
        dataset.optimize.compact_files(target_rows_per_fragment=max(1024, dataset.count_rows() // 20))
        dataset.optimize.optimize_indices()
        dataset.cleanup_old_versions(timedelta(0), delete_unverified=True)

    def by_ranges(self) -> None:
        """What Lance does not do by itself: write all rows anew, a fragment per range of ids, sorted."""
        old = self._open()
        for number in range(16):
            low, high = bounds(number, 16)
            rows = old.to_table(filter=f"doc_id >= '{low}' AND doc_id < '{high}'").sort_by("doc_id")
            import_module("lance").write_dataset(rows, self.folder, mode="append" if number else "overwrite")
        self.index()
        self._open().cleanup_old_versions(timedelta(0), delete_unverified=True)

    def read(self, low: str, high: str) -> Rows:
        wanted = f"doc_id >= '{low}' AND doc_id < '{high}'"
        return arrays(self._open().to_table(columns=["doc_id", "vector"], filter=wanted))

    def look_up(self, ids: list[str]) -> Rows:
        return arrays(self._open().to_table(columns=["doc_id", "vector"], filter=f"doc_id IN ({quoted(ids)})"))

    def delete(self, ids: list[str]) -> None:
        self._open().delete(f"doc_id IN ({quoted(ids)})")


class Delta(Format):
    """Partitioned by the first hex digit of the id: 16 ranges."""

    needs = ("deltalake", "arro3-core", "deprecated")

    def _open(self) -> Any:
        return import_module("deltalake").DeltaTable(self.folder, storage_options=self.options())

    def append(self, table: pa.Table) -> None:
        digits = pc.utf8_slice_codeunits(table["doc_id"], 0, 1)
        found = with_bytes(table)
        vectors = found["vector"].cast(pa.binary())
        rows = pa.table({"range": digits, "doc_id": found["doc_id"], "tokens": found["tokens"], "vector": vectors})
        write = import_module("deltalake").write_deltalake
        write(self.folder, rows, partition_by="range", mode="append", storage_options=self.options())

    def compact(self) -> None:
        table = self._open()
        held = sum(pa.table(table.get_add_actions())["size_bytes"].to_pylist())
        table.optimize.compact(target_size=max(1 << 20, held // 32))
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)

    def count(self) -> int:
        return int(self._open().count())

    def _rows(self, wanted: pc.Expression, digits: list[str]) -> Rows:
        found = self._open().to_pyarrow_dataset()
        inside = pc.field("range").isin(digits) & wanted
        return arrays(found.to_table(columns=["doc_id", "vector"], filter=inside))

    def read(self, low: str, high: str) -> Rows:
        digits = [digit for digit in "0123456789abcdef" if digit + "g" > low and digit.ljust(32, "0") < high]
        return self._rows((pc.field("doc_id") >= low) & (pc.field("doc_id") < high), digits)

    def look_up(self, ids: list[str]) -> Rows:
        return self._rows(pc.field("doc_id").isin(ids), sorted({one[0] for one in ids}))

    def delete(self, ids: list[str]) -> None:
        self._open().delete(f"doc_id IN ({quoted(ids)})")


class Parts(Format):
    """The layout of index version 3: parts of 2,048 documents, each sorted by id, every reader opens them all."""

    size = 2048

    def append(self, table: pa.Table) -> None:
        for start in range(0, len(table), self.size):
            sink = pa.BufferOutputStream()
            part = table.slice(start, self.size).sort_by("doc_id")
            pq.write_table(part, sink, row_group_size=256, compression="zstd")
            self._write(f"parts/{uuid.uuid4().hex}.parquet", sink.getvalue().to_pybytes())
        self._write(f"entries/{uuid.uuid4().hex}.json", b"{}")

    def _write(self, name: str, data: bytes) -> None:
        storage.write_bytes(storage.join(self.folder, name), data, self.settings())

    def _rows(self, wanted: pc.Expression) -> Rows:
        folder = storage.join(self.folder, "parts")
        names = [storage.join(folder, name) for name in storage.list_names(folder, self.settings())]
        filesystem, _ = storage.resolve(folder, self.settings())
        paths = [storage.resolve(name, self.settings())[1] for name in names]
        found = pads.dataset(paths, format="parquet", filesystem=filesystem)
        return arrays(found.to_table(columns=["doc_id", "vector"], filter=wanted))

    def read(self, low: str, high: str) -> Rows:
        return self._rows((pc.field("doc_id") >= low) & (pc.field("doc_id") < high))

    def look_up(self, ids: list[str]) -> Rows:
        return self._rows(pc.field("doc_id").isin(ids))


@dataclass(frozen=True)
class Run:
    """A set of rows that never changes, in parts by ranges of ids: (file, lowest id, highest id, rows)."""

    name: str
    level: int
    parts: tuple[tuple[str, str, str, int], ...]
    replaces: tuple[str, ...]


class Runs(Format):
    """Sorted files that never change, and a manifest for each run, written last; manifests are only ever added.

    The rows are those of the runs that no other run replaces. Sixteen runs of one level are merged into one of the
    next, whose name is made of theirs, so that two who merge the same write the same.
    """

    size = 65_536
    fan = 16
    group = 4_096

    def append(self, table: pa.Table) -> None:
        self._write(uuid.uuid4().hex, 0, [table.sort_by("doc_id")], ())
        while ready := self._ready():
            self._merge(ready)

    def _ready(self) -> list[Run]:
        """The first level that is full."""
        levels: dict[int, list[Run]] = {}
        for run in self._runs():
            levels.setdefault(run.level, []).append(run)
        return next((runs[: self.fan] for _, runs in sorted(levels.items()) if len(runs) >= self.fan), [])

    def compact(self) -> None:
        runs = self._runs()
        if len(runs) > 1:
            self._merge(runs)
        self._clean()

    def delete(self, ids: list[str]) -> None:
        self._merge(self._runs(), ids)
        self._clean()

    def _runs(self, replaced: bool = False) -> list[Run]:
        """All runs that are read, or all that are replaced, by name."""
        found = {}
        for name in storage.list_names(storage.join(self.folder, "runs"), self.settings()):
            with suppress(FileNotFoundError):  # replaced and deleted meanwhile
                raw = json.loads(storage.read_bytes(storage.join(self.folder, "runs", name), self.settings()))
                parts = tuple((part[0], part[1], part[2], part[3]) for part in raw["parts"])
                found[raw["name"]] = Run(raw["name"], raw["level"], parts, tuple(raw["replaces"]))
        gone = {name for run in found.values() for name in run.replaces}
        return [run for name, run in sorted(found.items()) if (name in gone) == replaced]

    def _merge(self, runs: Sequence[Run], without: Sequence[str] = ()) -> None:
        names = tuple(sorted(run.name for run in runs))
        rows = sum(part[3] for run in runs for part in run.parts)
        count = 1
        while rows > self.size * count:
            count *= 2
        files = {part[0]: self._file(part[0]) for run in runs for part in run.parts}
        gone = pa.array(without, pa.string())

        def pieces() -> Iterator[pa.Table]:
            for number in range(count):
                low, high = bounds(number, count)
                held = [
                    _between(files[part[0]], low, high, ["doc_id", "tokens", "vector"])
                    for run in runs
                    for part in run.parts
                    if part[1] < high and part[2] >= low
                ]
                table = pa.concat_tables(held)
                yield table.filter(pc.invert(pc.is_in(table["doc_id"], gone))).sort_by("doc_id")

        name = hashlib.blake2b("\n".join([*names, *without]).encode(), digest_size=16).hexdigest()
        self._write(name, max(run.level for run in runs) + 1, pieces(), names)

    def _write(self, name: str, level: int, pieces: Sequence[pa.Table] | Iterator[pa.Table], gone: Any) -> None:
        parts = []
        for number, piece in enumerate(pieces):
            if len(piece):
                sink = pa.BufferOutputStream()
                pq.write_table(piece, sink, self.group, compression="zstd", use_dictionary=False)
                file = f"{name}-{number}.parquet"
                path = storage.join(self.folder, "parts", file)
                storage.write_bytes(path, sink.getvalue().to_pybytes(), self.settings())
                parts.append((file, piece["doc_id"][0].as_py(), piece["doc_id"][-1].as_py(), len(piece)))
        raw = {"name": name, "level": level, "parts": parts, "replaces": gone}
        path = storage.join(self.folder, "runs", f"{name}.json")
        storage.write_bytes(path, json.dumps(raw).encode(), self.settings())

    def _clean(self) -> None:
        for run in sorted(self._runs(replaced=True), key=lambda run: run.level):  # what it replaced goes before it
            for part in run.parts:
                storage.delete_tree(storage.join(self.folder, "parts", part[0]), self.settings())
            storage.delete_tree(storage.join(self.folder, "runs", f"{run.name}.json"), self.settings())

    def _file(self, name: str) -> pq.ParquetFile:
        filesystem, path = storage.resolve(storage.join(self.folder, "parts", name), self.settings())
        return pq.ParquetFile(filesystem.open_input_file(path), pre_buffer=True)

    def read(self, low: str, high: str) -> Rows:
        parts = [part for run in self._runs() for part in run.parts if part[1] < high and part[2] >= low]
        columns = ["doc_id", "vector"]
        return joined([arrays(_between(self._file(part[0]), low, high, columns)) for part in parts])

    def look_up(self, ids: list[str]) -> Rows:
        wanted = sorted(ids)
        pieces = []
        for part in (part for run in self._runs() for part in run.parts):
            file = self._file(part[0])
            spans = [(bisect_left(wanted, low), bisect_right(wanted, high)) for low, high in _ranges(file)]
            groups = [number for number, (start, end) in enumerate(spans) if start < end]
            some = wanted[spans[0][0] : spans[-1][1]]
            table = file.read_row_groups(groups, ["doc_id", "vector"])
            pieces.append(arrays(table.filter(pc.is_in(table["doc_id"], pa.array(some, pa.string())))))
        return joined(pieces)


class RunsOfBytes(Runs):
    """The same, but that vectors are bytes of a fixed size: no list to take apart, and no half floats to see."""

    def append(self, table: pa.Table) -> None:
        super().append(with_bytes(table))


def _ranges(file: pq.ParquetFile) -> list[tuple[str, str]]:
    """The lowest and the highest id of each row group."""
    found = [file.metadata.row_group(number).column(0).statistics for number in range(file.num_row_groups)]
    return [(statistics.min, statistics.max) for statistics in found]


def _between(file: pq.ParquetFile, low: str, high: str, columns: list[str]) -> pa.Table:
    """The rows of a sorted file with low <= doc_id < high."""
    groups = [number for number, (least, most) in enumerate(_ranges(file)) if least < high and most >= low]
    table = file.read_row_groups(groups, columns)
    if not len(table):
        return table
    ids = fixed(table["doc_id"])
    start, end = np.searchsorted(ids, [low.encode(), high.encode()])
    return table.slice(start, end - start)


FORMATS: dict[str, type[Format]] = {
    "lance": Lance,
    "delta": Delta,
    "runs": Runs,
    "runs-bytes": RunsOfBytes,
    "parts": Parts,
}
