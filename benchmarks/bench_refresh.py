"""A month of daily refreshes of a corpus that grows: what each day costs, and whether the last is a run from nothing.

Run: GOTD_DATA=folder python benchmarks/bench_refresh.py FOLDER [--documents 20000] [--days 30]

Each day 2% of new documents come and 0.5% go, all of folder/corpus but one source, which comes whole at mid-month. The
target is folder/tasks/chemprot. Day 0 is the first version. Each day is refreshed a second time elsewhere, over the
same index, with refresh.refit_above 0: the column "as fitted" counts the documents of the subset that both have. At the
end the same corpus is refreshed once more, unchanged, and run from nothing with an index of its own. Ray is started
once, before the first day.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data
import numpy as np
import pyarrow.parquet as pq
import ray
from machine import facts
from measure import heading, row

from gotd_ray import config, pipeline, refresh
from gotd_ray.cluster import start_private
from gotd_ray.progress import Progress

FILES = 200
"""Of the first day: one of them goes each day."""

NEW, TARGETS, CHARS = 0.02, 500, 400


class Library:
    """A corpus on disk that changes from day to day."""

    def __init__(self, folder: Path, source: Path, documents: int, late: str) -> None:
        self.folder, self.count = folder, documents
        texts = {path.stem: data.texts_of(path, CHARS) for path in sorted((source / "corpus").glob("*.parquet"))}
        self._late = [(late, text) for text in texts.pop(late)]
        pool = [(name, text) for name, some in texts.items() for text in some]
        order = np.random.default_rng(0).permutation(len(pool))
        self._waiting = iter([pool[i] for i in order])
        self._sizes: dict[str, int] = {}
        each = max(1, documents // FILES)
        for number in range(-(-documents // each)):
            self._write(f"base-{number:03d}", min(each, documents - number * each))
        target = folder / "target" / "target.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        wanted = data.texts_of(source / "tasks" / "chemprot" / "train.parquet", CHARS)[:TARGETS]
        target.write_text("".join(json.dumps({"text": text}) + "\n" for text in wanted))

    def _write(self, name: str, many: int, rows: list[tuple[str, str]] | None = None) -> None:
        rows = rows or [next(self._waiting) for _ in range(many)]
        path = self.folder / "corpus" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"source": source, "text": text}) + "\n" for source, text in rows))
        self._sizes[name] = len(rows)

    def next_day(self, day: int, late: bool) -> tuple[int, int]:
        """How many documents have come and gone."""
        many = math.ceil(NEW * self.count)
        self._write(f"day-{day:02d}", many)
        if late:
            extra = self._late[: max(1, self.count // 10)]
            self._write("late", 0, extra)
            many += len(extra)
        first = min(name for name in self._sizes if name.startswith("base-"))
        (self.folder / "corpus" / f"{first}.jsonl").unlink()
        gone = self._sizes.pop(first)
        self.count += many - gone
        return many, gone


def run_of(folder: Path, out: str, given: argparse.Namespace, **sections: Any) -> config.Run:
    return config.Run.model_validate(
        {
            "out": f"{folder}/{out}",
            "index": f"{folder}/index",
            "corpus": {"paths": f"{folder}/corpus", "source_column": "source"},
            "target": {"paths": f"{folder}/target"},
            "chunks": {"max_chars": None},
            "encoder": {"max_tokens": given.max_tokens},
            "select": {"budget": given.budget},
        }
        | sections
    )


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def subset_of(found: refresh.Refreshed) -> list[str]:
    assert found.pointer
    return pq.read_table(Path(found.versions.out) / found.pointer.subset)["doc_id"].to_pylist()


def a_day(run: config.Run) -> tuple[refresh.Refreshed, float]:
    started = time.perf_counter()
    found = refresh.refresh(run, Progress())
    return found, time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--late", default="arxiv_bio", help="the source that comes at mid-month")
    given = parser.parse_args(argv)
    folder = given.folder
    library = Library(folder, data.folder(), given.documents, given.late)
    print(facts(), "\n")
    heading(
        *("day", "documents", "came", "went", "encoded", "seconds", "embed", "solve", "drift", "fit", "select"),
        *("subset new", "as fitted", "index, MB", "versions, MB"),
    )
    if not ray.is_initialized():
        start_private(None)
    run, fitted = run_of(folder, "out", given), run_of(folder, "fitted", given, refresh={"refit_above": 0.0})
    came, went = library.count, 0
    for day in range(given.days + 1):
        if day:
            came, went = library.next_day(day, day == given.days // 2)
        found, seconds = a_day(run)
        known, spent = found.facts, found.facts["seconds"]
        ids, beside = subset_of(found), subset_of(a_day(fitted)[0])
        drift = known["drift"]
        row(
            *(day, f"{known['documents']['corpus']['now']:,}", f"{came:,}", went, f"{known['encoded']['corpus']:,}"),
            *(f"{seconds:.1f}", f"{spent['embed']:.1f}", f"{spent['solve']:.1f}"),
            *("" if drift is None else f"{drift:.4f}", f"{known['fit']['reason']}, {known['fit']['passes']:.2g}"),
            *(f"{spent['select']:.1f}", known["documents"]["subset"]["in"], f"{len(set(ids) & set(beside))}"),
            *(f"{megabytes(folder / 'index'):.1f}", f"{megabytes(folder / 'out'):.1f}"),
        )
    again, idle = a_day(run)
    assert not again.ran, "something was new"
    started = time.perf_counter()
    alone = run_of(folder, "nothing", given, index=f"{folder}/nothing-index")
    done = pipeline.execute(alone, Progress())
    seconds = time.perf_counter() - started
    scratch = pq.read_table(done.artifacts["select"].path("subset.parquet"))["doc_id"].to_pylist()
    print()
    heading("after the last day", "seconds", "encoded", "documents in common with", "of", "near the cut")
    common = [len(set(scratch) & set(some)) for some in (ids, beside)]
    encoded, near = done.ran["embed"]["corpus"]["embedded_now"], done.ran["select"].get("near_cut")
    row("unchanged", f"{idle:.1f}", 0, "", "", "")
    row("from nothing", f"{seconds:.1f}", f"{encoded:,}", f"{common[0]} the last version", len(scratch), near)
    row("", "", "", f"{common[1]} the last one fitted each day", len(scratch), "")


if __name__ == "__main__":
    main()
