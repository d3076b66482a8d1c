"""How near does each selection bring the model to the task? The debiased divergence of (1 - l) corpus + l subset.

Run: GOTD_DATA=folder python benchmarks/bench_rounds.py --vectors cache [--seeds 3] [--tasks chemprot agnews ...]

For each seed 20,000 candidates are drawn, as many of each source as there are, and of each task 2,000 train texts: one
half is the target of all methods, the other is held out. A budget's worth is taken by each method through the package's
own stages (the fits, the scores, the rounds and the choice with its near-duplicates, see product.py), and the Sinkhorn
divergence of the mixture from either half is computed over all candidates, self-terms included: not by the landmarks
that selected, and by code of the benchmark's own (mixtures.py), which is first held against the package's. Lower is
better; what one half is from the other says how much of it is the noise of 1,000 texts.

DSIR needs the texts, from GOTD_DATA, and is left out without. It prefers short texts, for which its package has a least
length of 100 words; here it is 50, since texts are cut to 500 characters.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import data
import mixtures
import numpy as np
import torch
import vectors
from machine import facts
from measure import heading, interval, row
from product import Library
from torch import Tensor

from gotd_ray.choosing.dsir import dsir_scores, features, log_ratio
from gotd_ray.choosing.mmd import median_bandwidth
from gotd_ray.config import Select
from gotd_ray.ot.divergence import sinkhorn_divergence
from gotd_ray.ot.potentials import Potentials

TASKS = ("chemprot", "agnews", "scicite")
MIX = Select().mix
DSIR_WORDS = 50
NOTHING, ONCE, HALVES = "nothing taken", "debiased", "the fitted half alone"

Row = tuple[str, int, str]
"""Task, budget, method."""

Texts = dict[bytes, str]


class Halves:
    """A task's target and as many texts that are held out."""

    def __init__(self, path: Path, size: int, seed: int):
        held = np.load(path)
        order = np.random.default_rng(seed).permutation(len(held["ids"]))[: 2 * size]
        if len(order) < 2 * size:
            sys.exit(f"{path} has {len(order)} texts, wanted are {2 * size}: lower --half")
        self.ids = held["ids"][order[:size]]
        self.fitted, self.held_out = held["x"][order[:size]], held["x"][order[size:]]


def draw(cache: Path, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The same number of each source, as far as it has them; more of the others where one is small.

    Returns:
        ids (n,) S32, ascending, and vectors (n, d) float16.
    """
    rng, parts, left = np.random.default_rng(seed), [], count
    sources = sorted((np.load(path) for path in sorted(cache.glob("corpus_*.npz"))), key=lambda held: len(held["ids"]))
    for n, held in enumerate(sources):
        ids = held["ids"]
        chosen = rng.permutation(len(ids))[: left // (len(sources) - n)]
        parts.append((ids[chosen], held["x"][chosen]))
        left -= len(chosen)
    ids, first = np.unique(np.concatenate([ids for ids, _ in parts]), return_index=True)
    return ids, np.concatenate([x for _, x in parts])[first]


def texts_by_id(tasks: Sequence[str]) -> Texts:
    """The texts of all vectors, by id; none where GOTD_DATA is not set."""
    found = os.environ.get("GOTD_DATA")
    if not found:
        print("dsir skipped: GOTD_DATA is not set", file=sys.stderr)
        return {}
    paths = [*Path(found, "corpus").glob("*.parquet"), *(Path(found, "tasks", task, "train.parquet") for task in tasks)]
    texts = [text for path in paths for text in data.texts_of(path, vectors.MAX_CHARS)]
    return dict(zip(vectors.ids_of(texts).tolist(), texts, strict=True))


def importance(ids: np.ndarray, target: np.ndarray, texts: Texts, seed: int) -> np.ndarray:
    """(n,) DSIR's scores of the candidates for a target of these ids."""
    raw, wanted = (features([texts[doc_id] for doc_id in some.tolist()]) for some in (ids, target))
    weights = raw.log_weights(log_ratio(wanted.counts(), raw.counts()))
    return dsir_scores(ids, weights, raw.words(), min_words=DSIR_WORDS, seed=seed)


def selections(
    library: Library, solved: Potentials, target: np.ndarray, texts: Texts, seed: int, given: argparse.Namespace
) -> dict[tuple[int, str], tuple[np.ndarray, float]]:
    """By budget and method: what it takes, as places in the library, and its share of the mixture."""
    scores = {
        "random": library.scores("random", seed),
        "nearest": library.scores("nearest"),
        "mmd witness": library.scores("mmd"),
        "paper": library.scores(library.solve(preset="paper")),
    }
    if texts:
        scores["dsir"] = importance(library.ids, target, texts, seed)
    once = library.scores(solved)

    def taken(budget: int, rounds: int, mix: float) -> tuple[np.ndarray, float]:
        return library.choose(once, solved, budget=budget, rounds=rounds, mix=mix), mix

    found: dict[tuple[int, str], tuple[np.ndarray, float]] = {}
    for budget in given.budgets:
        found |= {(budget, name): (library.choose(some, budget=budget), MIX) for name, some in scores.items()}
        found[budget, ONCE] = taken(budget, 1, MIX)
        found |= {(budget, f"{ONCE}, {rounds} rounds"): taken(budget, rounds, MIX) for rounds in given.rounds}
    most = max(given.budgets)
    for mix in given.mixes:
        found[most, f"mix {mix:g}, 1 round"] = taken(most, 1, mix)
        found |= {(most, f"mix {mix:g}, {rounds} rounds"): taken(most, rounds, mix) for rounds in given.rounds[-1:]}
    return found


def one_task(
    ids: np.ndarray, pool: mixtures.Pool, x: np.ndarray, task: str, texts: Texts, seed: int, given: argparse.Namespace
) -> dict[Row, list[float]]:
    """Divergence from the fitted half and from the held-out half, and MMD^2 from the latter (median bandwidth)."""
    halves = Halves(given.vectors / f"task_{task}.npz", given.half, seed)
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder), ids, x, halves.ids, halves.fitted)
        solved = library.solve(preset="debiased")
        chosen = selections(library, solved, halves.ids, texts, seed, given)
    columns: dict[Row, Tensor] = {}
    for budget in given.budgets:
        columns[task, budget, NOTHING] = torch.full((len(ids),), 1 / len(ids), dtype=torch.float64)
    columns |= {
        (task, budget, name): mixtures.mixed(len(ids), kept, mix) for (budget, name), (kept, mix) in chosen.items()
    }
    found = measured(pool, halves, torch.stack(list(columns.values()), 1), solved.epsilon)
    uniform = np.full(given.half, 1 / given.half)
    apart = sinkhorn_divergence(halves.fitted, uniform, halves.held_out, uniform, solved.epsilon)
    values = {row: [float(part[i]) for part in found] for i, row in enumerate(columns)}
    return values | {(task, budget, HALVES): [0.0, apart, 0.0] for budget in given.budgets}


