"""The formats that are read, one file each. To add one: its file, its line here, and its name in ``config.Text``."""

from __future__ import annotations

from gotd_ray.filesystems import split_name
from gotd_ray.text.formats import arrow, csv, json, jsonl, parquet, text, warc
from gotd_ray.text.formats.base import Format

FORMATS: tuple[Format, ...] = (
    parquet.FORMAT, jsonl.FORMAT, json.FORMAT, csv.FORMAT, arrow.FORMAT, text.FORMAT, warc.FORMAT,
)  # fmt: skip

FAULTS = frozenset().union(*(one.faults for one in FORMATS))
"""Reasons of one format alone for which a row is bad."""


def format_of(path: str, name: str = "auto") -> Format | None:
    """The format of this name; of ``auto``, the one that a file's ending stands for, or None."""
    if name != "auto":
        return next(one for one in FORMATS if one.name == name)
    _, ending, packed = split_name(path)
    return next((one for one in FORMATS if ending in one.endings and (one.packed or not packed)), None)
