"""One pass of ours: against the bare arithmetic it cannot do without, and as the corpus grows.

Run: GOTD_DATA=folder python benchmarks/bench_pass.py --vectors cache [--rows 50000] [--small 200000 --large 1000000]

1. A pass (column sums of the plan over all candidates, float16 vectors in memory) against the bare matmul and
   exponential of the same tiles: same buffers, same threads, same precision of the matmul, its input already as the
   matmul wants it, exp2 in place, nothing else. So for the exact pass, the one that keeps its plan, the one by the kept
   plan (which does neither; the bare one is the exact one's) and, where the CPU has them in hardware, the one in 8-bit
   integers (bare: the integer matmul, its conversion to float32, exp2). All in one process, in turn; medians.
2. Seconds per pass and peak memory besides vectors, ids and targets on two corpora, each in a fresh process. Their
   vectors are real ones drawn again and again with noise, of length 1, float16.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import vectors
from machine import facts
from solvers import idle_memory, resident

from gotd_ray.ot.kernel import Side, fast_matmul_is_exact, rough_is_fast, side, tiles
from gotd_ray.ot.shard import How, Segment, Shard, segment_count

EPSILON = 0.05
ROUNDS = 9
GROWN_ROUNDS = 5
TARGETS = (1000, 2000)
REAL_ROWS = 20_000
NOISE = 0.02
"""Standard deviation per component: a drawn vector keeps a cosine of about 0.93 with its original."""


def make_shard(x: np.ndarray) -> Shard:
    """Candidates in memory, cut into segments without a copy, on all cores as in the solve stage."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium" if fast_matmul_is_exact() else "highest")
    count = segment_count(len(x))
    cuts = [len(x) * i // count for i in range(count + 1)]
    parts = [x[low:high] for low, high in pairwise(cuts)]
    segments = [Segment(i, np.zeros(len(part), "S32"), part) for i, part in enumerate(parts)]
    return Shard(segments, threads=os.cpu_count() or 1)


def make_side(x: np.ndarray, y: np.ndarray) -> Side:
    centre = x[:REAL_ROWS].mean(0, dtype=np.float64) if rough_is_fast() else None
    weights = torch.full((len(y),), 1.0 / len(y), dtype=torch.float64)
    return side(torch.from_numpy(y), weights, EPSILON, centre=centre)


def bare_pass(shard: Shard, target: Side, rough: bool) -> Callable[[], object]:
    """The matmul and the exponential of every tile of the shard, and nothing else."""
    ready = {part.index: torch.from_numpy(part.vectors.astype(np.float32)) for part in shard.segments}
    # Shifted or scaled as a whole, so that the exponentials are of ordinary numbers: none overflows.
    if rough:
        assert target.rough is not None
        largest = max(float(x.abs().amax()) for x in ready.values())
        ready = {index: (x * (127 / largest)).to(torch.int8) for index, x in ready.items()}
        scale = torch.tensor(2.0**-15)
    else:
        bias = torch.full((target.size,), -max(float((x @ target.scaled).amax()) for x in ready.values()))
    own = threading.local()

    def of_tile(x: torch.Tensor) -> None:
        buffer = own.buffer[: len(x)]
        if rough:
            products = torch._int_mm(x, target.rough.codes, out=own.products[: len(x)])  # type: ignore[union-attr]
            torch.mul(products, scale, out=buffer).exp2_()
        else:
            torch.addmm(bias, x, target.scaled, out=buffer).exp2_()

    def of_segment(part: Segment) -> None:
        if not hasattr(own, "buffer"):
            own.buffer = target.scaled.new_empty((target.tile_rows(), target.size))
            own.products = torch.empty(own.buffer.shape if rough else 0, dtype=torch.int32)
        x = ready[part.index]
        for rows in tiles(len(x), target.tile_rows()):
            of_tile(x[rows])

    return lambda: shard.each(of_segment)  # type: ignore[arg-type]


def seconds_of(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each call, the calls in turn."""
    taken: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for call, seconds in zip(calls, taken, strict=True):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in taken]


def against_bare(cache: Path, rows: int) -> None:
    _, x, y = vectors.load(cache, rows, max(TARGETS))
    shard = make_shard(x)
    print("| pass | n | m | ours, s | bare, s | ours / bare |\n|---|---|---|---|---|---|")
    for m in TARGETS:
        target, g = make_side(x, y[:m]), np.zeros(m)
        ways = {"exact": How(), "exact, the plan is kept": How(keep=True), "by the kept plan": How(base=g)}
        ways |= {"8-bit": How(rough=True)} if rough_is_fast() else {}
        calls: list[Callable[[], object]] = []
        for how in ways.values():
            calls += [partial(shard.columns, target, g, float(rows), 1, how), bare_pass(shard, target, how.rough)]
        taken = seconds_of(calls, ROUNDS)
        for name, ours, bare in zip(ways, taken[::2], taken[1::2], strict=True):
            print(f"| {name} | {rows:,} | {m:,} | {ours:.3f} | {bare:.3f} | {ours / bare:.2f} |", flush=True)


def grown(real: np.ndarray, rows: int) -> np.ndarray:
    """(rows, d) float16 vectors of length 1, made block by block into one array."""
    x = np.empty((rows, real.shape[1]), np.float16)
    rng = np.random.default_rng(0)
    for start in range(0, rows, 50_000):
        block = x[start : start + 50_000]
        drawn = real[rng.integers(len(real), size=len(block))].astype(np.float32)
        drawn += NOISE * rng.standard_normal(drawn.shape, np.float32)
        block[:] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return x


def measure_growth(cache: Path, rows: int, m: int) -> None:
    """In a process of its own: prints seconds per pass and the peak above the vectors as JSON."""
    _, real, y = vectors.load(cache, REAL_ROWS, m)
    x = grown(real, rows)
    warm = make_shard(x[:2048])
    warm.columns(make_side(x, y), np.zeros(m), 2048.0)
    shard, target = make_shard(x), make_side(x, y)
    before = idle_memory()
    (seconds,) = seconds_of([lambda: shard.columns(target, np.zeros(m), float(rows))], GROWN_ROUNDS)
    print(json.dumps({"seconds": seconds, "peak": resident("VmHWM") - before, "vectors": x.nbytes}))


def growth(cache: Path, small: int, large: int, m: int) -> None:
    print("\n| n | seconds per pass | vectors, MB | peak besides them and their ids, MB |\n|---|---|---|---|")
    found = []
    for rows in (small, large):
        command = [sys.executable, __file__, "--vectors", str(cache), "--grow", str(rows), "--targets", str(m)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        found.append(json.loads(answer))
        numbers = f"{found[-1]['vectors'] / 1e6:.0f} | {found[-1]['peak'] / 1e6:.1f}"
        print(f"| {rows:,} | {found[-1]['seconds']:.3f} | {numbers} |", flush=True)
    few, many = found
    share = many["seconds"] / (few["seconds"] * large / small)
    print(
        f"\n{large / small:g} times the candidates take {share:.3f} of {large / small:g} times the seconds (m = {m:,})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=Path("vectors"), help="cache folder, see vectors.py")
    parser.add_argument("--rows", type=int, default=50_000, help="candidates of the first table")
    parser.add_argument("--small", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--targets", type=int, default=1000, help="m of the second table")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.grow:
        measure_growth(args.vectors, args.grow, args.targets)
        return
    print(f"- {facts()}\n")
    against_bare(args.vectors, args.rows)
    growth(args.vectors, args.small, args.large, args.targets)


if __name__ == "__main__":
    main()
