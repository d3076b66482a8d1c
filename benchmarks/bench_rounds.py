"""How near does each selection bring the model to the task? The debiased divergence of (1 - l) corpus + l subset.

Run: GOTD_DATA=folder python benchmarks/bench_rounds.py VECTORS [seeds] [task ...]

VECTORS is a folder of ``corpus_<source>.npz`` and ``task_<name>.npz``, each with ``ids`` (n,) S32 and ``x`` (n, d)
float16. For each seed 20,000 candidates are drawn, as many of each source as there are, and of each task 2,000 train
texts: one half is the target of all methods, the other is held out. A budget's worth is taken by each method, with
near-duplicates (cosine 0.95) giving way, and the Sinkhorn divergence of the mixture from either half is computed over
all 20,000 candidates, self-terms included: not by the landmarks that selected. Lower is better; what one half is from
the other says how much of it is the noise of 1,000 texts.

DSIR needs the texts, from GOTD_DATA, and is left out without. It prefers short texts, for which its package has a least
length of 100 words; here it is 50, since texts are cut to 500 characters.

All methods share dense kernel matrices here, so that the rounds of many runs are affordable; ``main`` first holds the
dense scores against those of the package.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import vectors
from bench_figure3 import interval
from torch import Tensor

from gotd_ray.config import Select, Solve
from gotd_ray.ot.divergence import self_potential, sinkhorn_divergence
from gotd_ray.ot.potentials import Potentials
from gotd_ray.select.dsir import dsir_scores, features, log_ratio
from gotd_ray.select.mmd import Witness, median_bandwidth
from gotd_ray.select.scorers import nearest_scores, random_scores
from gotd_ray.stages.solve import PRESETS
from gotd_ray.text.documents import document_id

TASKS = ("chemprot", "agnews", "scicite", "glue_sst2")
CANDIDATES = 20_000
HALF = 1000
BUDGETS = (500, 2000)
ROUNDS = (2, 5, 10, 20)
MIX = Select().mix
OTHER_MIXES = (0.05, 0.5)
LANDMARKS = Solve().landmarks
NEAR_DUPLICATE = 0.95
TOLERANCE = 1e-3
DSIR_WORDS = 50


@dataclass
class Pool:
    """The candidates of one seed, by id."""

    ids: np.ndarray
    x: np.ndarray
    products: Tensor
    """(n, n) float32 x_i.x_j."""

    def kernel(self, epsilon: float) -> Tensor:
        """(n, n) float32 exp(-|x_i - x_j|^2 / epsilon)."""
        squares = self.products.diagonal().clone()
        found = torch.empty_like(self.products)
        for rows in torch.arange(len(squares)).split(1024):
            part = found[rows[0] : rows[-1] + 1]
            torch.mul(self.products[rows[0] : rows[-1] + 1], 2 / epsilon, out=part)
            part.sub_(squares / epsilon).sub_((squares[rows] / epsilon)[:, None]).exp_()
        return found


class Problem:
    """The candidates against one target at one epsilon."""

    def __init__(self, pool: Pool, own: Tensor, y: np.ndarray, epsilon: float):
        self.pool, self.own, self.epsilon = pool, own, epsilon
        x, z = torch.from_numpy(pool.x).double(), torch.from_numpy(y).double()
        self.cross = torch.exp(-torch.cdist(x, z).square() / epsilon)
        self.target_own = torch.exp(-torch.cdist(z, z).square() / epsilon)
        self.b = torch.full((len(y), 1), 1 / len(y), dtype=torch.float64)

    def potentials(self, a: Tensor, v: Tensor | None = None, tolerance: float = TOLERANCE) -> tuple[Tensor, Tensor]:
        """f (n, k) and v = exp(g / epsilon) (m, k) for weights a (n, k), each column a problem of its own."""
        v = torch.ones(len(self.b), a.shape[1], dtype=torch.float64) if v is None else v
        while True:
            u = self.cross @ (self.b * v)
            columns = self.b * v * (self.cross.T @ (a / u))
            if float((columns - self.b).abs().sum(0).max()) <= tolerance:
                return -self.epsilon * u.log(), v
            v = v * self.b / columns

    def divergences(self, a: Tensor, p: Tensor) -> np.ndarray:
        """S of each column of a (n, k), with its self-potential p (n, k), from the target."""
        f, v = self.potentials(a, tolerance=1e-6)
        across = (a * f).sum(0) + (self.b * self.epsilon * v.log()).sum(0)
        q = _self(self.target_own, self.b, self.epsilon)
        return (across - (a * p).sum(0) - (self.b * q).sum()).numpy()

    def discrepancies(self, a: Tensor) -> np.ndarray:
        """MMD^2 of each column of a (n, k) from the target, with this problem's kernel."""
        among = (a * (self.own @ a.float()).double()).sum(0)
        return (among - 2 * (a.T @ self.cross @ self.b)[:, 0] + self.b.T @ self.target_own @ self.b).numpy()[0]

    def debiased(self, a: Tensor, marks: np.ndarray, weights: np.ndarray, v: Tensor | None) -> tuple[Tensor, Tensor]:
        """f - p (n,) with p from weighted landmarks, and v; a landmark's own term is left out, as in the package."""
        f, v = self.potentials(a[:, None], v)
        w = torch.from_numpy(weights)
        rows = self.own[marks]
        p = _self(rows[:, marks], w[:, None], self.epsilon, 1e-4)
        lifted = w * torch.exp(p[:, 0] / self.epsilon)
        total = (lifted.float() @ rows).double()
        total[marks] = (total[marks] - lifted).clamp(min=1e-9) / (1 - w)
        return f[:, 0] + self.epsilon * total.log(), v


