"""Who finds what the corpus holds rarely? Recall of six rare sources, of which a target of many modes is made.

Run: GOTD_DATA=folder python benchmarks/bench_modes.py --vectors cache [--draws 10] [--sweep 3]

Pool and target are those of ``modes.py``: 12,360 documents, 600 texts, budget 360, which is how many rare documents
there are. Each draw takes other documents for the pool and other texts for the target. All is chosen through the
package's own stages (``product.py``), near-duplicates giving way. Rows are kept in ``evidence/modes.jsonl``, and a draw
that is there is not done again; the tables are made from them (``--tables`` does nothing else).

``--stability`` does as many draws of the number of landmarks: on how much of the first documents their halves agree.
``--sweep`` does so many draws of ``debiased`` and of its rounds at epsilons from 0.03 to 0.5 of the mean cost, with a
target of one topic besides. There nothing is rare, and what is measured is how well texts that the selection did not
see are covered: the mean cosine of each to its nearest document that was taken, and MMD^2 (median bandwidth) of 0.8
corpus + 0.2 subset from them. Neither knows epsilon.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import data
import modes
import numpy as np
import vectors
from evidence import FOLDER, Evidence
from machine import facts
from measure import heading, interval, row
from product import Library

from gotd_ray.choosing.dsir import dsir_scores, features, log_ratio
from gotd_ray.choosing.mmd import median_bandwidth
from gotd_ray.choosing.scorers import nearest_scores

BUDGET = 360
DSIR_WORDS = 50  # as in bench_rounds: texts are cut to 500 characters
MIX = 0.2
ROUNDS = 10
NAMED_BY = ("target", "draw", "method")
EPSILONS = (0.03, 0.05, 0.1, 0.15, 0.25, 0.5)

Method = tuple[str, Callable[[], np.ndarray]]
"""Its name, and what it takes: places in the pool."""


def methods(library: Library, drawn: modes.Drawn, seed: int, texts: dict[bytes, str]) -> Iterator[Method]:
    """All that are compared."""

    def scored(name: str, **settings: Any) -> Callable[[], np.ndarray]:
        return lambda: library.choose(library.scores(name, seed, budget=BUDGET, **settings), budget=BUDGET)

    yield "random", scored("random")
    yield "nearest", scored("nearest")
    yield "round robin", scored("round_robin")
    yield "cells, drawn", scored("cells")
    yield "cells, highest ratio", scored("cells", cells_sample=False)
    if texts:
        yield "dsir", lambda: library.choose(importance(drawn, texts, seed), budget=BUDGET)
    width = median_bandwidth(drawn.x, drawn.y)
    yield "mmd, median bandwidth", scored("mmd", bandwidth=width)
    yield "mmd, an eighth of it", scored("mmd", bandwidth=width / 8)
    yield "energy", scored("energy")
    yield "paper", lambda: library.choose(library.scores(library.solve(preset="paper")), budget=BUDGET)
    yield from debiased(library, 0.1, rounds=False)
    yield from debiased(library, 0.25)


def debiased(library: Library, epsilon: float, rounds: bool = True) -> Iterator[Method]:
    """One shot, and rounds, from one fit."""
    solved = library.solve(preset="debiased", epsilon=epsilon)
    scores = library.scores(solved)
    yield f"debiased, epsilon {epsilon:g}", lambda: library.choose(scores, solved, budget=BUDGET)
    if rounds:
        yield (
            f"debiased, epsilon {epsilon:g}, {ROUNDS} rounds",
            lambda: library.choose(scores, solved, budget=BUDGET, rounds=ROUNDS, mix=MIX),
        )


def importance(drawn: modes.Drawn, texts: dict[bytes, str], seed: int) -> np.ndarray:
    """(n,) DSIR's scores."""
    raw, wanted = (features([texts[one] for one in ids.tolist()]) for ids in (drawn.ids, drawn.target_ids))
    weights = raw.log_weights(log_ratio(wanted.counts(), raw.counts()))
    return dsir_scores(drawn.ids, weights, raw.words(), min_words=DSIR_WORDS, seed=seed)


def texts_by_id() -> dict[bytes, str]:
    """The texts of all vectors; none where GOTD_DATA is not set, and then there is no dsir."""
    found = os.environ.get("GOTD_DATA")
    if not found:
        print("dsir skipped: GOTD_DATA is not set", file=sys.stderr)
        return {}
    paths = [Path(found, "corpus", f"{name}.parquet") for name in (*modes.RARE, *modes.COMMON)]
    texts = [text for path in paths for text in data.texts_of(path, vectors.MAX_CHARS)]
    return dict(zip(vectors.ids_of(texts).tolist(), texts, strict=True))


def covered(drawn: modes.Drawn, taken: np.ndarray) -> tuple[float, float]:
    """Of the held-out texts: the mean cosine to the nearest document taken, and MMD^2 of the mixture from them."""
    x, y = drawn.x.astype(np.float64), drawn.held_out.astype(np.float64)
    a = np.full(len(x), (1 - MIX) / len(x))
    a[taken] += MIX / len(taken)
    width = 2 * median_bandwidth(drawn.x, drawn.held_out)

    def mean(p: np.ndarray, left: np.ndarray, right: np.ndarray, q: np.ndarray) -> float:
        squares = (left * left).sum(1)[:, None] + (right * right).sum(1) - 2 * left @ right.T
        return float(p @ np.exp(-np.maximum(squares, 0) / width) @ q)

    b = np.full(len(y), 1 / len(y))
    blocks = np.array_split(np.arange(len(x)), 16)
    among = sum(mean(a[some], x[some], x, a) for some in blocks)
    discrepancy = among - 2 * mean(a, x, y, b) + mean(b, y, y, b)
    return float(-nearest_scores(drawn.held_out, drawn.x[taken]).mean()), discrepancy


