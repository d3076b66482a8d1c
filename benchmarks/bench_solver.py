"""Our solver against POT, GeomLoss and OTT-JAX on real vectors: seconds and memory to the same residual.

Run, once the peers have their environment (the line stands in benchmarks/peers.txt):

    GOTD_DATA=folder python benchmarks/bench_solver.py --vectors cache --peers .venv-peers/bin/python --log solver.jsonl
    python benchmarks/bench_solver.py --log solver.jsonl --table

Rules, the same for all: every solve runs in a fresh process on all cores, in float32, from float32 vectors in memory to
g. Only the solve is timed; loading, compiling and a warm-up of 512 rows go before it. Memory is the peak of resident
bytes above the process just before the solve, vectors and libraries included there. A referee in float64 takes each g,
computes f by the c-transform and so the plan's column sums; where their L1 distance from b is above --residual, the
solver is asked again for more (its own tolerance is tightened, see solvers.py), and only the run that passes counts.
A solve longer than --limit is killed; what it did not do in an easier cell it is not asked in a harder one. Median of
--repeats, solvers in turn; a solve of more than a minute runs once. Each result is appended to --log at once, and the
same command goes on where the last one stopped. To measure ours again, take the lines with "ours" out of the log.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import vectors
from machine import facts
from referee import residual_of
from solver_log import Cell, Log
from solver_table import markdown
from solvers import KERNEL_MODE, MAX_ITERATIONS, SOLVERS

GRID_N, GRID_M, GRID_EPSILON = (20_000, 50_000, 200_000), (1000, 2000), (0.1, 0.05, 0.02)
LONG_SECONDS = 60
STARTUP_SECONDS = 900
MAX_ATTEMPTS = 8
PEERS = "torch numpy POT geomloss pykeops jax jaxlib ott-jax"


def parse_cells(patterns: list[str]) -> list[Cell]:
    """``n,m,epsilon`` each; ``*`` stands for all values of the grid, other values than the grid's may be given."""
    cells: set[Cell] = set()
    for pattern in patterns:
        n, m, epsilon = pattern.split(",")
        rows = list(GRID_N) if n == "*" else [int(n)]
        targets = list(GRID_M) if m == "*" else [int(m)]
        temperatures = list(GRID_EPSILON) if epsilon == "*" else [float(epsilon)]
        cells |= {Cell(*values) for values in product(rows, targets, temperatures)}
    return sorted(cells, key=lambda cell: (cell.n, cell.m, -cell.epsilon))


def fingerprint(x: np.ndarray, y: np.ndarray) -> str:
    """Of the first rows, which all cells share."""
    return hashlib.blake2b(x[:1000].tobytes() + y[:100].tobytes(), digest_size=8).hexdigest()


def run(python: str, task: dict, limit: float) -> dict:
    """One solve in a fresh process. The limit counts from the moment it is ready to solve."""
    here = Path(__file__).resolve().parent
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(here.parent)]))
    command = [python, str(here / "solvers.py"), json.dumps(task)]
    with tempfile.TemporaryFile("w+") as errors:
        # In a session of its own, so that an interrupt of this script does not look like the solver's failure.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env, start_new_session=True
        )
        assert process.stdout is not None
        last, late = "", threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(STARTUP_SECONDS, kill)
        timer.start()
        try:
            for line in process.stdout:
                if line == "ready\n":
                    timer.cancel()
                    timer = threading.Timer(limit, kill)
                    timer.start()
                last = line
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
        if code == 0:
            return {"status": "ok", **json.loads(last)}
        if late.is_set():
            return {"status": "limit", "limit": limit} if last else {"status": "failed", "error": "never ready"}
        if code == -signal.SIGKILL:  # by the system: memory ran out
            return {"status": "memory"}
        errors.seek(0)
        said = errors.read().splitlines()
        return {"status": "failed", "error": said[-1][-400:] if said else f"ended with {code}"}


def next_step(log: Log, cell: Cell, solver: str, repeats: int, residual: float) -> int | None:
    """The attempt to make next (MAX_ATTEMPTS: none can help), or None where this solver is done with this cell."""
    rows = log.of(cell, solver)
    if any(row["status"] != "ok" for row in rows):
        return None
    good = [row for row in rows if row["residual"] <= residual]
    if not good:
        return MAX_ATTEMPTS if any(row["iterations"] >= MAX_ITERATIONS for row in rows) else len(rows)
    enough = len(good) >= repeats or good[0]["seconds"] > LONG_SECONDS
    return None if enough else good[0]["attempt"]


