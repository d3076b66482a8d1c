"""The index: the embedded corpus on disk, shared between runs. Plain Parquet and JSON, no text.

    <folder>/entries/<name>.json            one per unit of work: the corpus files it covers; written last
    <folder>/parts/<name>-<part>.parquet    its documents: address, size and vector

An entry covers whole corpus files as they were (address, size, time of change). A file that changed is covered anew
by another entry, and its old rows are no longer read. So adding files costs a listing and the new files.

An entry whose file is damaged, or one of whose parts is gone, covers nothing: its files are embedded again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from gotd_ray import storage
from gotd_ray.config import Storage, Text
from gotd_ray.errors import UserError, said_by
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import source_of

VERSION = 3
"""Raised when equal settings give other rows."""

ROW_GROUP = 256
"""Rows of a row group. Parts are sorted by id, so a reader of a range of ids skips most groups of a part."""


@dataclass(frozen=True)
class Entry:
    """What one unit of work embedded."""

    name: str
    files: tuple[StoredFile, ...]
    parts: tuple[str, ...]
    """Names of its parts."""

    tallies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By uri, what was read of each file whose rows are in the parts, see :class:`gotd_ray.text.tally.Tally`. Files
    that are not among ``files`` broke off, and their rows are not to be read."""

    bad_files: tuple[dict[str, str], ...] = ()
    """Files that cannot be read whole: uri, reason, detail."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Entry:
        raw = json.loads(data)
        files = tuple(StoredFile(**file) for file in raw.pop("files"))
        return cls(files=files, parts=tuple(raw.pop("parts")), bad_files=tuple(raw.pop("bad_files")), **raw)

    def rows(self, uri: str) -> int:
        """Documents of a file, those with equal text counted each time."""
        return self.tallies[uri]["documents"] if uri in self.tallies else 0


def entry_name(files: Iterable[StoredFile]) -> str:
    """The name of the entry that covers these files as they are now."""
    text = "\n".join(f"{file.uri}\t{file.size}\t{file.modified}" for file in files)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def part_name(entry: str, documents: Iterable[tuple[Any, ...]]) -> str:
    """The name of an entry's part that holds these documents: equal names mean equal rows."""
    digest = hashlib.blake2b(digest_size=8)
    for document in documents:
        digest.update(repr(document).encode("utf-8", "backslashreplace"))
    return f"{entry}-{digest.hexdigest()}.parquet"


def entry_of(part: str) -> str:
    """The entry that a part belongs to, by its name."""
    return part.partition("-")[0]


@dataclass(frozen=True)
class Index:
    """A folder of entries and parts."""

    folder: str
    storage: Storage

    def entries(self) -> list[Entry]:
        """All committed entries that are whole, by name."""
        names = storage.list_names(storage.join(self.folder, "entries"), self.storage)
        paths = [storage.join(self.folder, "entries", name) for name in sorted(names) if name.endswith(".json")]
        with ThreadPoolExecutor(16) as pool:
            found = [entry for entry in pool.map(self._entry, paths) if entry]
        parts = self.part_names() if found else set()
        return [entry for entry in found if parts.issuperset(entry.parts)]

    def _entry(self, path: str) -> Entry | None:
        """None where it was deleted meanwhile, or is damaged."""
        try:
            return Entry.from_json(storage.read_bytes(path, self.storage))
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def part_names(self) -> set[str]:
        """Parts that exist, committed or not: what a killed run has already done."""
        return set(storage.list_names(storage.join(self.folder, "parts"), self.storage))

    def write_part(self, name: str, table: pa.Table) -> None:
        """Write a part whole or not at all; sorted by id, so that ranges of ids can be read."""
        sink = pa.BufferOutputStream()
        pq.write_table(table.sort_by("doc_id"), sink, row_group_size=ROW_GROUP, compression="zstd")
        path = storage.join(self.folder, "parts", name)
        storage.write_bytes(path, sink.getvalue().to_pybytes(), self.storage)

    def commit(self, entry: Entry) -> None:
        storage.write_bytes(storage.join(self.folder, "entries", f"{entry.name}.json"), entry.to_json(), self.storage)

    def snapshot(self, files: Iterable[StoredFile]) -> tuple[Snapshot, list[StoredFile]]:
        """The rows of these files as they are now, and the files that no entry covers yet."""
        wanted = set(files)
        taken = []
        for entry in self.entries():
            live = [file for file in entry.files if file in wanted]
            wanted.difference_update(live)
            if live:
                taken.append(Taken(entry, tuple(file.uri for file in live)))
        return Snapshot(self.folder, tuple(taken)), sorted(wanted, key=lambda file: file.uri)


