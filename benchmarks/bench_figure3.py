"""The paper's Figure 3 with real text: which score finds the source that the pool lacks?

Run: GOTD_DATA=folder python benchmarks/bench_figure3.py [--seeds 10]

The pool is 4,000 documents of source A and 300 of B; the target is 200 others of each. The model "knows" the pool, so
the documents that move it towards the target are B's. Reported is B's share of the first documents by each score (7%
by chance), the mean over seeds with a 95% bootstrap interval. Texts are cut to 600 characters and encoded with MiniLM;
the fits and the scores are those of the package's stages (see product.py).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import data
import numpy as np
from machine import facts
from measure import heading, interval, row
from product import Library
from vectors import ids_of

from gotd_ray.config import Encoder, Solve
from gotd_ray.models.encoder import TextEncoder

PAIRS = {"arxiv_cs+arxiv_bio": 100, "recipes+legal_docs": 300}
"""Source A + source B, and how many of the first documents are looked at."""

MAX_CHARS = 600

Source = tuple[np.ndarray, np.ndarray]
"""Ids (n,) and vectors (n, d)."""


def embed(path: Path, encoder: TextEncoder, most: int) -> Source:
    """A fixed sample of a source."""
    texts = data.texts_of(path, MAX_CHARS)
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:most]]
    return ids_of(texts), encoder.encode(texts)


def scores(library: Library, landmarks: Sequence[int], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each method and its scores (n,), lower is better."""
    yield "nearest", library.scores("nearest")
    yield "random", library.scores("random", seed)
    yield "mmd witness", library.scores("mmd")
    for count in landmarks:
        yield f"gotd debiased, {count} landmarks", library.scores(library.solve(preset="debiased", landmarks=count))
    yield "gotd paper", library.scores(library.solve(preset="paper"))


def one_seed(a: Source, b: Source, seed: int, first: int, given: argparse.Namespace) -> dict[str, float]:
    """Share of B among the ``first`` documents, by method."""
    rng = np.random.default_rng(seed)
    drawn = [(ids[order], x[order]) for ids, x in (a, b) for order in [rng.permutation(len(ids))]]
    pool = [slice(size) for size in given.pool]
    target = [slice(size, size + given.target) for size in given.pool]
    ids, x = (np.concatenate([part[k][rows] for part, rows in zip(drawn, pool, strict=True)]) for k in (0, 1))
    wanted, y = (np.concatenate([part[k][rows] for part, rows in zip(drawn, target, strict=True)]) for k in (0, 1))
    order = np.argsort(ids)
    is_b = np.repeat([0.0, 1.0], given.pool)[order]
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder), ids[order], x[order], wanted, y)
        return {
            name: float(is_b[np.argsort(found, kind="stable")[:first]].mean())
            for name, found in scores(library, given.landmarks, seed)
        }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pool", type=int, nargs=2, default=[4000, 300], metavar=("A", "B"))
    parser.add_argument("--target", type=int, default=200, help="of each source")
    parser.add_argument("--first", type=int, help="documents looked at; 100 and 300 without")
    parser.add_argument(
        "--landmarks", type=int, nargs="+", default=[512, 1024, Solve().landmarks, 4300], help="all of the pool is 4300"
    )
    parser.add_argument(
        "--most", type=int, nargs=2, default=[6000, 6000], metavar=("A", "B"), help="texts that the seeds draw from"
    )
    parser.add_argument("--max-tokens", type=int, help="of a text; the model's limit without")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    given = parser.parse_args(argv)
    folder, encoder = data.folder("corpus/"), TextEncoder(Encoder(max_tokens=given.max_tokens))
    print(f"- {facts()}\n")
    heading("pool + rare source", "first", "score", "seeds 0-2", "all seeds", "95% interval")
    for pair in given.pairs:
        first = given.first or PAIRS[pair]
        paths = [folder / "corpus" / f"{name}.parquet" for name in pair.split("+")]
        sources = [embed(path, encoder, most) for path, most in zip(paths, given.most, strict=True)]
        results = [one_seed(sources[0], sources[1], seed, first, given) for seed in range(given.seeds)]
        for name in results[0]:
            values = [result[name] for result in results]
            low, high = interval(values)
            means = f"{np.mean(values[:3]):.3f}", f"{np.mean(values):.3f}", f"{low:.3f} to {high:.3f}"
            row(pair.replace("+", " + "), first, name, *means)


if __name__ == "__main__":
    main()
