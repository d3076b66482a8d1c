"""Real text for the benchmarks: the folder that GOTD_DATA names, with ``corpus/*.parquet`` and ``tasks/<task>/``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow.parquet as pq

from gotd_ray import config
from gotd_ray.storage import list_files
from gotd_ray.text.documents import read_documents
from gotd_ray.text.tally import Tally


def folder(holds: str = "corpus/ and tasks/") -> Path:
    """That of GOTD_DATA. Where it is not set the benchmark says so and ends well: there is nothing to measure."""
    found = os.environ.get("GOTD_DATA")
    if not found:
        print(f"skipped: set GOTD_DATA to a folder with {holds}")
        sys.exit(0)
    return Path(found)


def texts_of(path: Path, chars: int) -> list[str]:
    """The distinct texts of a file, cut, in order; the two texts of a pair are put together."""
    table = pq.read_table(path)
    if "text" in table.column_names:
        texts = table["text"].to_pylist()
    else:
        texts = [f"{a}\n\n{b}" for a, b in zip(table["text_a"].to_pylist(), table["text_b"].to_pylist(), strict=True)]
    return sorted({text[:chars] for text in texts if text.strip()})


def documents_of(section: config.Text, chunks: config.Chunks | None = None) -> dict[str, str]:
    """The texts that a run would read there, by document id, in the order of ids."""
    chunks, storage = chunks or config.Chunks(), config.Storage()
    found = {
        document.doc_id: document.text
        for file in list_files(section, storage)
        for document in read_documents(file, section, chunks, storage, Tally())
    }
    return dict(sorted(found.items()))
