"""Targets of many modes: some that the corpus holds in plenty, and some that it holds rarely.

The pool is 1,200 documents of each of ten common sources and 60 of each of six rare ones. The target is 600 others:

- ``equal``: half of it the rare sources in equal parts, half the common ones in equal parts;
- ``heavy``: 30% of it rare sources, each 0.6 of the one before, the rest the common ones in equal parts.

The vectors are MiniLM's in float32, of texts cut to 500 characters and 64 tokens, and kept in a cache folder of one
``.npz`` for each source, as those of ``vectors.py``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import data
import numpy as np
import vectors

from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder

COMMON = (
    "arxiv_cs", "arxiv_physics", "wikipedia", "news_reuters", "news_allsides", "news_comments", "blogs", "reddit",
    "books_novels", "howto_help",
)  # fmt: skip
RARE = ("arxiv_bio", "recipes", "legal_docs", "religious_kjv", "tech_docs", "health_qa")
"""In the order of their shares, where these fall."""

TASK = "chemprot"
"""The target of one topic."""

Shape = Literal["equal", "heavy", "topic"]

FALL = 0.6


@dataclass(frozen=True)
class Sizes:
    """How many of each there are."""

    common: int = 1200
    rare: int = 60
    target: int = 600
    held_out: int = 300
    """Texts like the target, of no use but to measure by."""

    most_common: int = 1280
    most_rare: int = 240
    """Texts of a source that the draws take theirs from."""


@dataclass(frozen=True)
class Drawn:
    """One draw of pool and target."""

    ids: np.ndarray
    """(n,) S32 of the pool, ascending."""

    x: np.ndarray
    """(n, d) float16."""

    mode: np.ndarray
    """(n,) the place in ``RARE`` of each document's source; -1 for a common one."""

    target_ids: np.ndarray
    y: np.ndarray
    held_out: np.ndarray
    """(h, d) float16 vectors of texts like the target."""


def complete(cache: Path, sizes: Sizes) -> None:
    """Encode the sources that the cache lacks, from the folder of GOTD_DATA."""
    wanted = {f"corpus_{name}": sizes.most_common for name in COMMON} | {f"corpus_{n}": sizes.most_rare for n in RARE}
    wanted[f"task_{TASK}"] = sizes.target + sizes.held_out
    missing = {name: most for name, most in wanted.items() if not (cache / f"{name}.npz").exists()}
    if not missing:
        return
    folder = data.folder()
    cache.mkdir(parents=True, exist_ok=True)
    encoder = TextEncoder(Encoder(max_tokens=vectors.MAX_TOKENS, precision="float32"))
    for name, most in missing.items():
        kind, _, source = name.partition("_")
        path = folder / ("corpus" if kind == "corpus" else f"tasks/{source}")
        texts = data.texts_of(path / f"{source if kind == 'corpus' else 'train'}.parquet", vectors.MAX_CHARS)
        texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:most]]
        scratch = cache / f"{name}.part"
        with scratch.open("wb") as file:
            np.savez(file, ids=vectors.ids_of(texts), x=encoder.encode(texts))
        scratch.rename(cache / f"{name}.npz")
        print(f"{name}: {len(texts):,} texts", file=sys.stderr, flush=True)


def parts_of(shape: Shape, total: int) -> dict[str, int]:
    """How many texts of each source a target of so many has."""
    if shape == "equal":
        rare = {name: total // 2 // len(RARE) for name in RARE}
    elif shape == "heavy":
        fall = FALL ** np.arange(len(RARE))
        rare = dict(
            zip(RARE, np.maximum(1, np.round(0.3 * total * fall / fall.sum())).astype(int).tolist(), strict=True)
        )
    else:
        return {}
    left = (total - sum(rare.values())) // len(COMMON)
    return rare | dict.fromkeys(COMMON, left)


def draw(cache: Path, shape: Shape, seed: int, sizes: Sizes) -> Drawn:
    """The pool and the target of a seed. A text that stands in two sources is the first one's."""
    rng = np.random.default_rng(seed)
    wanted, held = parts_of(shape, sizes.target), parts_of(shape, sizes.held_out)
    pool, target, rest = [], [], []
    known: set[bytes] = set()
    for name in (*RARE, *COMMON):
        with np.load(cache / f"corpus_{name}.npz") as file:
            ids, x = file["ids"], file["x"]
        new = np.array([doc_id not in known for doc_id in ids.tolist()])
        known |= set(ids.tolist())
        ids, x = ids[new], x[new]
        order = rng.permutation(len(ids))
        cuts = np.cumsum([sizes.rare if name in RARE else sizes.common, wanted.get(name, 0), held.get(name, 0)])
        if len(ids) < cuts[-1]:
            sys.exit(f"{cache} has {len(ids)} texts of {name}, wanted are {cuts[-1]}")
        parts = np.split(order, cuts)
        rare = RARE.index(name) if name in RARE else -1
        pool.append((ids[parts[0]], x[parts[0]], np.full(len(parts[0]), rare)))
        target.append((ids[parts[1]], x[parts[1]]))
        rest.append(x[parts[2]])
    if shape == "topic":
        with np.load(cache / f"task_{TASK}.npz") as file:
            order = rng.permutation(len(file["ids"]))
            cut = sizes.target
            target = [(file["ids"][order[:cut]], file["x"][order[:cut]])]
            rest = [file["x"][order[cut : cut + sizes.held_out]]]
    ids, x, mode = (np.concatenate(column) for column in zip(*pool, strict=True))
    order = np.argsort(ids)
    target_ids, y = (np.concatenate(column) for column in zip(*target, strict=True))
    return Drawn(ids[order], x[order], mode[order], target_ids, y, np.concatenate(rest))


def recalls(drawn: Drawn, taken: np.ndarray) -> list[float]:
    """Of each rare mode: the share of its documents that are among those taken, places (k,) in the pool."""
    found = drawn.mode[taken]
    return [float((found == mode).sum() / (drawn.mode == mode).sum()) for mode in range(len(RARE))]
