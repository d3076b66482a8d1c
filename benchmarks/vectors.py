"""Real vectors for the benchmarks of solver and selection: made once from real text, kept in a cache folder.

A cache folder holds one ``<kind>_<name>.npz`` per source, ``ids`` (n,) S32 and ``x`` (n, 384) float16 (MiniLM, texts
cut to 500 characters and 64 tokens). Files that are missing are made from the folder that GOTD_DATA names, with
``corpus/*.parquet`` and ``tasks/<task>/train.parquet``; without GOTD_DATA the files that are there are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from data import texts_of

from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.text.documents import document_id

TARGET_TASKS = ("chemprot", "agnews")
MAX_CHARS = 500
MAX_TOKENS = 64


def load(cache: Path, n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates of all sources mixed, and targets: distinct texts, shuffled. A smaller n is a prefix of a larger one.

    Returns:
        ids (n,) S32 and vectors (n, d) float16 of the candidates, vectors (m, d) float16 of the targets.
    """
    complete(cache)
    ids, x = _pool(sorted(cache.glob("corpus_*.npz")), seed)
    _, y = _pool([cache / f"task_{task}.npz" for task in TARGET_TASKS], seed)
    if len(x) < n or len(y) < m:
        sys.exit(
            f"{cache} has {len(x)} candidates and {len(y)} targets, wanted {n} and {m}: set GOTD_DATA to make more"
        )
    return ids[:n], x[:n], y[:m]


def complete(
    cache: Path, tasks: Sequence[str] = TARGET_TASKS, most: int | None = None, most_of_task: int | None = None
) -> None:
    """Encode every source and task whose vectors are missing.

    Args:
        most: texts of each source at the most, a random draw; a cache of fewer does not serve who needs all.
        most_of_task: the same of each task.
    """
    data = os.environ.get("GOTD_DATA")
    if not data:
        return
    sources = {cache / f"corpus_{path.stem}.npz": path for path in sorted(Path(data, "corpus").glob("*.parquet"))}
    sources |= {cache / f"task_{task}.npz": Path(data, "tasks", task, "train.parquet") for task in tasks}
    missing = {made: path for made, path in sources.items() if not made.exists()}
    if not missing:
        return
    cache.mkdir(parents=True, exist_ok=True)
    encoder = TextEncoder(Encoder(max_tokens=MAX_TOKENS))
    for made, path in missing.items():
        texts, limit = texts_of(path, MAX_CHARS), most if made.name.startswith("corpus_") else most_of_task
        texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:limit]]
        scratch = made.with_suffix(".part")
        with scratch.open("wb") as file:
            np.savez(file, ids=ids_of(texts), x=encoder.encode(texts))
        scratch.rename(made)
        print(f"{made.name}: {len(texts):,} texts", file=sys.stderr, flush=True)


def ids_of(texts: list[str]) -> np.ndarray:
    """(n,) S32, the documents' ids."""
    return np.array([document_id(text) for text in texts], dtype="S32")


def _pool(paths: list[Path], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All of the files, each id once, in an order that depends on ids and seed alone."""
    parts = [np.load(path) for path in paths]
    ids, first = np.unique(np.concatenate([part["ids"] for part in parts]), return_index=True)
    x = np.concatenate([part["x"] for part in parts])
    order = np.random.default_rng(seed).permutation(len(ids))
    return ids[order], x[first[order]]
