"""Documents per second of TextEncoder against SentenceTransformer.encode and a bare transformers loop.

Run: GOTD_DATA=folder python benchmarks/bench_encoder.py [--documents 2000]

folder/corpus holds Parquet files with a ``text`` column. All three take turns in one process and the median of three
rounds counts, so that the ratios mean something on a busy machine. That their vectors are the same is looked at, too:
the smallest cosine is in the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import data
import numpy as np
import torch
from bare_encoder import BareLoop
from machine import facts
from measure import heading, row, seconds_of
from sentence_transformers import SentenceTransformer

from gotd_ray.choosing.scorers import unit
from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.models.tokenizer import find_model

MAX_CHARS = 1000


def some_texts(folder: Path, documents: int) -> list[str]:
    """As many of each source, cut like candidates."""
    sources = sorted(folder.glob("*.parquet"))
    share = -(-documents // len(sources))
    return [text for path in sources for text in data.texts_of(path, MAX_CHARS)[:share]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=256)
    given = parser.parse_args(argv)
    texts = some_texts(data.folder("corpus/") / "corpus", given.documents)
    settings = Encoder(max_tokens=given.max_tokens)
    folder, ours = find_model(settings), TextEncoder(settings)
    theirs = SentenceTransformer(folder, device="cpu")
    theirs.max_seq_length = given.max_tokens
    bare = BareLoop(folder, getattr(torch, ours.identity["precision"]), max_tokens=given.max_tokens)
    ways: dict[str, Callable[[list[str]], np.ndarray]] = {
        "SentenceTransformer.encode, float32": theirs.encode,
        f"bare loop, {ours.identity['precision']}": bare.encode,
        f"TextEncoder, {ours.identity['precision']}": ours.encode,
    }
    wanted = unit(theirs.encode(texts))
    least = [float((unit(encode(texts)) * wanted).sum(1).min()) for encode in ways.values()]
    seconds = seconds_of([lambda encode=encode: encode(texts) for encode in ways.values()], given.rounds)  # type: ignore[misc]
    print(f"- {facts(('torch', 'transformers', 'sentence-transformers'))}")
    print(f"- {len(texts):,} documents, {torch.get_num_threads()} threads\n")
    heading("what", "documents/s", "of the first", "of the bare loop", "smallest cosine")
    for name, taken, cosine in zip(ways, seconds, least, strict=True):
        shares = f"{seconds[0] / taken:.2f}", f"{seconds[1] / taken:.2f}"
        row(name, f"{len(texts) / taken:.1f}", *shares, f"{cosine:.5f}")


if __name__ == "__main__":
    main()
