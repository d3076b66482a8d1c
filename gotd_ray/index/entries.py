"""Entries: which corpus files the index has read, and what came of each. JSON, one for a unit of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.index.parts import Part
from gotd_ray.listing import StoredFile


@dataclass(frozen=True)
class Entry:
    """Files that were read together, or whose rows were merged."""

    name: str
    files: tuple[StoredFile, ...]
    parts: tuple[Part, ...]
    """Where their rows are."""

    tallies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By uri, what was read of each file whose rows are in the parts, see :class:`gotd_ray.text.tally.Tally`. Files
    that are not among ``files`` broke off, and their rows are not to be read."""

    bad_files: tuple[dict[str, str], ...] = ()
    """Files that cannot be read whole: uri, reason, detail."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self) | {"parts": [part.name for part in self.parts]}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Entry:
        """Raises ValueError, TypeError, KeyError or AttributeError where it is none."""
        raw = json.loads(data)
        files = tuple(StoredFile(**file) for file in raw.pop("files"))
        parts = [Part.named(name) for name in raw.pop("parts")]
        if None in parts:
            raise ValueError("a part's name is none")
        return cls(files=files, parts=tuple(filter(None, parts)), bad_files=tuple(raw.pop("bad_files")), **raw)

    def rows(self, uri: str) -> int:
        """Documents of a file, those with equal text counted each time."""
        return self.tallies[uri]["documents"] if uri in self.tallies else 0

    @property
    def size(self) -> int:
        """Rows of its parts."""
        return sum(part.rows for part in self.parts)


def entry_name(files: Iterable[StoredFile]) -> str:
    """The name of the entry that covers these files as they are now."""
    text = "\n".join(f"{file.uri}\t{file.size}\t{file.modified}" for file in files)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


@dataclass(frozen=True)
class Taken:
    """An entry and those of its files that are still part of the corpus."""

    entry: Entry
    live: tuple[str, ...]

    @property
    def dead(self) -> list[str]:
        """Its files that are not, and have rows."""
        return sorted({uri for uri in self.entry.tallies if self.entry.rows(uri)} - set(self.live))


@dataclass(frozen=True)
class Entries:
    """A folder of entries. An entry that is damaged, or one of whose parts is gone, is none: its files are read again.

    Several may cover a file: two runs at the same time, or a merge that has not deleted what it merged yet.
    """

    folder: str
    storage: Storage

    def whole(self, parts: Iterable[Part]) -> list[Entry]:
        """Those whose parts are among these, the largest first."""
        names = storage.list_names(self.folder, self.storage)
        with ThreadPoolExecutor(16) as pool:
            found = [entry for entry in pool.map(self._read, names) if entry]
        there = set(parts)
        return sorted((one for one in found if there.issuperset(one.parts)), key=lambda one: (-one.size, one.name))

    def _read(self, name: str) -> Entry | None:
        """None where it was deleted meanwhile, or is damaged."""
        try:
            return Entry.from_json(storage.read_bytes(storage.join(self.folder, name), self.storage))
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _path(self, entry: Entry) -> str:
        return storage.join(self.folder, f"{entry.name}.json")

    def commit(self, entry: Entry) -> None:
        storage.write_bytes(self._path(entry), entry.to_json(), self.storage)

    def delete(self, entries: Iterable[Entry]) -> None:
        """No error where one is gone."""
        for entry in entries:
            storage.delete_tree(self._path(entry), self.storage)


def take(entries: Iterable[Entry], files: Iterable[StoredFile]) -> tuple[tuple[Taken, ...], list[StoredFile]]:
    """The entries that cover these files, each file once, and the files that none covers."""
    wanted = set(files)
    taken = []
    for entry in entries:
        live = [file for file in entry.files if file in wanted]
        wanted.difference_update(live)
        if live:
            taken.append(Taken(entry, tuple(file.uri for file in live)))
    return tuple(taken), sorted(wanted, key=lambda file: file.uri)
