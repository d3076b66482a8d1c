"""The sets of a run, and the vectors that embed leaves of them for the stages after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gotd_ray.config import Text
from gotd_ray.errors import UserError
from gotd_ray.index.snapshot import Index, Snapshot
from gotd_ray.listing import StoredFile
from gotd_ray.text.documents import source_of


@dataclass(frozen=True)
class Collection:
    """The files of the corpus, the target, the contrast or the reference, and the index that holds their vectors."""

    text: Text
    files: list[StoredFile]
    index: Index
    listed: tuple[StoredFile, ...] = ()
    """All that its paths name, with those of sources that are left out."""

    passed_over: tuple[str, ...] = ()
    """What the listing passed over, in words."""

    kept: str | None = None
    """The file of the ids that its rows are left to, see :mod:`gotd_ray.index.kept`; None: all of its documents."""

    def key(self) -> Any:
        """What the rows depend on: the index, and each file as it is now."""
        return [
            self.index.rows_folder,
            self.index.vectors_folder,
            [(file.uri, file.size, file.modified) for file in self.files],
        ]

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
            rows[name], missing = found.index.all_of(found.files)
            if missing:
                raise UserError(
                    f"the index {found.index.rows_folder} lacks {len(missing):,} of {len(found.files):,} files of the "
                    f"{name}, such as {missing[0].uri}: gotd run embeds them again."
                )
        return Embedded(rows[candidates], rows["target"], self.width, rows.get("contrast"))
