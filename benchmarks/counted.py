"""An index that writes down each opening of a part of its vectors, in whatever process: exact, where inotify is not."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from gotd_ray.index import Index, Part, Parts


class CountedParts(Parts):
    def open(self, part: Part) -> pq.ParquetFile:
        # Short lines that are appended are whole, whoever else appends.
        log = os.open(f"{self.folder}.opened", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, f"{part.name}\n".encode())
        os.close(log)
        return super().open(part)


class CountedIndex(Index):
    @property
    def vectors(self) -> Parts:
        return CountedParts(super().vectors.folder, self.storage)


def opens_of(index: Index) -> Counter[str]:
    """How often each part was opened, by name."""
    log = Path(f"{index.vectors.folder}.opened")
    return Counter(log.read_text().splitlines() if log.exists() else ())
