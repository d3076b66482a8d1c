"""The versions that `gotd refresh` keeps side by side in a folder, and the pointer to the one that is published.

The pointer is written last, in one put: who follows it sees version N or N + 1, whole, and never a mixture.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.errors import UserError
from gotd_ray.results import PAGE, SUBSET

POINTER = "current.json"
"""In ``out``."""

FACTS = "refresh.json"
"""In a version: what has changed, written when all else is there."""

CHANGES_PAGE = "refresh.html"
"""In a version: the page of that."""


@dataclass(frozen=True)
class Pointer:
    """What is published; paths are relative to ``out``.

    Attributes:
        version: its number, from 1.
        changes_page: empty in the pointers of versions that had no such page.
        models: by stage, those in use, which may be an earlier version's.
        trained_in: the version that they were trained in; None where nothing is trained or judged.
        trained_as: a key over what that training was, but for the subset.
        precision: of ``encoder`` and ``model``, as the machine had it that made the version.
    """

    version: int
    subset: str
    report: str
    changes: str
    models: dict[str, str] = field(default_factory=dict)
    trained_in: int | None = None
    trained_as: str | None = None
    precision: dict[str, str | None] = field(default_factory=dict)
    published: str = ""
    changes_page: str = ""

    def check(self) -> None:
        """Make sure that it leads nowhere but into versions: it may have been written by others.

        Raises:
            ValueError: it does.
        """
        for number in (self.version, self.trained_in):
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"{number} is no version")
        for path in (self.subset, self.report, self.changes, self.changes_page, *self.models.values()):
            if path and (not path.startswith("versions/") or ".." in path.split("/") or "\\" in path):
                raise ValueError(f"{path} is in no version")


def named(number: int) -> str:
    """The name of a version's folder."""
    return f"{number:04d}"


def inside(number: int, *parts: str) -> str:
    """A path in a version, relative to ``out``."""
    return "/".join(("versions", named(number), *parts))


@dataclass(frozen=True)
class Versions:
    """All versions in one ``out``."""

    out: str
    storage: Storage

    def path(self, number: int, *parts: str) -> str:
        """A version's folder, or something in it."""
        return storage.join(self.out, inside(number, *parts))

    @property
    def pointer(self) -> str:
        """Where the pointer lies."""
        return storage.join(self.out, POINTER)

    def numbers(self) -> list[int]:
        """The versions that there are, whole or not."""
        names = storage.list_folders(storage.join(self.out, "versions"), self.storage)
        return sorted(int(name) for name in names if name.isdecimal())

    def current(self) -> Pointer | None:
        """What is published; None before the first version is.

        Raises:
            UserError: the pointer is damaged, or leads to a version that is gone.
        """
        data = storage.read_if_there(self.pointer, self.storage)
        if data is None:
            return None
        remedy = (
            f"or delete {POINTER}: the next refresh then makes a new version, and encodes only what the index lacks"
        )
        try:
            found = Pointer(**json.loads(data))
            found.check()
        except (ValueError, TypeError, AttributeError):
            raise UserError(
                f"{self.pointer} is damaged, or of another version of gotd_ray. Restore it, {remedy}."
            ) from None
        for path in (found.subset, found.changes):
            if not storage.exists(storage.join(self.out, path), self.storage):
                there = ", ".join(named(number) for number in self.numbers()) or "none"
                raise UserError(
                    f"{self.pointer} leads to version {named(found.version)}, which has no {path} any more (versions "
                    f"that are there: {there}). Restore that, {remedy}."
                )
        return found

    def next(self, last: Pointer | None) -> int:
        """The number of the version to be made: one that was begun and not published is gone on with."""
        if last:
            return last.version + 1
        newest = max(self.numbers(), default=1)
        return newest + storage.exists(self.path(newest, FACTS), self.storage)

    def publish(
        self, number: int, models: dict[str, str], trained: tuple[int, str] | None, precision: dict[str, str | None]
    ) -> Pointer:
        """Move the pointer to a version that is whole."""
        pointer = Pointer(
            version=number,
            subset=inside(number, "select", SUBSET),
            report=inside(number, "report", PAGE),
            changes=inside(number, FACTS),
            changes_page=inside(number, CHANGES_PAGE),
            models=models,
            trained_in=trained[0] if trained else None,
            trained_as=trained[1] if trained else None,
            precision=precision,
            published=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        storage.write_bytes(self.pointer, json.dumps(asdict(pointer), indent=1).encode(), self.storage)
        return pointer

    def prune(self, current: Pointer, keep: int) -> list[str]:
        """Delete older versions, but for the last ones and the one whose models are in use.

        Returns:
            Sentences to show: what could not be deleted.
        """
        old = [number for number in self.numbers() if number <= current.version - keep]
        told = []
        for number in old:
            if number != current.trained_in:
                try:
                    storage.delete_tree(self.path(number), self.storage)
                except UserError as error:
                    told.append(f"version {named(number)} is not needed any more, and could not be deleted: {error}")
        return told
