"""Millions of short documents on one machine: the time of each stage, the driver's memory, and what is opened.

Run: GOTD_DATA=folder python benchmarks/bench_scale.py FOLDER [--documents 1000000 5000000] [--shards 1 8]

The corpus is made up of the sentences of folder/corpus, two or three at random to a document, in gzipped JSON lines of
25,000 documents, and stays in FOLDER with its index, so that a second call goes on from there (5 million: 0.4 GB of
text, 4 GB of index). Encoder: static. Each run is a process of its own, whose peak memory is told: that is the driver.
Opens of vectors are written down by each process that makes them, and held against the formula of
docs/how-it-works.md: a shard opens each part that meets its range of ids once in solve and twice in select, whatever
their number. Opens of rows and of corpus files are counted by inotify, from below.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import data
import numpy as np
import pyarrow.parquet as pq
from counted import CountedIndex, opens_of
from machine import facts
from measure import heading, row
from opened import Opened

from gotd_ray import config, pipeline, stage
from gotd_ray.index import Snapshot
from gotd_ray.ot.shard import segment_bounds, segment_count, shard_segments
from gotd_ray.progress import Progress

FILE = 25_000
"""Documents of a file."""

TARGETS = 2000
STAGES = ("embed", "solve", "select")
LOADING = {"solve": 1, "select": 2}
"""How often a shard opens a part of its range: select also reads the tokens of what is ranked first."""


def sentences_of(folder: Path) -> list[str]:
    """Of 30 to 200 characters, distinct."""
    found: dict[str, None] = {}
    for path in sorted((folder / "corpus").glob("*.parquet")):
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist():
            for one in re.split(r"(?<=[.!?])\s+", text[:4000]):
                if 30 <= len(one) <= 200:
                    found[" ".join(one.split())] = None
    return list(found)


def write_corpus(folder: Path, documents: int, sentences: list[str]) -> None:
    """Files that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(-(-documents // FILE)):
        path = folder / f"part-{number:05d}.jsonl.gz"
        if path.exists():
            continue
        rng, many = np.random.default_rng(number), min(FILE, documents - number * FILE)
        draws, counts = rng.integers(0, len(sentences), (many, 3)), rng.integers(2, 4, many)
        lines = (
            json.dumps({"text": " ".join(sentences[i] for i in some[:count])})
            for some, count in zip(draws.tolist(), counts.tolist(), strict=True)
        )
        draft = path.with_suffix(".draft")
        with gzip.open(draft, "wt", compresslevel=1) as file:
            file.write("\n".join(lines) + "\n")
        draft.rename(path)


def write_target(path: Path, folder: Path) -> None:
    texts = data.texts_of(folder / "tasks" / "chemprot" / "train.parquet", 400)[:TARGETS]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def run_of(folder: Path, given: argparse.Namespace) -> config.Run:
    return config.Run.model_validate(
        {
            "out": f"{folder}/runs/{given.size}-{given.shard}",
            "index": f"{folder}/index-{given.size}",
            "corpus": {"paths": f"{folder}/corpus-{given.size}"},
            "target": {"paths": f"{folder}/target"},
            "encoder": {"kind": "static"} | ({"model": given.encoder} if given.encoder else {}),
            "solve": {"shards": given.shard},
            "select": {"budget": given.budget, "export_scores": True},
        }
    )


def peak() -> float:
    """MB of this process, at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3


def foretold(snapshot: Snapshot, shards: int) -> int:
    """Opens of vectors when each shard loads its own range."""
    count = segment_count(snapshot.rows)
    bounds = segment_bounds(count)
    ranges = [(bytes(bounds[part.start]), bytes(bounds[part.stop])) for part in shard_segments(count, shards)]
    return sum(LOADING.values()) * sum(part.meets(*ends) for ends in ranges for part in snapshot.vectors)


def one(folder: Path, given: argparse.Namespace) -> None:
    """One size and number of shards, in this process; a line of JSON."""
    run = run_of(folder, given)
    stage.Index = CountedIndex  # type: ignore[misc]
    for path in (run.out, run.index):
        Path(str(path)).mkdir(parents=True, exist_ok=True)
    corpus = Path(f"{folder}/corpus-{given.size}")
    with Opened(corpus, Path(str(run.index))) as opened:
        embedded = pipeline.execute(run, Progress(), ["embed"])
        index = embedded.collections["corpus"].index
        loads_before = opens_of(index)
        by_embed = opened.settled()
        after_embed = peak()
        done = pipeline.execute(run, Progress(), list(LOADING))
        opens = opened.settled() - by_embed
    vectors = embedded.vectors.read().candidates
    files = [count for path, count in opens.items() if Path(path).parent == corpus]
    facts = {
        "candidates": done.manifests["select"]["candidates"],  # type: ignore[index]
        "seconds": {name: done.manifests[name]["seconds"] for name in STAGES},  # type: ignore[index]
        "peak": [after_embed, peak()],
        "parts": len(vectors.vectors),
        "opens": (opens_of(index) - loads_before).total(),
        "foretold": foretold(vectors, given.shard),
        "row_opens": sum(count for path, count in opens.items() if "/corpus/rows-" in path and "/parts/" in path),
        "read_again": max(files, default=0),
        "ids": pq.read_table(f"{run.out}/select/subset.parquet", columns=["doc_id"])["doc_id"].to_pylist(),
    }
    Path(f"{run.out}/facts.json").write_text(json.dumps(facts))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--budget", type=int, default=200_000)
    parser.add_argument("--encoder", help="folder of the transformer that the static encoder is made from")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shard", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.size:
        one(given.folder, given)
        return
    source = data.folder("corpus/ and tasks/chemprot/")
    # In a process of its own: what it takes stays there.
    for size in given.documents:
        maker = multiprocessing.get_context("spawn").Process(target=_write, args=(given.folder, source, size))
        maker.start()
        maker.join()
        assert maker.exitcode == 0, "the corpus was not written"
    print(facts(), "\n")
    heading(
        *("documents", "shards", "embed, s", "solve, s", "select, s", "peak of the driver, MB", "parts of vectors"),
        *("opened / foretold", "opens of rows", "a corpus file read again, at most", "the same ids"),
    )
    for size in given.documents:
        first = None
        for shards in given.shards:
            command = [sys.executable, __file__, str(given.folder), "--size", str(size), "--shard", str(shards)]
            command += ["--budget", str(given.budget), *(["--encoder", given.encoder] if given.encoder else [])]
            subprocess.run(command, check=True)
            found = json.loads((given.folder / "runs" / f"{size}-{shards}" / "facts.json").read_text())
            first = first or found["ids"]
            row(
                *(f"{found['candidates']:,}", shards, *(f"{found['seconds'][name]:.0f}" for name in STAGES)),
                f"{max(found['peak']):,.0f}",
                *(found["parts"], f"{found['opens']} / {found['foretold']}", found["row_opens"], found["read_again"]),
                "yes" if found["ids"] == first else "NO",
            )


def _write(folder: Path, source: Path, size: int) -> None:
    write_corpus(folder / f"corpus-{size}", size, sentences_of(source))
    write_target(folder / "target" / "target.jsonl", source)


if __name__ == "__main__":
    main()