def measure(
    kept: Evidence, shape: modes.Shape, seed: int, given: argparse.Namespace, texts: dict[bytes, str], *, swept: bool
) -> None:
    """All methods on one draw; of a sweep, what follows epsilon."""
    drawn = modes.draw(given.vectors, shape, seed, given.sizes)
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder), drawn.ids, drawn.x, drawn.target_ids, drawn.y)
        every = (one for epsilon in EPSILONS for one in debiased(library, epsilon))
        found = every if swept else methods(library, drawn, seed, texts)
        for name, take in found:
            named = {"target": shape, "draw": seed, "method": name}
            if kept.has(**named):
                continue
            started = time.perf_counter()
            taken = take()
            seconds = round(time.perf_counter() - started, 2)
            values: dict[str, Any] = {"recall": [round(value, 4) for value in modes.recalls(drawn, taken)]}
            if swept:
                cosine, discrepancy = covered(drawn, taken)
                values |= {"cosine": round(cosine, 5), "mmd2": round(discrepancy, 6)}
            kept.add(**named, **values, taken=len(taken), seconds=seconds)
    print(f"{shape}, draw {seed}", file=sys.stderr, flush=True)


def stability(kept: Evidence, shape: modes.Shape, seed: int, given: argparse.Namespace) -> None:
    """Agreement of the landmarks' halves on the budget's first documents, as their number doubles until it will do."""
    drawn = modes.draw(given.vectors, shape, seed, given.sizes)
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder), drawn.ids, drawn.x, drawn.target_ids, drawn.y)
        for epsilon in (0.25, 0.1):
            named = {"target": shape, "draw": seed, "method": f"debiased, epsilon {epsilon:g}"}
            if not kept.has(**named):
                select = {"budget": BUDGET}
                fitted = library.solve(select, preset="debiased", epsilon=epsilon, landmarks="auto")
                kept.add(**named, candidates=len(drawn.ids), agreements=fitted.facts["agreements"])
    print(f"stability, {shape}, draw {seed}", file=sys.stderr, flush=True)


def with_interval(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and its 95% bootstrap interval where there are several draws."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, high = interval(values)
    return f"{np.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def tables(kept: Evidence, sweep: Evidence, steady: Evidence) -> None:
    """Means over draws; the worst mode is the least recall of each draw."""
    heading("target", "method", "draws", "mean recall", "worst mode", *modes.RARE)
    for shape, name in dict.fromkeys((one["target"], one["method"]) for one in kept.rows):
        found = np.array([one["recall"] for one in kept.where(target=shape, method=name)])
        each = [f"{value:.2f}" for value in found.mean(0)]
        row(shape, name, len(found), with_interval(found.mean(1)), with_interval(found.min(1)), *each)
    if steady.rows:
        print()
        counts = sorted({count for one in steady.rows for count, _ in one["agreements"]})
        heading("target", "method", "draws", *(f"{count:,} landmarks" for count in counts))
    for shape, name in dict.fromkeys((one["target"], one["method"]) for one in steady.rows):
        rows = [dict(one["agreements"]) for one in steady.where(target=shape, method=name)]
        every = [[one[count] for one in rows if count in one] for count in counts]
        row(shape, name, len(rows), *(with_interval(values) if values else "" for values in every))
    if not sweep.rows:
        return
    print()
    heading("target", "method", "draws", "mean recall", "worst mode", "cosine to the nearest taken", "MMD^2")
    for shape, name in dict.fromkeys((one["target"], one["method"]) for one in sweep.rows):
        rows = sweep.where(target=shape, method=name)
        found = np.array([one["recall"] for one in rows])
        recall = [f"{found.mean(1).mean():.3f}", f"{found.min(1).mean():.3f}"] if shape != "topic" else ["", ""]
        measures = [with_interval([one[name] for one in rows], 4) for name in ("cosine", "mmd2")]
        row(shape, name, len(rows), *recall, *measures)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=Path("modes"), help="cache folder, see modes.py")
    parser.add_argument("--evidence", type=Path, default=FOLDER, help="folder of the rows")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--sweep", type=int, default=0, help="draws of the sweep of epsilons")
    parser.add_argument("--stability", type=int, default=0, help="draws of the number of landmarks")
    parser.add_argument("--targets", nargs="+", default=["equal", "heavy"], choices=["equal", "heavy"])
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    given = parser.parse_args(argv)
    given.sizes = modes.Sizes()
    kept = Evidence(given.evidence / "modes.jsonl", NAMED_BY)
    sweep = Evidence(given.evidence / "epsilon.jsonl", NAMED_BY)
    steady = Evidence(given.evidence / "stability.jsonl", NAMED_BY)
    if not given.tables:
        modes.complete(given.vectors, given.sizes)
        print(f"- {facts()}\n")
        texts = texts_by_id()
        for seed in range(given.draws):
            for shape in given.targets:
                measure(kept, shape, seed, given, texts, swept=False)
        for seed in range(given.stability):
            for shape in (*given.targets, "topic"):
                stability(steady, shape, seed, given)
        for seed in range(given.sweep):
            for shape in (*given.targets, "topic"):
                measure(sweep, shape, seed, given, {}, swept=True)
    tables(kept, sweep, steady)


if __name__ == "__main__":
    main()
