"""Rows of a file, whole or until it breaks."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gotd_ray import config
from gotd_ray.text.documents import Labelled
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import BadFile, Row

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": lambda data: bz2.compress(data, 1),  # a block of bzip2 is all or nothing: small ones
    ".xz": lzma.compress,
}
"""By the ending of the compression."""


def rows_of(path: Path, wanted: set[int] | None = None, label: str | None = None, **text: Any) -> list[Row]:
    """``text``: settings besides its path."""
    known: config.Text = config.Text(paths=[str(path)], **text)
    return list(read_rows(str(path), Labelled.of(known, label) if label else known, config.Storage(), wanted))


def broken(path: Path, **text: Any) -> tuple[list[Row], BadFile]:
    """The rows before it broke, and how it did, which it must."""
    rows: list[Row] = []
    with pytest.raises(BadFile) as caught:
        for row in read_rows(str(path), config.Text(paths=[str(path)], **text), config.Storage()):
            rows.append(row)
    return rows, caught.value