def measured(pool: mixtures.Pool, halves: Halves, a: Tensor, epsilon: float) -> list[np.ndarray]:
    """The three numbers of :func:`one_task` of each column of a (n, k)."""
    own = pool.kernel(epsilon)
    p = mixtures.self_potentials(own, a, epsilon)
    found = [mixtures.Target(pool, own, y, epsilon).divergences(a, p) for y in (halves.fitted, halves.held_out)]
    del own
    width = 2 * median_bandwidth(pool.x, halves.held_out)
    return [*found, mixtures.Target(pool, pool.kernel(width), halves.held_out, width).discrepancies(a)]


def referee_agrees(x: np.ndarray, y: np.ndarray) -> None:
    """The referee's divergence of a small mixture against the package's."""
    epsilon, pool = 0.45, mixtures.Pool(x)
    a, own = mixtures.mixed(len(x), np.array([3, len(x) // 2]), 0.2), pool.kernel(epsilon)
    p = mixtures.self_potentials(own, a[:, None], epsilon)
    found = mixtures.Target(pool, own, y, epsilon).divergences(a[:, None], p)
    package = sinkhorn_divergence(pool.x, a.numpy(), y, np.full(len(y), 1 / len(y)), epsilon)
    np.testing.assert_allclose(found, package, atol=2e-6)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=Path("vectors"), help="cache folder, see vectors.py")
    parser.add_argument("--most", type=int, help="texts of a source to encode, where the cache has none; all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--half", type=int, default=1000, help="texts of the target, and as many held out")
    parser.add_argument("--budgets", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--rounds", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--mixes", type=float, nargs="*", default=[0.05, 0.5], help="besides the default")
    given = parser.parse_args(argv)
    vectors.complete(given.vectors, given.tasks, given.most, None if given.most is None else 2 * given.half)
    if not any(given.vectors.glob("corpus_*.npz")):
        data.folder()
    print(f"- {facts()}\n")
    texts = texts_by_id(given.tasks)
    results: dict[Row, list[list[float]]] = {}
    for seed in range(given.seeds):
        ids, x = draw(given.vectors, seed, given.candidates)
        pool = mixtures.Pool(x)
        referee_agrees(x[:1500], np.load(given.vectors / f"task_{given.tasks[0]}.npz")["x"][:200])
        for task in given.tasks:
            for key, values in one_task(ids, pool, x, task, texts, seed, given).items():
                results.setdefault(key, []).append(values)
            print(f"seed {seed}, {task}", file=sys.stderr, flush=True)
    report(results)


def report(results: dict[Row, list[list[float]]]) -> None:
    """One line of the table per task, budget and method."""
    heading("task", "budget", "method", "fitted half", "held-out half", "gain", "held-out, MMD^2")
    for (task, budget, name), values in results.items():
        fitted, held_out, other = zip(*values, strict=True)
        once = ONCE if not name.startswith("mix") else f"{name.split(',')[0]}, 1 round"
        nothing, reference = (results[task, budget, method] for method in (NOTHING, once))
        gains = [(n[1] - mine) / (n[1] - o[1]) for n, o, mine in zip(nothing, reference, held_out, strict=True)]
        low, high = interval(gains)
        row(
            *(task, budget, name, f"{np.mean(fitted):.4f}", f"{np.mean(held_out):.4f}"),
            *(f"{np.mean(gains):.3f} ({low:.3f} to {high:.3f})", f"{np.mean(other):.5f}" if any(other) else ""),
        )


if __name__ == "__main__":
    main()
