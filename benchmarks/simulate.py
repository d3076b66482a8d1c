"""What a run of any size takes, by a small model whose constants are rows of RESULTS.md, and how it meets the others.

Run: python benchmarks/simulate.py [--documents 1e9] [--gpus 100] [--rate 3000] [--gpu-hour 3.0]

Only what is counted or was measured alone is in it; see docs/scaling.md. What a GPU does in a second and its price are
given, since no GPU is in RESULTS.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from measure import heading, row

from gotd_ray.filesystems import REQUEST_BYTES
from gotd_ray.index.merge import PART_BYTES, ROW_BYTES

WIDTH = 384
ON_DISK = 722.5
"""Bytes of it on disk: bench_index, 1,000,000 rows as one run, 722.5 MB."""

PAIRS = 50_000 * 1000 / 0.220
"""Pairs of candidate and target that an exact pass does in a second on 2 cores: bench_pass, 50,000 x 1,000."""

ENCODED = 278.2
"""Documents encoded in a second on 2 cores, MiniLM in bfloat16: bench_pipeline."""

STATIC = 4800.0
"""The same of the static encoder: bench_scale."""

START = 20.0
"""Seconds until encoders work: bench_pipeline."""

NEAR = 20.1 / 100_000**2
"""Seconds of the search of near-duplicates by kept documents squared: bench_duplicates, 100,000 kept."""

CHOSEN = 3000
"""Bytes of the driver for each document that is taken: bench_duplicates."""

CHARS = 563
"""Of a document in the mean: bench_pipeline."""

CLAIM = 20
"""Bytes of the actor of claims for each document: RESULTS.md, 10^9 documents, 20 GB."""


def pass_seconds(candidates: float, targets: float, pairs: float = PAIRS) -> float:
    """Of an exact pass."""
    return candidates * targets / pairs


def embed_seconds(documents: float, rate: float) -> float:
    return START + documents / rate


def parts(documents: float) -> int:
    """Of the vectors, merged."""
    return math.ceil(documents / (PART_BYTES // (ROW_BYTES + 2 * WIDTH)))


def appended(batches: int, rows: int, fan_in: int = 16) -> float:
    """MB written by batches that are added one after the other, where each ``fan_in`` of one size are merged: played
    through, one batch after the other."""
    runs: list[int] = []
    written = 0
    for _ in range(batches):
        runs.append(rows)
        written += rows
        while len(runs) >= fan_in and len(set(runs[-fan_in:])) == 1:
            merged = sum(runs[-fan_in:])
            runs[-fan_in:] = [merged]
            written += merged
    return written * ON_DISK / 1e6


def opens(documents: float, shards: int) -> int:
    """Parts that are opened in one load by all shards: one that two shards meet is opened twice."""
    return parts(documents) + shards - 1


def traffic(targets: int, shards: int, *, kept: bool = False) -> int:
    """Bytes between driver and shards for a pass: g to each as float64, the column sums of each back as int64.

    Args:
        kept: a pass by the kept plan, which is named by the g that it was made at.
    """
    return shards * targets * 8 * (3 if kept else 2)


def near_duplicates_seconds(budget: float) -> float:
    """Every one that is taken against all before it, on 2 cores."""
    return NEAR * budget**2


@dataclass(frozen=True)
class Recorded:
    """A row of RESULTS.md that the constants were not taken from, and what the model says to it."""

    what: str
    measured: float
    foretold: Callable[[], float]

    @property
    def off(self) -> float:
        return self.foretold() / self.measured - 1


RECORDED = (
    Recorded("bench_pass: exact pass, 50,000 x 2,000, s", 0.470, lambda: pass_seconds(50_000, 2000)),
    Recorded("bench_pass: exact pass, 200,000 x 1,000, s", 0.868, lambda: pass_seconds(200_000, 1000)),
    Recorded("bench_pass: exact pass, 1,000,000 x 1,000, s", 4.305, lambda: pass_seconds(1e6, 1000)),
    Recorded("bench_scale: embed, 1,000,000 documents, s", 249, lambda: embed_seconds(1e6, STATIC)),
    Recorded("bench_pipeline: the whole job, 50,523 + 4,169, s", 197, lambda: embed_seconds(50_523, ENCODED) + 5.7),
    Recorded("bench_index: 50 batches of 20,000, MB written", 1417.0, lambda: appended(50, 20_000)),
    Recorded("bench_scale: parts of 1,000,000 documents", 14, lambda: parts(1e6)),
    Recorded("bench_scale: opens of 3 loads, 1 shard", 42, lambda: 3 * opens(1e6, 1)),
    Recorded("bench_scale: opens of 3 loads, 8 shards", 63, lambda: 3 * opens(1e6, 8)),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=float, default=1e9)
    parser.add_argument("--targets", type=int, default=5000)
    parser.add_argument("--gpus", type=int, default=100)
    parser.add_argument("--rate", type=float, default=3000.0, help="documents a second that one GPU encodes")
    parser.add_argument("--pairs", type=float, default=1e11, help="pairs a second of an exact pass on one GPU")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--gpu-hour", type=float, default=3.0, help="dollars")
    given = parser.parse_args(argv)
    heading("recorded", "measured", "model", "off")
    for one in RECORDED:
        row(one.what, f"{one.measured:g}", f"{one.foretold():.4g}", f"{one.off:+.1%}")
    n, m, gpus = given.documents, given.targets, given.gpus
    embed = embed_seconds(n, given.rate * gpus)
    solve = pass_seconds(n, m, given.pairs * gpus)
    print()
    heading("what", "value")
    row("cores that tokenise as fast as the GPUs encode", f"{given.rate * gpus / (STATIC / 2):,.0f}")
    row("embed, hours", f"{embed / 3600:.2f}")
    row("one exact pass, seconds", f"{solve:.1f}")
    row("dollars of embed", f"{embed / 3600 * gpus * given.gpu_hour:,.0f}")
    row("vectors on disk, GB", f"{n * ON_DISK / 1e9:,.0f}")
    row("vectors in memory of a shard, GB", f"{n * 2 * WIDTH / gpus / 1e9:.1f}")
    row("parts of vectors (objects)", f"{parts(n):,}")
    row("opens of one load by all shards", f"{opens(n, gpus):,}")
    row("requests to read the texts once", f"{n * CHARS / REQUEST_BYTES:,.0f}")
    row("traffic of an exact pass, MB", f"{traffic(m, gpus) / 1e6:.1f}")
    row("memory of the actor of claims, GB", f"{n * CLAIM / 1e9:.0f}")
    for budget in given.budgets:
        row(f"near-duplicates among {budget:,.0f}, hours of 2 cores", f"{near_duplicates_seconds(budget) / 3600:.2g}")
        row(f"driver's memory for {budget:,.0f} chosen, GB", f"{budget * CHOSEN / 1e9:.2g}")


if __name__ == "__main__":
    main()
