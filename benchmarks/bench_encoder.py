"""Documents per second of TextEncoder against SentenceTransformer.encode and a bare transformers loop.

Run: GOTD_DATA=folder python benchmarks/bench_encoder.py [documents], where folder/corpus holds Parquet files with a
``text`` column. All three take turns in one process and the median of three rounds counts, so that the ratios mean
something on a busy machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.models.tokenizer import find_model

ROUNDS = 3
MAX_CHARS = 1000
BARE_BATCH_TOKENS = 2048  # no slower than 8192 when measured on CPU


def read_texts(folder: Path, documents: int) -> list[str]:
    """The first documents of every source, as many of each, cut like candidates."""
    sources = sorted(folder.glob("*.parquet"))
    share = -(-documents // len(sources))
    columns = [pq.read_table(path, columns=["text"])["text"].slice(0, share).to_pylist() for path in sources]
    return [text[:MAX_CHARS] for column in columns for text in column]


class BareLoop:
    """The fastest plain loop: longest first, batches by tokens, padding to the longest, mean pooling."""

    def __init__(self, folder: str, precision: torch.dtype) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=precision).eval()

    def encode(self, texts: list[str]) -> np.ndarray:
        ids = self.tokenizer(texts, truncation=True, max_length=256)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        vectors = np.empty((len(ids), self.model.config.hidden_size), dtype=np.float16)
        with torch.inference_mode():
            while order:
                size = max(1, BARE_BATCH_TOKENS // len(ids[order[0]]))
                rows, order = order[:size], order[size:]
                batch = self.tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
                hidden = self.model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"][:, :, None]
                pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
                vectors[rows] = pooled.half().numpy()
        return vectors


def main() -> None:
    data = os.environ.get("GOTD_DATA")
    if not data:
        print("skipped: set GOTD_DATA to a folder whose corpus/ holds Parquet files with a text column")
        return
    texts = read_texts(Path(data) / "corpus", int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    settings = Encoder()
    folder = find_model(settings)
    ours = TextEncoder(settings)
    precision = getattr(torch, ours.precision)
    ways: dict[str, Callable[[list[str]], object]] = {
        "SentenceTransformer.encode": SentenceTransformer(folder, device="cpu").encode,
        f"bare loop, {ours.precision}": BareLoop(folder, precision).encode,
        f"TextEncoder, {ours.precision}": ours.encode,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for encode in ways.values():
        encode(texts[::20])
    for _ in range(ROUNDS):
        for name, encode in ways.items():
            started = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - started)
    rates = {name: len(texts) / statistics.median(taken) for name, taken in seconds.items()}
    print(f"{len(texts):,} documents, {torch.get_num_threads()} threads")
    base, bare, _ = rates.values()
    for name, rate in rates.items():
        print(f"{name:32} {rate:8.1f} docs/s  x {rate / base:5.2f}  (x {rate / bare:.2f} of the bare loop)")


if __name__ == "__main__":
    main()
