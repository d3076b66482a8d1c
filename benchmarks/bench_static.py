"""Speed and nearness of the static encoder against the transformer that it is made from, on the CPU.

Run: GOTD_DATA=folder python benchmarks/bench_static.py [--per-source 40]

folder/corpus holds Parquet files with a ``text`` column; as many texts of each are taken, spread over the file.
Nearness is looked at over all pairs of texts: how alike their cosines rank, and how many of a text's nearest tenth by
the transformer are among its nearest fifth by the static encoder, where chance gives 0.2.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import data
import numpy as np
import torch
from machine import facts
from measure import heading, row, seconds_of
from scipy.stats import spearmanr

from gotd_ray.choosing.scorers import unit
from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder


def some_texts(folder: Path, count: int, chars: int) -> list[str]:
    """``count`` of each source, spread evenly over its texts."""
    found: list[str] = []
    for path in sorted(folder.glob("*.parquet")):
        texts = data.texts_of(path, chars)
        found += texts[:: max(1, len(texts) // count)][:count]
    return found


def nearness(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Spearman's rank correlation of the cosines of all pairs of n texts, and the share of the second's nearest tenth
    that is among the first's nearest fifth.

    Args:
        ours: (n, d) vectors.
        theirs: (n, e) vectors of the same texts.
    """
    mine, other = (x @ x.T for x in (unit(vectors.astype(np.float32)) for vectors in (ours, theirs)))
    n = len(mine)
    pairs = np.triu_indices(n, 1)
    rank = float(spearmanr(mine[pairs], other[pairs]).statistic)
    for cosines in (mine, other):
        np.fill_diagonal(cosines, -2)  # a text is not its own neighbour
    tenth, fifth = -(-(n - 1) // 10), -(-(n - 1) // 5)
    wide, near = np.argsort(-mine, 1)[:, :fifth], np.argsort(-other, 1)[:, :tenth]
    return rank, float(np.mean([np.isin(a, b).mean() for a, b in zip(near, wide, strict=True)]))


def made(settings: Encoder) -> tuple[TextEncoder, float]:
    """A static encoder, and the seconds that its table took: in a cache of its own, so that it is not there yet."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["XDG_CACHE_HOME"] = empty
        try:
            encoder = TextEncoder(settings)
            started = time.perf_counter()
            return encoder.loaded(), time.perf_counter() - started
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-source", type=int, default=40)
    parser.add_argument("--chars", type=int, default=400, help="that a text is cut to")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--timed", type=int, default=240, help="texts whose encoding is timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default=Encoder().model)
    given = parser.parse_args(argv)
    texts = some_texts(data.folder("corpus/") / "corpus", given.per_source, given.chars)
    timed = texts[:: max(1, len(texts) // given.timed)]
    os.environ["TOKENIZERS_PARALLELISM"] = str(given.threads > 1).lower()
    torch.set_num_threads(given.threads)
    settings = Encoder(model=given.model, max_tokens=given.max_tokens)
    precisions = {str(TextEncoder(settings).identity["precision"]), "float32"}  # what auto gives here, and the plainest
    static, table = made(settings.model_copy(update={"kind": "static"}))
    ways = {"static": static} | {
        f"transformer, {precision}": TextEncoder(settings.model_copy(update={"precision": precision}))
        for precision in sorted(precisions)
    }
    vectors = {name: one.encode(texts) for name, one in ways.items()}
    exact = vectors["transformer, float32"]
    seconds = seconds_of([lambda one=one: one.encode(timed) for one in ways.values()], given.rounds)  # type: ignore[misc]
    print(f"- {facts(('torch', 'transformers', 'tokenizers'))}")
    print(
        f"- {len(texts):,} texts, {len(timed)} of them timed; threads: {given.threads}; the table took {table:.1f} s\n"
    )
    heading("what", "texts/s", "of the last", "rank correlation of cosines", "nearest tenth in nearest fifth")
    for (name, found), taken in zip(vectors.items(), seconds, strict=True):
        rank, share = nearness(found, exact)
        row(name, f"{len(timed) / taken:.1f}", f"{seconds[-1] / taken:.2f}", f"{rank:.3f}", f"{share:.3f}")


if __name__ == "__main__":
    main()
