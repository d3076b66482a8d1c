"""Rows of a file, whole or until it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gotd_ray import config
from gotd_ray.text.documents import Labelled
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import BadFile, Row


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