@dataclass(frozen=True)
class Taken:
    """An entry and those of its files that are still part of the corpus."""

    entry: Entry
    live: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every row of the parts is of a live file."""
        return {uri for uri in self.entry.tallies if self.entry.rows(uri)} <= set(self.live)


@dataclass(frozen=True)
class Snapshot:
    """The rows of the index that belong to one corpus at one time."""

    folder: str
    taken: tuple[Taken, ...]

    @property
    def rows(self) -> int:
        """Documents, those with equal text counted each time."""
        return sum(taken.entry.rows(uri) for taken in self.taken for uri in taken.live)

    def read(
        self,
        columns: list[str],
        settings: Storage,
        low: bytes | None = None,
        high: bytes | None = None,
        only: list[str] | None = None,
    ) -> pa.Table:
        """Rows with low <= doc_id < high, or ``only`` those ids of them, in no particular order.

        Documents that stand in the corpus several times are as many rows.
        """
        tables = []
        wanted = id_range(low, high)
        if only is not None:
            wanted = wanted & pc.field("doc_id").isin(pa.array(only, pa.string()))
        whole = [taken for taken in self.taken if taken.whole]
        if paths := [path for taken in whole for path in self._parts(taken)]:
            tables.append(scan(paths, columns, wanted, settings))
        tables += [
            scan(paths, columns, wanted & pc.field("path").isin(list(taken.live)), settings)
            for taken in self.taken
            if not taken.whole and (paths := self._parts(taken))
        ]
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table().select(columns)

    def _parts(self, taken: Taken) -> list[str]:
        return [storage.join(self.folder, "parts", name) for name in taken.entry.parts]


@dataclass(frozen=True)
class Collection:
    """The files of the corpus, the target, the contrast or the reference, and the index that holds their vectors."""

    text: Text
    files: list[StoredFile]
    index: Index
    passed_over: tuple[str, ...] = ()
    """What the listing passed over, in words."""

    def key(self) -> Any:
        """What the rows depend on: the index, and each file as it is now."""
        return [self.index.folder, [(file.uri, file.size, file.modified) for file in self.files]]

    def without(self, sources: Sequence[str]) -> tuple[Text, list[StoredFile]]:
        """What is left without some sources: files where these name the source, so that the index stays; else rows."""
        text = self.text
        if text.source_column is None:
            return text, [file for file in self.files if source_of(file.uri, text.source_from) not in sources]
        left_out = sorted({*text.exclude_sources, *sources})
        return text.model_copy(update={"exclude_sources": left_out}) if sources else text, self.files


@dataclass(frozen=True)
class Embedded:
    """The vectors of one run."""

    candidates: Snapshot
    target: Snapshot
    width: int
    """Numbers in a vector."""

    contrast: Snapshot | None = None
    """The unwanted target."""


@dataclass(frozen=True)
class Vectors:
    """What embed leaves for the stages after it, which read its rows when they run.

    Attributes:
        embedded: the key of that stage.
        collections: the sets, by name.
        unreached: addresses of files that could not be reached.
        width: numbers in a vector.
    """

    embedded: str
    collections: dict[str, Collection]
    unreached: frozenset[str]
    width: int

    def key(self) -> Any:
        """What the rows depend on."""
        return [self.embedded, sorted(self.unreached)]

    def reached(self) -> dict[str, Collection]:
        """The sets without the files that could not be reached."""
        return {
            name: replace(collection, files=[file for file in collection.files if file.uri not in self.unreached])
            for name, collection in self.collections.items()
        }

    def read(self, candidates: str = "corpus") -> Embedded:
        """The rows as they lie in the index.

        Args:
            candidates: the set that is fitted over or scored.

        Raises:
            UserError: the index has lost some.
        """
        rows = {}
        for name, found in self.reached().items():
            rows[name], missing = found.index.snapshot(found.files)
            if missing:
                raise UserError(
                    f"the index {found.index.folder} lacks the vectors of {len(missing):,} of {len(found.files):,} "
                    f"files of the {name}, such as {missing[0].uri}: gotd run embeds them again."
                )
        return Embedded(rows[candidates], rows["target"], self.width, rows.get("contrast"))


SCHEMA = pa.schema(
    {
        "doc_id": pa.string(),
        "source": pa.string(),
        "path": pa.string(),
        "row": pa.int64(),
        "chunk": pa.int32(),
        "chars": pa.int32(),
        "tokens": pa.int32(),
        "weight": pa.float32(),
        "vector": pa.list_(pa.float16()),
    }
)
"""Columns of a part. On disk the vector is a list of fixed size; its size is the encoder's."""


def id_range(low: bytes | None, high: bytes | None) -> pc.Expression:
    """Whether low <= doc_id < high; None is no bound."""
    inside = pc.scalar(True)
    if low is not None:
        inside = inside & (pc.field("doc_id") >= low.decode())
    if high is not None:
        inside = inside & (pc.field("doc_id") < high.decode())
    return inside


def scan(paths: list[str], columns: list[str], wanted: pc.Expression, settings: Storage) -> pa.Table:
    """The rows wanted of some Parquet files, in no particular order; row groups without any are not read.

    Raises:
        UserError: one of them is gone or damaged.
    """
    filesystem, _ = storage.resolve(paths[0], settings)
    keys = [storage.resolve(path, settings)[1] for path in paths]
    try:
        return pads.dataset(keys, format="parquet", filesystem=filesystem).to_table(columns=columns, filter=wanted)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"a result of an earlier stage cannot be read: {said_by(error)}. If the storage answers, "
            "delete that file and run again: what is missing is made anew."
        ) from None


def table_of(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file in memory, with its metadata.

    Not by ``pq.read_table``: its threads may let go of the Python bytes while the interpreter ends, which aborts it.
    """
    return pq.ParquetFile(io.BytesIO(data)).read(columns)


def ids_of(table: pa.Table) -> np.ndarray:
    """The doc_id column as (n,) S32, without a Python string per row."""
    column = table["doc_id"].cast(pa.binary()).cast(pa.binary(32)).combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(column):
        return np.empty(0, "S32")
    data = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * 32 : (column.offset + len(column)) * 32]
    return data.view("S32")


def weights_of(table: pa.Table) -> np.ndarray | None:
    """The weight column as (n,) float32, or None where all are 1."""
    weights = table["weight"].to_numpy()
    return None if (weights == 1).all() else weights


def vectors_of(table: pa.Table) -> np.ndarray:
    """The vector column as (n, d) float16."""
    if not len(table):
        return np.empty((0, 0), np.float16)
    flat = pc.list_flatten(table["vector"])
    values = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float16).reshape(len(table), -1)