def _self(kernel: Tensor, a: Tensor, epsilon: float, tolerance: float = 1e-6) -> Tensor:
    """Self-potentials (n, k) of the columns of a (n, k), by the averaged iteration."""
    p = torch.zeros_like(a)
    while True:
        image = -epsilon * (kernel @ (a * torch.exp(p / epsilon)).to(kernel.dtype)).double().log()
        moved = float((image - p).abs().max())
        p = (p + image) / 2
        if moved <= tolerance * epsilon:
            return p


def take(pool: Pool, scores: np.ndarray, kept: list[int], until: int) -> None:
    """Append the best to ``kept``, near-duplicates of what is kept left out."""
    cosine = pool.products
    held = np.zeros(len(scores), bool)
    held[kept] = True
    for i in np.argsort(scores, kind="stable").tolist():
        if len(kept) >= until:
            return
        if not held[i] and (not kept or float(cosine[i, kept].max()) < NEAR_DUPLICATE):
            kept.append(i)


def weights_with(count: int, kept: list[int], share: float) -> Tensor:
    a = torch.full((count,), (1 - share) / count, dtype=torch.float64)
    a[kept] += share / len(kept)
    return a


def in_rounds(problem: Problem, budget: int, rounds: int, mix: float) -> list[int]:
    """What ``select.rounds`` takes: places in the pool."""
    count = len(problem.pool.ids)
    corpus = np.arange(LANDMARKS)  # ids are sorted: those of the smallest
    kept: list[int] = []
    v = None
    for number in range(1, rounds + 1):
        share = mix * len(kept) / budget
        a = weights_with(count, kept, share) if kept else torch.full((count,), 1 / count, dtype=torch.float64)
        mass = np.zeros(count)
        mass[corpus] = (1 - share) / len(corpus)
        some = sorted(kept)[:LANDMARKS]
        if some:
            mass[some] += share / len(some)
        marks = np.flatnonzero(mass)
        scores, v = problem.debiased(a, marks, mass[marks], v)
        take(problem.pool, scores.numpy(), kept, -(-budget * number // rounds))
    return kept


Texts = dict[bytes, str]


def texts_by_id(tasks: list[str]) -> Texts:
    """The texts of all vectors, by id; none where GOTD_DATA is not set."""
    data = os.environ.get("GOTD_DATA")
    if not data:
        print("dsir skipped: GOTD_DATA is not set", file=sys.stderr)
        return {}
    paths = [*Path(data, "corpus").glob("*.parquet"), *(Path(data, "tasks", task, "train.parquet") for task in tasks)]
    return {document_id(text).encode(): text for path in paths for text in vectors._texts(path)}


def importance(pool: Pool, target: np.ndarray, texts: Texts, seed: int) -> np.ndarray:
    """(n,) DSIR's scores of the pool for a target of these ids."""
    raw, wanted = (features([texts[doc_id] for doc_id in ids.tolist()]) for ids in (pool.ids, target))
    weights = raw.log_weights(log_ratio(wanted.counts(), raw.counts()))
    return dsir_scores(pool.ids, weights, raw.words(), min_words=DSIR_WORDS, seed=seed)


def selections(
    problem: Problem, ids: np.ndarray, y: np.ndarray, texts: Texts, budget: int, seed: int
) -> dict[str, list[int]]:
    """Places in the pool, by method, for the target y (m, d) of these ids (m,)."""
    pool = problem.pool
    uniform = torch.full((len(pool.ids), 1), 1 / len(pool.ids), dtype=torch.float64)
    marks = pool.x[:LANDMARKS]
    witness = Witness(y, marks, pool.ids[:LANDMARKS], median_bandwidth(marks, y))
    paper = Problem(pool, pool.products, y, float(PRESETS["paper"]["epsilon"]))  # type: ignore[arg-type]
    tolerance = float(PRESETS["paper"]["tolerance"])  # type: ignore[arg-type]
    scored = {
        "random": random_scores(pool.ids, seed),
        "nearest": nearest_scores(pool.x, y),
        "mmd witness": witness.scorer()(pool.ids, pool.x),
        "gotd paper": paper.potentials(uniform, tolerance=tolerance)[0][:, 0].numpy(),
    }
    if texts:
        scored["dsir"] = importance(pool, ids, texts, seed)
    found: dict[str, list[int]] = {}
    for name, scores in scored.items():
        found[name] = []
        take(pool, scores, found[name], budget)
    found["gotd debiased"] = in_rounds(problem, budget, 1, MIX)
    for rounds in ROUNDS:
        found[f"gotd debiased, {rounds} rounds"] = in_rounds(problem, budget, rounds, MIX)
    return found


Row = tuple[str, int, str]
"""Task, budget, method."""


def one_task(pool: Pool, task: str, ids: np.ndarray, y: np.ndarray, texts: Texts, seed: int) -> dict[Row, list[float]]:
    """Divergence from the fitted half and from the held-out half, and MMD^2 from the latter (median bandwidth)."""
    order = np.random.default_rng(seed).permutation(len(y))[: 2 * HALF]
    (fitted, held_out), fitted_ids = (y[order[:HALF]], y[order[HALF:]]), ids[order[:HALF]]
    x, z = pool.x.astype(np.float64), fitted.astype(np.float64)
    cost = float((x * x).sum(1).mean() + (z * z).sum(1).mean() - 2 * x.mean(0) @ z.mean(0))
    epsilon = float(PRESETS["debiased"]["epsilon"]) * cost  # type: ignore[arg-type]
    own, count = pool.kernel(epsilon), len(pool.ids)
    problem = Problem(pool, own, fitted, epsilon)
    nothing = torch.full((count,), 1 / count, dtype=torch.float64)
    columns: dict[Row, Tensor] = {}
    for budget in BUDGETS:
        columns[task, budget, "nothing taken"] = nothing
        for name, kept in selections(problem, fitted_ids, fitted, texts, budget, seed).items():
            columns[task, budget, name] = weights_with(count, kept, MIX)
    for mix in OTHER_MIXES:
        for rounds in (1, 10):
            kept = in_rounds(problem, BUDGETS[-1], rounds, mix)
            columns[task, BUDGETS[-1], f"mix {mix:g}, {rounds} rounds"] = weights_with(count, kept, mix)
    a = torch.stack(list(columns.values()), 1)
    p = _self(own, a, epsilon)
    found = [problem.divergences(a, p), Problem(pool, own, held_out, epsilon).divergences(a, p)]
    del own, problem
    width = 2 * median_bandwidth(pool.x, held_out)
    found.append(Problem(pool, pool.kernel(width), held_out, width).discrepancies(a))
    values = {row: [float(part[i]) for part in found] for i, row in enumerate(columns)}
    uniform = np.full(HALF, 1 / HALF)
    halves = sinkhorn_divergence(fitted, uniform, held_out, uniform, epsilon)
    return values | {(task, budget, "the fitted half alone"): [0.0, halves, 0.0] for budget in BUDGETS}


def draw(folder: Path, seed: int, count: int = CANDIDATES) -> Pool:
    """The same number of each source, as far as it has them; more of the others where one is small."""
    files = sorted(folder.glob("corpus_*.npz"))
    rng = np.random.default_rng(seed)
    parts, left = [], count
    for n, path in enumerate(sorted(files, key=lambda path: len(np.load(path)["ids"]))):
        held = np.load(path)
        size = min(len(held["ids"]), left // (len(files) - n))
        chosen = rng.permutation(len(held["ids"]))[:size]
        parts.append((held["ids"][chosen], held["x"][chosen]))
        left -= size
    ids, first = np.unique(np.concatenate([ids for ids, _ in parts]), return_index=True)
    x = np.concatenate([x for _, x in parts])[first].astype(np.float32)
    return Pool(ids, x, torch.from_numpy(x) @ torch.from_numpy(x).T)


def agrees(folder: Path) -> None:
    """Dense scores and divergences against the package's, on a small draw."""
    pool = draw(folder, 0, 1500)
    y = np.load(folder / f"task_{TASKS[0]}.npz")["x"][:200].astype(np.float32)
    epsilon, count, marks = 0.45, len(pool.ids), 400
    problem = Problem(pool, pool.kernel(epsilon), y, epsilon)
    a = weights_with(count, [3, 500, 900], 0.2)
    mass = np.zeros(count)
    mass[:marks] = 0.8 / marks
    mass[[3, 500, 900]] += 0.2 / 3
    places = np.flatnonzero(mass)
    dense, v = problem.debiased(a, places, mass[places], None)
    own = self_potential(pool.x[places], epsilon, weights=mass[places])
    b = problem.b[:, 0].numpy()
    g = epsilon * np.log(v[:, 0].numpy())
    ours = Potentials(y, b, g, epsilon, pool.x[places], pool.ids[places], own, mass[places]).scorer()
    np.testing.assert_allclose(ours(pool.ids, pool.x), dense.numpy(), atol=2e-5)
    measured = sinkhorn_divergence(pool.x, a.numpy(), y, b, epsilon)
    np.testing.assert_allclose(
        problem.divergences(a[:, None], _self(problem.own, a[:, None], epsilon)), measured, atol=2e-6
    )


def main() -> None:
    if len(sys.argv) < 2 or not any(Path(sys.argv[1]).glob("corpus_*.npz")):
        print("skipped: give a folder with corpus_<source>.npz and task_<name>.npz")
        return
    folder = Path(sys.argv[1])
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    tasks = sys.argv[3:] or TASKS
    agrees(folder)
    texts = texts_by_id(list(tasks))
    results: dict[Row, list[list[float]]] = {}
    for seed in range(seeds):
        pool = draw(folder, seed)
        for task in tasks:
            held = np.load(folder / f"task_{task}.npz")
            found = one_task(pool, task, held["ids"], held["x"].astype(np.float32), texts, seed)
            for row, values in found.items():
                results.setdefault(row, []).append(values)
                print("#", seed, *row, *values, sep="\t", file=sys.stderr)
            print(f"seed {seed}, {task}", file=sys.stderr, flush=True)
    report(results)


def report(results: dict[Row, list[list[float]]]) -> None:
    """One row of the table per task, budget and method."""
    print(
        "| task | budget | method | fitted half | held-out half | 95% interval | gain on held-out, one round = 1 "
        "| held-out, MMD^2 |\n|---|---|---|---|---|---|---|---|"
    )
    for (task, budget, name), values in results.items():
        fitted, held_out, other = zip(*values, strict=True)
        once = "gotd debiased" if not name.startswith("mix") else name.replace("10 rounds", "1 rounds")
        nothing, reference = (results[task, budget, method] for method in ("nothing taken", once))
        gains = [(n[1] - mine) / (n[1] - o[1]) for n, o, mine in zip(nothing, reference, held_out, strict=True)]
        low, high = interval(list(held_out))
        least, most = interval(gains)
        print(
            f"| {task} | {budget} | {name} | {np.mean(fitted):.4f} | {np.mean(held_out):.4f} | {low:.4f} to {high:.4f} "
            f"| {np.mean(gains):.3f} ({least:.3f} to {most:.3f}) | {f'{np.mean(other):.5f}' if any(other) else ''} |"
        )


if __name__ == "__main__":
    main()
