"""What a cascade keeps of the best documents, and what it saves of the encoding, on the CPU.

Run: GOTD_DATA=folder python benchmarks/bench_cascade.py vectors/ [--documents 10000]

folder/corpus holds Parquet files with a ``text`` column, folder/tasks/<task>/train.parquet the targets. All texts are
encoded by both encoders once, in parts that are kept in the cache, so that a run that was stopped goes on. The corpus
is of equal parts of each source, the first ``--documents`` of them in a random order; targets are ``--tasks``, and
besides ``--drawn`` random ones: texts of one to eight sources that are not in the corpus. Agreement is with the first
documents by the exact debiased score of the whole corpus. Time is CPU time of one thread, which others on the machine
do not change much.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import data
import numpy as np
import torch
from machine import facts
from measure import heading, row
from vectors import ids_of

from gotd_ray.choosing.recall import AMONG_THE_BEST, FITTED, cut_for
from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.ot.local import potentials_local

PART = 512
"""Texts of a part of the cache."""

KINDS = ("full", "static")
"""The transformer, and the static encoder that is made from it."""


@dataclass(frozen=True)
class Side:
    """Texts by both encoders: ids (n,) S32, and vectors (n, d) float16 of each."""

    ids: np.ndarray
    full: np.ndarray
    static: np.ndarray

    def part(self, rows: np.ndarray) -> Side:
        return Side(self.ids[rows], self.full[rows], self.static[rows])

    def and_(self, other: Side) -> Side:
        both = (np.concatenate(pair) for pair in zip(self.arrays, other.arrays, strict=True))
        return Side(*both)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.ids, self.full, self.static


@dataclass(frozen=True)
class Cache:
    """A folder of the texts and their vectors."""

    folder: Path
    model: str
    max_tokens: int

    @cached_property
    def encoders(self) -> dict[str, TextEncoder]:
        return {
            "full": TextEncoder(Encoder(model=self.model, max_tokens=self.max_tokens)),
            "static": TextEncoder(Encoder(model=self.model, kind="static", max_tokens=self.max_tokens)),
        }

    def texts(self, per_source: int, per_task: int, chars: int) -> dict[str, Any]:
        """Of each source and task a random draw; the corpus's mixed."""
        path = self.folder / "texts.json"
        if not path.exists():
            root = data.folder()
            self.folder.mkdir(parents=True, exist_ok=True)
            texts: list[str] = []
            sources: list[str] = []
            for file in sorted((root / "corpus").glob("*.parquet")):
                found = _some(file, per_source, chars)
                texts, sources = texts + found, sources + [file.stem] * len(found)
            order = np.random.default_rng(1).permutation(len(texts))
            tasks = {
                file.parent.name: _some(file, per_task, chars)
                for file in sorted((root / "tasks").glob("*/train.parquet"))
            }
            named = {"texts": [texts[i] for i in order], "src": [sources[i] for i in order], "tasks": tasks}
            path.write_text(json.dumps(named))
        return json.loads(path.read_text())

    def side(self, name: str, texts: list[str]) -> Side:
        found = []
        for kind in KINDS:
            path = self.folder / f"{name}_{kind}.npy"
            if not path.exists():
                scratch = self.folder / f"{os.getpid()}.npy"
                np.save(scratch, self.encoders[kind].encode(texts))
                scratch.rename(path)
            found.append(np.load(path))
        return Side(ids_of(texts), *found)


def _some(file: Path, count: int, chars: int) -> list[str]:
    texts = data.texts_of(file, chars)
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]


def scored(fitted: Side, target: Side, every: Side, kind: str, salt: str = "") -> np.ndarray:
    """(n,) debiased scores of all, fitted to some; another salt draws other landmarks."""

    def named(ids: np.ndarray) -> np.ndarray:
        if not salt:
            return ids
        return np.array([hashlib.blake2b(salt.encode() + one, digest_size=16).hexdigest() for one in ids], "S32")

    x, y, z = (getattr(one, kind) for one in (fitted, target, every))
    found = potentials_local(x, named(fitted.ids), y, named(target.ids), threads=1)
    return found.scorer("float32")(named(every.ids), z)


