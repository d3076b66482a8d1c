"""One pass of ours: against the bare arithmetic it cannot do without, and as the corpus grows.

Run: GOTD_DATA=folder python benchmarks/bench_pass.py --vectors cache [--rows 50000] [--small 200000 --large 1000000]

1. A pass (column sums of the plan over all candidates, float16 vectors in memory) against the bare matmul and
   exponential of the same tiles: same buffers, same threads, same precision of the matmul, its input already as the
   matmul wants it, exp2 in place, nothing else. So for the exact pass, the one that keeps its plan and the one by the
   kept plan (which does neither; the bare one is the exact one's). All in one process, in turn; medians.
2. Seconds per pass and peak memory besides vectors, ids and targets on two corpora, each in a fresh process. Their
   vectors are real ones drawn again and again with noise, of length 1, float16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import vectors
from machine import facts
from measure import heading, row, seconds_of
from passes import as_in_a_fit, bare_pass, grown, in_memory, uniform_side
from solvers import idle_memory, resident

from gotd_ray.ot.shard import How

EPSILON = 0.05
REAL_ROWS = 20_000


def against_bare(given: argparse.Namespace) -> None:
    _, x, y = vectors.load(given.vectors, given.rows, max(given.targets))
    shard, n = in_memory(x), float(given.rows)
    heading("pass", "n", "m", "ours, s", "bare, s", "ours / bare")
    for m in given.targets:
        target, g = uniform_side(y[:m], EPSILON), np.zeros(m)
        ways = {"exact": How(), "exact, the plan is kept": How(keep=True), "by the kept plan": How(base=g)}
        calls: list[Callable[[], object]] = []
        for how in ways.values():
            calls += [partial(shard.columns, target, g, n, 1, how), bare_pass(shard, target)]
        taken = seconds_of(calls, given.repeats)
        for name, ours, bare in zip(ways, taken[::2], taken[1::2], strict=True):
            row(name, f"{given.rows:,}", f"{m:,}", f"{ours:.3f}", f"{bare:.3f}", f"{ours / bare:.2f}")


def measure_growth(given: argparse.Namespace) -> None:
    """In a process of its own: prints seconds per pass and the peak above the vectors as JSON."""
    rows, m = given.grow, given.targets[0]
    _, real, y = vectors.load(given.vectors, min(REAL_ROWS, given.rows), m)
    x = grown(real, rows)
    in_memory(x[:2048]).columns(uniform_side(y, EPSILON), np.zeros(m), 2048.0)
    shard, target = in_memory(x), uniform_side(y, EPSILON)
    before = idle_memory()
    (seconds,) = seconds_of([lambda: shard.columns(target, np.zeros(m), float(rows))], max(1, given.repeats // 2))
    print(json.dumps({"seconds": seconds, "peak": resident("VmHWM") - before, "vectors": x.nbytes}))


def growth(given: argparse.Namespace) -> None:
    """Two corpora, each measured in a fresh process."""
    few, many, m = given.small, given.large, given.targets[0]
    print()
    heading("n", "seconds per pass", "vectors, MB", "peak besides them and their ids, MB")
    found = []
    for rows in (few, many):
        command = [sys.executable, __file__, "--vectors", str(given.vectors), "--grow", str(rows)]
        command += ["--rows", str(given.rows), "--targets", str(m), "--repeats", str(given.repeats)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
        found.append(json.loads(answer))
        megabytes = f"{found[-1]['vectors'] / 1e6:.0f}", f"{found[-1]['peak'] / 1e6:.1f}"
        row(f"{rows:,}", f"{found[-1]['seconds']:.3f}", *megabytes)
    share = found[1]["seconds"] / (found[0]["seconds"] * many / few)
    print(f"\n{many / few:g} times the candidates take {share:.3f} of {many / few:g} times the seconds (m = {m:,}).")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=Path("vectors"), help="cache folder, see vectors.py")
    parser.add_argument("--rows", type=int, default=50_000, help="candidates of the first table")
    parser.add_argument(
        "--targets", type=int, nargs="+", default=[1000, 2000], help="m; the second table has the first"
    )
    parser.add_argument("--small", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    with as_in_a_fit():
        if given.grow:
            measure_growth(given)
            return
        print(f"- {facts()}\n")
        against_bare(given)
    growth(given)


if __name__ == "__main__":
    main()
