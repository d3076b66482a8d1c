"""Near-duplicates among the chosen: seconds of the search by `select`, and by plain products.

    python benchmarks/bench_duplicates.py --kept 20000 100000

Made-up vectors: some mean cosine with one another, and each twentieth a near copy of the one before it. The plain
search is what `select` did at first: all kept vectors in float32, 512 candidates at a time, one product over the whole
width with all of them. Both must give the same answer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from machine import facts
from measure import heading, row

from gotd_ray.choosing.duplicates import NearDuplicates

THRESHOLD = 0.95
BATCH = 512
COLUMNS = 16_384
TOPICS = 20


def stream(count: int, width: int, cosine: float, seed: int) -> np.ndarray:
    """(count, width) float16 unit vectors, whose mean cosine within one of 20 topics is about so much."""
    rng = np.random.default_rng(seed)
    topics = np.sqrt(cosine / (1 - cosine)) * rng.normal(size=(TOPICS, width)).astype(np.float32)
    x = topics[rng.integers(0, TOPICS, count)]
    x += rng.normal(size=x.shape).astype(np.float32)
    copies = np.arange(19, count, 20)
    x[copies] = x[copies - 1] + 0.1 * rng.normal(size=(len(copies), width)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float16)


def by_select(x: np.ndarray, wanted: int) -> list[int]:
    """Rows that are kept until so many are."""
    near, start = NearDuplicates(THRESHOLD), 0
    kept: list[int] = []
    while len(kept) < wanted:
        batch = x[start : start + min(near.block, max(wanted - len(kept), 64))]
        near.screen(batch)
        for i in range(len(batch)):
            if len(kept) < wanted and near.twin(i) is None:
                near.keep(i, b"%d" % (start + i))
                kept.append(start + i)
        start += len(batch)
    return kept


def plainly(x: np.ndarray, wanted: int) -> list[int]:
    """The same by products alone."""
    rows, start = np.empty((wanted, x.shape[1]), np.float32), 0
    kept: list[int] = []
    while len(kept) < wanted:
        batch = x[start : start + BATCH].astype(np.float32)
        batch /= np.linalg.norm(batch, axis=1, keepdims=True)
        twins = set()
        for column in range(0, len(kept), COLUMNS):
            part = rows[column : min(column + COLUMNS, len(kept))]
            twins |= set(np.argwhere(batch @ part.T >= THRESHOLD)[:, 0].tolist())
        within: dict[int, list[int]] = {}
        for i, j in np.argwhere(batch @ batch.T >= THRESHOLD).tolist():
            within.setdefault(i, []).append(j)
        own: set[int] = set()
        for i in range(len(batch)):
            if len(kept) < wanted and i not in twins and own.isdisjoint(within.get(i, ())):
                rows[len(kept)] = batch[i]
                kept.append(start + i)
                own.add(i)
        start += len(batch)
    return kept


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kept", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--cosines", type=float, nargs="+", default=[0.3, 0.6, 0.8], help="within a topic")
    parser.add_argument("--plain-up-to", type=int, default=100_000, help="kept, above which only select is measured")
    given = parser.parse_args(argv)
    print(f"- {facts(('numpy',))}\n")
    heading("kept", "cosine within a topic", "select, s", "plain products, s", "select / plain")
    for wanted in given.kept:
        for cosine in given.cosines:
            x = stream(wanted + wanted // 10 + 64, given.width, cosine, seed=wanted)
            seconds, kept = timed(by_select, x, wanted)
            cells = [f"{wanted:,}", f"{cosine:g}", f"{seconds:.1f}"]
            if wanted <= given.plain_up_to:
                plain, theirs = timed(plainly, x, wanted)
                assert kept == theirs, "both keep the same"
                cells += [f"{plain:.1f}", f"{seconds / plain:.2f}"]
            row(*cells, *["-"] * (5 - len(cells)))


def timed(search: Callable[[np.ndarray, int], list[int]], x: np.ndarray, wanted: int) -> tuple[float, list[int]]:
    started = time.perf_counter()
    kept = search(x, wanted)
    return time.perf_counter() - started, kept


if __name__ == "__main__":
    main()
