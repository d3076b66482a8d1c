"""The files of trainings and judges: what of the settings decides their texts, and what is said of rows left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.index import table_of
from gotd_ray.storage import StoredFile

WHOLE = config.Chunks(max_chars=None, min_chars=1)
"""Texts that are classified or judged are not cut."""


def without_weights(text: config.Text) -> config.Text:
    """Texts of one weight each, such as those that are trained on or judged."""
    return text.model_copy(update={"weight_column": None, "proportions": None})


def idea(text: config.Text, chunks: config.Chunks) -> dict[str, Any]:
    """What decides the texts of given files, for a key: not how many bad ones are allowed, nor names of no use."""
    nothing = {"paths", "max_bad_files", "max_bad_rows"}
    if not text.exclude_sources:
        nothing |= {"source_column", "source_from"}
    return text.model_dump(exclude=nothing) | {"chunks": chunks.model_dump()}


def state(files: list[StoredFile] | None) -> list[tuple[str, int, int]]:
    """What tells files, as they are now, from others, for a key."""
    return [(file.uri, file.size, file.modified) for file in files or []]


def subset_of(path: str, column: str, options: config.Storage) -> list[str]:
    """A column of the selection's file.

    Raises:
        UserError: it is gone, or damaged.
    """
    try:
        return table_of(storage.read_bytes(path, options), [column])[column].to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        said = " ".join(str(error).split())
        folder = path.rpartition("/")[0]
        raise UserError(f"the subset {path} cannot be read: {said}. Delete {folder}, and run again.") from None


def left_out_of(where: str, left_out: Mapping[str, int]) -> list[str]:
    """A sentence on what was left out, or none.

    Args:
        where: the set; left_out: rows and texts by reason.
    """
    shown = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
    return [f"{where}: left out: {shown}"] if shown else []