def first(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(scores, kind="stable")[:k]


def common(ours: np.ndarray, theirs: np.ndarray) -> float:
    return len(np.intersect1d(ours, theirs)) / len(theirs)


@dataclass(frozen=True)
class Outcome:
    """Of one cascade: share of the corpus that is encoded; of the best, how many are kept, how many are taken."""

    encoded: float
    recall: float
    agreement: float


class Case:
    """One target against the corpus."""

    def __init__(self, corpus: Side, target: Side, sample: int):
        self.corpus, self.target, self.sample = corpus, target, sample
        self.exact = scored(corpus, target, corpus, "full")
        self.others = scored(corpus, target, corpus, "full", "other")
        self.cheap = scored(corpus, target, corpus, "static")
        self._fits: dict[int, np.ndarray] = {}

    def sampled(self, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the smallest ids, as the product draws them, and the scores of all by a fit to these."""
        rows = np.argsort(self.corpus.ids)[:wanted]
        if len(rows) not in self._fits:
            self._fits[len(rows)] = scored(self.corpus.part(rows), self.target, self.corpus, "full")
        return rows, self._fits[len(rows)]

    def two_draws(self, budget: int) -> float:
        return common(first(self.others, budget), first(self.exact, budget))

    def fixed(self, share: float, budget: int) -> Outcome:
        cut = np.sort(self.cheap)[math.ceil(share * len(self.cheap)) - 1]
        return self._outcome(budget, cut, *self.sampled(self.sample))

    def auto(self, budget: int) -> tuple[float, Outcome]:
        """The recall of what lies below its cut, without the sample; and what comes of it."""
        n = len(self.cheap)
        rows, exact = self.sampled(min(n, max(self.sample, math.ceil(AMONG_THE_BEST * n / budget))))
        cut = cut_for(self.cheap[rows], exact[rows], budget / n).cut
        return float((self.cheap[first(self.exact, budget)] <= cut).mean()), self._outcome(budget, cut, rows, exact)

    def _outcome(self, budget: int, cut: float, rows: np.ndarray, exact: np.ndarray) -> Outcome:
        kept = np.union1d(np.flatnonzero(self.cheap <= cut), rows)
        taken, best = kept[first(exact[kept], budget)], first(self.exact, budget)
        return Outcome(len(kept) / len(self.cheap), common(kept, best), common(taken, best))


def speeds(cache: Cache, texts: list[str]) -> dict[str, float]:
    """CPU seconds of a thousand texts, tokenising included."""
    found = {}
    for kind, encoder in cache.encoders.items():
        encoder.encode(texts[:32])
        started = time.process_time()
        encoder.encode(texts)
        found[kind] = (time.process_time() - started) / len(texts) * 1000
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path, help="folder for the vectors")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--budgets", type=int, nargs="*", default=[500, 1000])
    parser.add_argument("--tasks", nargs="*", default=["chemprot", "agnews"])
    parser.add_argument("--drawn", type=int, default=20)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.2, 0.3])
    parser.add_argument("--per-source", type=int, default=900)
    parser.add_argument("--per-task", type=int, default=400)
    parser.add_argument("--chars", type=int, default=400, help="that a text is cut to")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--sample", type=int, default=FITTED, help="documents that a cascade fits to, at the least")
    parser.add_argument("--model", default=Encoder().model)
    parser.add_argument("--timed", type=int, default=256, help="texts whose encoding is timed")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    cache = Cache(given.cache, given.model, given.max_tokens)
    held = cache.texts(given.per_source, given.per_task, given.chars)
    texts, sources = held["texts"], np.array(held["src"])
    aside = 1024 if given.drawn else 0
    total = min(given.documents + aside, len(texts))
    parts = [cache.side(f"c{start:06d}", texts[start : start + PART]) for start in range(0, total, PART)]
    every = parts[0]
    for part in parts[1:]:
        every = every.and_(part)
    rest = np.arange(len(every.ids))[:aside]
    corpus = every.part(np.arange(aside, min(len(every.ids), aside + given.documents)))
    targets = {name: cache.side(f"task_{name}", held["tasks"][name]) for name in given.tasks}
    if len(targets) == 2:
        one, other = (side.part(np.arange(len(side.ids) // 2)) for side in targets.values())
        targets[" + ".join(targets)] = one.and_(other)
    draw = np.random.default_rng(2)
    for number in range(given.drawn):
        some = draw.choice(np.unique(sources), (1, 2, 4, 8)[number % 4], replace=False)
        targets[f"drawn {number}: {', '.join(some)}"] = every.part(rest[np.isin(sources[rest], some)])
    taken = speeds(cache, texts[: given.timed])
    print(f"- {facts(('torch', 'transformers', 'tokenizers'))}")
    print(f"- {len(corpus.ids):,} texts of {len(np.unique(sources))} sources, cut to {given.chars} characters")
    print(
        f"- CPU seconds of a thousand texts: {taken['full']:.1f} in full, {taken['static']:.2f} static; of "
        f"{given.timed} timed\n"
    )
    names = [f"{share:.0%}" for share in given.shares]
    heading("target", "budget", "two draws of landmarks", *names, "auto: encoded", "its recall", "agreement")
    held_up = []
    for name, target in targets.items():
        case = Case(corpus, target, given.sample)
        for budget in given.budgets:
            fixed = [case.fixed(share, budget) for share in given.shares]
            recall, auto = case.auto(budget)
            held_up.append(recall >= 0.97)
            row(
                f"{name} ({len(target.ids)})",
                budget,
                f"{case.two_draws(budget):.3f}",
                *(f"{one.agreement:.3f} ({one.encoded:.2f})" for one in fixed),
                f"{auto.encoded:.2f}",
                f"{recall:.3f}",
                f"{auto.agreement:.3f}",
            )
    print(f"\nThe recall that auto states, 0.97, holds for {sum(held_up)} of {len(held_up)}.")


if __name__ == "__main__":
    main()
