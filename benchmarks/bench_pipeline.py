"""The main job on 50,000 real documents: rate of embed against bare loops, time of the rest, peak memory.

Run: GOTD_DATA=folder python benchmarks/bench_pipeline.py [documents]

The corpus is a sample of folder/corpus by content id, the target folder/tasks/chemprot/train.parquet. The stages run
through the pipeline on a private Ray; the peers then encode a random sample of the same documents on the idle machine:
``SentenceTransformer.encode`` as it comes, and the bare loop of bench_encoder with one process of all threads and with
one process per core. Rates of embed count everything from the first file to the last entry, Ray's start-up of the
actors included.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from bench_encoder import BareLoop
from sentence_transformers import SentenceTransformer

from gotd_ray import config, pipeline
from gotd_ray.models.choice import describe
from gotd_ray.models.tokenizer import find_model
from gotd_ray.progress import Progress
from gotd_ray.storage import list_files
from gotd_ray.text.documents import Tally, read_documents

PEER_DOCUMENTS = 3000


class PeakMemory(threading.Thread):
    """The largest sum of the unique memory of this process and all below it, looked at every half second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.before = self._now()
        self.running = True

    def _now(self) -> int:
        me = psutil.Process()
        total = 0
        for process in [me, *me.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except psutil.Error:
                continue
        return total

    def run(self) -> None:
        while self.running:
            self.peak = max(self.peak, self._now())
            time.sleep(0.5)


def make_run(data: Path, out: Path, sample: float) -> config.Run:
    return config.Run.model_validate(
        {
            "out": str(out / "run"),
            "corpus": {"paths": f"{data}/corpus", "source_column": "source", "sample": sample},
            "target": {"paths": f"{data}/tasks/chemprot/train.parquet"},
            "select": {"budget": 1000},
        }
    )


def all_texts(run: config.Run) -> list[str]:
    texts = []
    for file in list_files(run.corpus, run.storage):
        texts += [d.text for d in read_documents(file, run.corpus, run.chunks, run.storage, Tally())]
    return texts


def timed(encode, texts: list[str]) -> float:
    encode(texts[:200])
    started = time.perf_counter()
    encode(texts)
    return len(texts) / (time.perf_counter() - started)


def bare_loop_per_core(texts: list[str], folder: str, precision: str, cores: int) -> float:
    """Rate of one single-threaded bare loop per core, all at once; model loading is not counted."""
    with tempfile.TemporaryDirectory() as scratch:
        shares = []
        for i in range(cores):
            path = Path(scratch) / f"{i}.json"
            path.write_text(json.dumps(texts[i::cores]))
            shares.append(path)
        program = (
            "import json, sys, time, torch; sys.path.insert(0, sys.argv[4]); torch.set_num_threads(1)\n"
            "from bench_encoder import BareLoop\n"
            "texts = json.load(open(sys.argv[1])); loop = BareLoop(sys.argv[2], getattr(torch, sys.argv[3]))\n"
            "loop.encode(texts[:200]); print('ready', flush=True); sys.stdin.readline()\n"
            "loop.encode(texts); print('done', flush=True)"
        )
        here = str(Path(__file__).parent)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(path), folder, precision, here],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for path in shares
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        started = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            process.wait()
        return len(texts) / (time.perf_counter() - started)


def main() -> None:
    data = os.environ.get("GOTD_DATA")
    if not data:
        print("skipped: set GOTD_DATA to a folder with corpus/ and tasks/chemprot/")
        return
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as scratch:
        total = len(all_texts(make_run(Path(data), Path(scratch), 1.0)))
        run = make_run(Path(data), Path(scratch), min(1.0, wanted / total))
        memory = PeakMemory()
        memory.start()
        started = time.perf_counter()
        finished = pipeline.execute(run, Progress())
        whole = time.perf_counter() - started
        memory.running = False
        embedded, solved, selected = (finished.manifests[stage] for stage in ("embed", "solve", "select"))
        texts = all_texts(run)
    assert embedded and solved and selected
    sample = random.Random(0).sample(texts, min(PEER_DOCUMENTS, len(texts)))
    folder, precision = find_model(run.encoder), describe(run.encoder, finished.device)["precision"]
    cores = os.cpu_count() or 1
    rates = {
        "embed stage": embedded["corpus"]["documents"] / embedded["corpus"]["seconds"],
        f"bare loop {precision}, 1 process of {cores} threads": timed(
            BareLoop(folder, getattr(torch, precision)).encode, sample
        ),
        f"bare loop {precision}, {cores} processes of 1 thread": bare_loop_per_core(sample, folder, precision, cores),
        "SentenceTransformer.encode at its defaults": timed(SentenceTransformer(folder, device="cpu").encode, sample),
    }
    ours = rates["embed stage"]
    print(f"\n{embedded['corpus']['documents']:,} documents of {sum(map(len, texts)) / len(texts):.0f} characters\n")
    print("| what | documents/s | embed stage / this |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {ours / rate:.2f} |")
    rest = solved["seconds"] + selected["seconds"]
    solve = f"{solved['passes']} passes, residual {solved['residual']:.1e}, epsilon {solved['epsilon']:.3f}"
    print(f"\nsolve {solved['seconds']:.1f} s ({solve}), select {selected['seconds']:.1f} s: {rest:.1f} s after embed")
    print(f"{whole:.0f} s in all, Ray's start and the target included")
    print(f"peak unique memory of all processes: {memory.peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
