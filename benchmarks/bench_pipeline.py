"""The main job on 50,000 real documents: rate of embed against bare loops, time of the rest, peak memory.

Run: GOTD_DATA=folder python benchmarks/bench_pipeline.py [--documents 50000]

The corpus is a sample of folder/corpus by content id, the target folder/tasks/chemprot/train.parquet. The stages run
through the pipeline on a private Ray; the peers then encode a random sample of the same documents on the idle machine:
``SentenceTransformer.encode`` as it comes, and the bare loop of bench_encoder with one process of all threads and with
one process per core. Rates of embed count everything from the first file to the last entry, Ray's start-up of the
actors included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import data
import psutil
import torch
from bare_encoder import BareLoop
from machine import facts
from measure import heading, row
from sentence_transformers import SentenceTransformer

from gotd_ray import config, pipeline
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.models.tokenizer import find_model
from gotd_ray.progress import Progress

WARM = 200
"""Documents that each peer encodes first."""

BARE = """
import json, sys, torch
sys.path.insert(0, sys.argv[4])
torch.set_num_threads(1)
from bare_encoder import BareLoop
texts = json.load(open(sys.argv[1]))
loop = BareLoop(sys.argv[2], getattr(torch, sys.argv[3]))
loop.encode(texts[:int(sys.argv[5])])
print("ready", flush=True)
sys.stdin.readline()
loop.encode(texts)
"""


class PeakMemory(threading.Thread):
    """The largest sum of the unique memory of this process and all below it, looked at every half second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self._now()
        self._over = threading.Event()

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()

    def _now(self) -> int:
        me, total = psutil.Process(), 0
        for process in [me, *me.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except psutil.Error:
                continue
        return total

    def run(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, self._now())


def run_of(folder: Path, out: Path, given: argparse.Namespace, sample: float = 1.0) -> config.Run:
    settings: dict[str, Any] = {
        "out": str(out / "run"),
        "corpus": {"paths": f"{folder}/corpus", "source_column": "source", "sample": sample},
        "target": {"paths": f"{folder}/tasks/chemprot/train.parquet"},
        "encoder": {"max_tokens": given.max_tokens},
        "select": {"budget": given.budget},
    }
    return config.Run.model_validate(settings)


def rate(encode: Callable[[list[str]], object], texts: list[str]) -> float:
    """Documents per second."""
    encode(texts[:WARM])
    started = time.perf_counter()
    encode(texts)
    return len(texts) / (time.perf_counter() - started)


def rate_of_a_process_per_core(texts: list[str], folder: str, precision: str, cores: int) -> float:
    """Of single-threaded bare loops, all at once; starting and loading are not counted."""
    with tempfile.TemporaryDirectory() as scratch:
        processes = []
        for i in range(cores):
            share = Path(scratch) / f"{i}.json"
            share.write_text(json.dumps(texts[i::cores]))
            command = [sys.executable, "-c", BARE, str(share), folder, precision, str(Path(__file__).parent), str(WARM)]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        pipes = [(process.stdin, process.stdout) for process in processes]
        for _, said in pipes:
            assert said is not None and said.readline() == "ready\n", "a bare loop did not start"
        started = time.perf_counter()
        for go, _ in pipes:
            assert go is not None
            go.write("\n")
            go.flush()
        assert [process.wait() for process in processes] == [0] * cores, "a bare loop failed"
        return len(texts) / (time.perf_counter() - started)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--peers", type=int, default=3000, help="documents that the peers encode")
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, help="of a document, for the package; the model's limit without")
    given = parser.parse_args(argv)
    folder = data.folder("corpus/ and tasks/chemprot/")
    with tempfile.TemporaryDirectory() as scratch:
        whole_corpus = data.documents_of(run_of(folder, Path(scratch), given).corpus)
        run = run_of(folder, Path(scratch), given, min(1.0, given.documents / len(whole_corpus)))
        with PeakMemory() as memory:
            started = time.perf_counter()
            finished = pipeline.execute(run, Progress())
            seconds = time.perf_counter() - started
        embedded, solved, selected = (finished.manifests[stage] for stage in ("embed", "solve", "select"))
        texts = list(data.documents_of(run.corpus).values())
    assert embedded and solved and selected
    sample = random.Random(0).sample(texts, min(given.peers, len(texts)))
    model, precision = find_model(run.encoder), TextEncoder(run.encoder, finished.device).identity["precision"]
    cores = os.cpu_count() or 1
    one = BareLoop(model, getattr(torch, precision))
    rates = {
        "embed stage": embedded["corpus"]["documents"] / embedded["corpus"]["seconds"],
        f"bare loop {precision}, 1 process of {cores} threads": rate(one.encode, sample),
        f"bare loop {precision}, {cores} processes of 1 thread": rate_of_a_process_per_core(
            sample, model, precision, cores
        ),
        "SentenceTransformer.encode at its defaults": rate(SentenceTransformer(model, device="cpu").encode, sample),
    }
    print(f"- {facts(('torch', 'transformers', 'ray'))}\n")
    print(f"{embedded['corpus']['documents']:,} documents of {sum(map(len, texts)) / len(texts):.0f} characters\n")
    heading("what", "documents/s", "embed stage / this")
    for name, found in rates.items():
        row(name, f"{found:.1f}", f"{rates['embed stage'] / found:.2f}")
    rest = solved["seconds"] + selected["seconds"]
    solve = f"{solved['passes']} passes, residual {solved['residual']:.1e}, epsilon {solved['epsilon']:.3f}"
    print(f"\nsolve {solved['seconds']:.1f} s ({solve}), select {selected['seconds']:.1f} s: {rest:.1f} s after embed")
    print(f"{seconds:.0f} s in all, Ray's start and the target included")
    print(f"peak unique memory of all processes: {memory.peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
