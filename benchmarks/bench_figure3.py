"""The paper's Figure 3 with real text: which score finds the source that the pool lacks?

Run: GOTD_DATA=folder python benchmarks/bench_figure3.py [seeds]

The pool is 4,000 documents of source A and 300 of B; the target is 200 others of each. The model "knows" the pool, so
the documents that move it towards the target are B's. Reported is B's share of the first documents by each score (7%
by chance), the mean over seeds with a 95% bootstrap interval. Texts are cut to 600 characters and encoded with MiniLM.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from gotd_ray.config import Encoder, Select, Solve
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.fit import fit, levels, mean_cost
from gotd_ray.ot.kernel import side
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.shard import Shard, make_segments, segment_count
from gotd_ray.select.mmd import Witness, median_bandwidth
from gotd_ray.select.scorers import nearest_scores, random_scores
from gotd_ray.stages.solve import PRESETS
from gotd_ray.text.documents import document_id

PAIRS = (("arxiv_cs", "arxiv_bio", 100), ("recipes", "legal_docs", 300))
POOL = (4000, 300)
TARGET = 200
LANDMARK_COUNTS = (512, 1024, Solve().landmarks, sum(POOL))
"""The default, fewer, and all candidates."""


def embed(data: Path, source: str, encoder: TextEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Ids and vectors of a fixed sample of a source, large enough for every seed's draw."""
    texts = sorted({text[:600] for text in pq.read_table(data / "corpus" / f"{source}.parquet")["text"].to_pylist()})
    order = np.random.default_rng(0).permutation(len(texts))[:6000]
    texts = [texts[i] for i in order]
    return np.array([document_id(text) for text in texts], dtype="S32"), encoder.encode(texts)


def gotd_scores(ids: np.ndarray, x: np.ndarray, y: np.ndarray, preset: str, landmarks: int) -> np.ndarray:
    """Scores of a pool (n,) with sorted ids by one preset."""
    count, b = segment_count(len(ids)), np.full(len(y), 1.0 / len(y))
    shard = Shard(make_segments(ids, x, count, range(count)))
    settings = PRESETS[preset]
    unit = mean_cost(shard.moments(float(len(ids))), y, b) if settings["epsilon_unit"] == "mean_cost" else 1.0
    epsilon = float(settings["epsilon"]) * unit  # type: ignore[arg-type]
    target = side(torch.from_numpy(y), torch.from_numpy(b), epsilon)
    solution = fit(
        lambda g, level: shard.columns(target, g, float(level.rows), level.stride),
        levels(shard.rows, len(y), count),
        b,
        epsilon=epsilon,
        tolerance=float(settings["tolerance"]),  # type: ignore[arg-type]
        max_passes=500,
    )
    if preset == "paper":
        return Potentials(y, b, solution.g, epsilon).scorer()(ids, x)
    marks = x[:landmarks].astype(np.float32)
    own = self_potential(marks, epsilon)
    return Potentials(y, b, solution.g, epsilon, marks, ids[:landmarks], own).scorer()(ids, x)


def mmd_scores(ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The MMD witness (n,) at the defaults, for sorted ids."""
    count = Select().landmarks
    marks = x[:count].astype(np.float32)
    return Witness(y, marks, ids[:count], median_bandwidth(marks, y)).scorer()(ids, x)


def scores(ids: np.ndarray, x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Scores of a pool (n,) by each method, lower is better; ids are sorted."""
    found = {"nearest": nearest_scores(x, y), "random": random_scores(ids, seed), "mmd witness": mmd_scores(ids, x, y)}
    for landmarks in LANDMARK_COUNTS:
        found[f"gotd debiased, {landmarks} landmarks"] = gotd_scores(ids, x, y, "debiased", landmarks)
    found["gotd paper"] = gotd_scores(ids, x, y, "paper", 0)
    return found


def one_seed(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], budget: int, seed: int) -> dict:
    """Share of B among the first ``budget`` documents, by method."""
    rng = np.random.default_rng(seed)
    parts = [(ids[order], x[order]) for ids, x in (a, b) for order in [rng.permutation(len(ids))]]
    ids = np.concatenate([part[0][:size] for part, size in zip(parts, POOL, strict=True)])
    x = np.concatenate([part[1][:size] for part, size in zip(parts, POOL, strict=True)])
    y = np.concatenate([part[1][size : size + TARGET] for part, size in zip(parts, POOL, strict=True)])
    is_b = np.repeat([0.0, 1.0], POOL)
    order = np.argsort(ids)
    found = scores(ids[order], x[order], y.astype(np.float32), seed)
    return {name: is_b[order][np.argsort(values, kind="stable")[:budget]].mean() for name, values in found.items()}


def interval(values: list[float]) -> tuple[float, float]:
    """95% bootstrap interval of the mean."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    data = os.environ.get("GOTD_DATA")
    if not data:
        print("skipped: set GOTD_DATA to a folder with corpus/")
        return
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    encoder = TextEncoder(Encoder())
    print("| pool + rare source | first | score | seeds 0-2 | all seeds | 95% interval |\n|---|---|---|---|---|---|")
    for a, b, budget in PAIRS:
        sources = embed(Path(data), a, encoder), embed(Path(data), b, encoder)
        results = [one_seed(*sources, budget, seed) for seed in range(seeds)]
        for name in results[0]:
            values = [float(result[name]) for result in results]
            low, high = interval(values)
            row = f"{np.mean(values[:3]):.3f} | {np.mean(values):.3f} | {low:.3f} to {high:.3f}"
            print(f"| {a} + {b} | {budget} | {name} | {row} |")


if __name__ == "__main__":
    main()