def hopeless(log: Log, cell: Cell, solver: str) -> dict | None:
    """How this solver gave up an easier cell."""
    for row in log.rows:
        if row.get("solver") == solver and row["status"] in ("limit", "memory"):
            easier = Cell(row["n"], row["m"], row["epsilon"])
            if easier != cell and easier.no_harder_than(cell):
                return {name: row[name] for name in ("status", "limit") if name in row} | {"inferred": True}
    return None


def measure(
    log: Log, cell: Cell, solver: str, x: np.ndarray, y: np.ndarray, folder: Path, args: argparse.Namespace
) -> None:
    """One more result of this solver in this cell: further attempts until one passes, or one repeat."""
    while (attempt := next_step(log, cell, solver, args.repeats, args.residual)) is not None:
        row = asdict(cell) | {"solver": solver, "attempt": attempt}
        if gone := hopeless(log, cell, solver):
            log.append(row | gone)
            return
        if attempt >= MAX_ATTEMPTS:
            log.append(row | {"status": "missed"})
            return
        path = log.potential(cell, solver)
        task = asdict(cell) | {"solver": solver, "attempt": attempt, "residual": args.residual}
        found = run(
            sys.executable if solver == "ours" else args.peers,
            task | {"folder": str(folder), "g": str(path)},
            args.limit,
        )
        if found["status"] == "ok":
            g = np.load(path)
            if not np.isfinite(g).all():
                found = {"status": "failed", "error": "g is not finite: the arithmetic broke down"}
            else:
                found["residual"] = residual_of(x[: cell.n], y[: cell.m], g, cell.epsilon)
        log.append(row | found)
        print(
            {name: value for name, value in (row | found).items() if name != "compile_seconds"},
            file=sys.stderr,
            flush=True,
        )
        if found["status"] == "ok" and found["residual"] <= args.residual:
            return


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=Path("vectors"), help="cache folder, see vectors.py")
    parser.add_argument("--peers", help="the Python of the peers' environment; without it only ours runs")
    parser.add_argument("--log", type=Path, default=Path("solver.jsonl"))
    parser.add_argument(
        "--cells", nargs="*", default=["*,*,*"], metavar="n,m,epsilon", help="* is every value of the grid"
    )
    parser.add_argument("--solvers", nargs="*", default=list(SOLVERS), choices=list(SOLVERS), metavar="solver")
    parser.add_argument("--limit", type=float, default=300, help="seconds of one solve")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--residual", type=float, default=1e-3)
    parser.add_argument("--table", action="store_true", help="only print what the log holds")
    args = parser.parse_args(argv)
    log, cells = Log(args.log), parse_cells(args.cells)
    chosen = [solver for solver in args.solvers if solver == "ours" or args.peers]
    if not args.table:
        if len(chosen) < len(args.solvers):
            print("peers skipped: --peers is not given", file=sys.stderr)
        print("flash-sinkhorn skipped: no GPU", file=sys.stderr)
        _, x, y = vectors.load(args.vectors, max(cell.n for cell in cells), max(cell.m for cell in cells))
        log.begin(fingerprint(x, y), f"{facts()}; {peer_versions(args.peers)}")
        with tempfile.TemporaryDirectory() as scratch:
            np.save(Path(scratch) / "x.npy", x)
            np.save(Path(scratch) / "y.npy", y)
            for cell, _, solver in product(cells, range(args.repeats), chosen):
                measure(log, cell, solver, x, y, Path(scratch), args)
    shown = [cell for cell in cells if any(log.of(cell, solver) for solver in SOLVERS)]
    print(markdown(log, shown, args.residual, list(SOLVERS), KERNEL_MODE))


def peer_versions(python: str | None) -> str:
    if not python:
        return "no peers"
    program = (
        "from importlib.metadata import distributions\n"
        f"held = {{d.name.lower(): d.version for d in distributions() if d.name}}\n"
        f"print(', '.join(p + ' ' + held.get(p.lower(), '(not installed)') for p in '{PEERS}'.split()))"
    )
    return "peers " + subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    main()
