"""One solve by one solver in one fresh process, in that solver's own environment: bench_solver.py starts it.

A solver is a function ``(x, y, epsilon, residual, attempt) -> Ready``. It does all that a user pays once (compiling, a
small warm-up) and leaves a call that is timed: from vectors to g. ``attempt`` 0, 1, 2... asks for its own tolerance
ever tighter, since every solver measures its error differently; the referee in bench_solver.py decides which serves.
All get float32 vectors, all cores and float32 arithmetic, and return g in our convention (gotd_ray/ot/__init__.py),
up to a constant.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_ITERATIONS = 2000  # who needs more does not get there
WARM_ROWS = 512

# Chosen by trial on n=20,000, m=1,000, epsilon 0.02 and n=8,000, m=500, epsilon 0.05.
OTT_BATCH = 256  # 100 is slower, 1000 the same
OTT_MOMENTUM = 1.5  # 1.2 to 1.4 take more iterations, 1.7 diverges; the adaptive one (start=10, 20) takes more too
OTT_ANDERSON = {"memory": 5, "ridge_identity": 1e-5}  # the defaults (2, 1e-2) take as many iterations or more
OTT_CHECK_EVERY = 5  # the default, 10, often goes far beyond the tolerance


@dataclass
class Ready:
    """A solver that only needs to be called."""

    solve: Callable[[], tuple[np.ndarray, float | None]]
    """-> g (m,), its own iterations."""

    compile_seconds: float = 0.0


def warmed(solve: Callable, x: np.ndarray, y: np.ndarray) -> Ready:
    """Ready to solve x, y after a solve of a few rows, which starts threads and compiles what does not depend on n."""
    started = time.perf_counter()
    solve(x[:WARM_ROWS], y[: WARM_ROWS // 4])
    return Ready(lambda: solve(x, y), time.perf_counter() - started)


def ours(x: np.ndarray, y: np.ndarray, epsilon: float, residual: float, attempt: int) -> Ready:
    from gotd_ray.ot.local import solve_local

    def solve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        solution = solve_local(x, y, epsilon=epsilon, tolerance=residual * 0.7**attempt)
        return solution.g, solution.passes

    return warmed(solve, x, y)


def _pot_scaling(method: str, x: np.ndarray, y: np.ndarray, epsilon: float, residual: float, attempt: int) -> Ready:
    """POT with the n x m cost in memory; torch tensors, whose operations use all cores (numpy's exp uses one)."""
    import ot
    import torch

    # POT stops by the L2 norm, which is at most the L1 norm and at least it / sqrt(m): begin loose.
    threshold = 2 * residual / math.sqrt(len(y)) * 0.6**attempt

    def solve(x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, float]:
        a, b = (torch.full((len(points),), 1.0 / len(points)) for points in (x, y))
        cost = ot.dist(x, y)
        options = {"numItermax": MAX_ITERATIONS, "stopThr": threshold, "log": True}
        _, log = ot.sinkhorn(a, b, cost, epsilon, method=method, **options)
        log_v = log["log_v"] if "log_v" in log else log["v"].log()
        return (epsilon * (log_v - b.log())).double().numpy(), log["niter"] + 1

    return warmed(solve, torch.from_numpy(x), torch.from_numpy(y))  # type: ignore[arg-type]


def pot_log(*problem: Any) -> Ready:
    return _pot_scaling("sinkhorn_log", *problem)


def pot_kernel(*problem: Any) -> Ready:
    """Matrix scaling of K = exp(-C / epsilon), kept in float32: fast, and 0/0 where K underflows."""
    return _pot_scaling("sinkhorn", *problem)


def pot_lazy(x: np.ndarray, y: np.ndarray, epsilon: float, residual: float, attempt: int) -> Ready:
    import ot
    import torch

    # Its error is the L1 norm over the candidates, one half step before the referee's: begin loose.
    options = {"numIterMax": MAX_ITERATIONS, "stopThr": 2 * residual * 0.6**attempt, "isLazy": True, "log": True}

    def solve(x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, float]:
        batches = max(1, 2**20 // len(y)), max(1, 2**22 // len(x))  # some MB each; the default, 100 rows, is slower
        _, log_v, log = ot.bregman.empirical_sinkhorn(x, y, epsilon, batchSize=batches, **options)
        return (epsilon * (log_v + math.log(len(y)))).double().numpy(), log["niter"] + 1

    return warmed(solve, torch.from_numpy(x), torch.from_numpy(y))  # type: ignore[arg-type]


def _geomloss(backend: str, x: np.ndarray, y: np.ndarray, epsilon: float, residual: float, attempt: int) -> Ready:  # noqa: ARG001
    """GeomLoss: cost |x - y|^2 / 2 and temperature blur^2. It knows no tolerance, only a schedule of temperatures.

    Cooled from the diameter as it comes, its residual only halves when the steps double (0.017 after 103 steps at
    n=4,000, m=300, epsilon 0.05). So it is given what serves it better: a schedule that stays at the last temperature,
    which begins at a "diameter" a hair above blur.
    """
    import geomloss
    import torch

    blur, steps, flat = math.sqrt(epsilon / 2), round(8 * 1.5**attempt), 1 + 1e-6
    loss = geomloss.SamplesLoss(
        "sinkhorn",
        p=2,
        blur=blur,
        diameter=blur * flat,
        scaling=flat ** (-1 / steps),
        debias=False,
        potentials=True,
        backend=backend,
    )

    def solve(x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, float]:
        _, g = loss(x, y)
        return 2 * g.double().numpy(), steps

    return warmed(solve, torch.from_numpy(x), torch.from_numpy(y))  # type: ignore[arg-type]


def geomloss_dense(*problem: Any) -> Ready:
    return _geomloss("tensorized", *problem)


def geomloss_online(*problem: Any) -> Ready:
    return _geomloss("online", *problem)


def _ott(
    settings: dict, x: np.ndarray, y: np.ndarray, epsilon: float, residual: float, attempt: int, *, online: bool
) -> Ready:
    """OTT-JAX with candidates as x: it stops by the L1 norm over the targets, which is the referee's."""
    import jax
    import jax.numpy as jnp
    from ott.geometry import geometry, pointcloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    def solve(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        if online:
            geom = pointcloud.PointCloud(x, y, epsilon=epsilon, batch_size=OTT_BATCH)
        else:  # PointCloud without batch_size computes the cost anew in each iteration, which is slower
            geom = geometry.Geometry(pointcloud.PointCloud(x, y).cost_matrix, epsilon=epsilon)
        found = Sinkhorn(
            threshold=residual * 0.7**attempt,
            inner_iterations=OTT_CHECK_EVERY,
            max_iterations=MAX_ITERATIONS,
            **settings,
        )(LinearProblem(geom))
        return found.g, found.n_iters

    points = jnp.asarray(x), jnp.asarray(y)
    started = time.perf_counter()
    compiled = jax.jit(solve).lower(*points).compile()
    seconds = time.perf_counter() - started

    def run() -> tuple[np.ndarray, float]:
        g, iterations = compiled(*points)
        return np.asarray(g, np.float64), float(iterations)

    return Ready(run, seconds)


def _momentum() -> dict:
    from ott.solvers.linear.acceleration import Momentum

    return {"momentum": Momentum(value=OTT_MOMENTUM)}


def _anderson() -> dict:
    from ott.solvers.linear.acceleration import AndersonAcceleration

    return {"anderson": AndersonAcceleration(**OTT_ANDERSON)}


SOLVERS: dict[str, Callable[..., Ready]] = {
    "ours": ours,
    "pot-log": pot_log,
    "pot-lazy": pot_lazy,
    "geomloss-dense": geomloss_dense,
    "geomloss-online": geomloss_online,
    "ott-dense": lambda *problem: _ott({}, *problem, online=False),
    "ott-dense-momentum": lambda *problem: _ott(_momentum(), *problem, online=False),
    "ott-dense-anderson": lambda *problem: _ott(_anderson(), *problem, online=False),
    "ott-online": lambda *problem: _ott({}, *problem, online=True),
    "ott-online-momentum": lambda *problem: _ott(_momentum(), *problem, online=True),
    "ott-online-anderson": lambda *problem: _ott(_anderson(), *problem, online=True),
    "pot-kernel": pot_kernel,
    "ott-kernel": lambda *problem: _ott({"lse_mode": False}, *problem, online=False),
}
KERNEL_MODE = ("pot-kernel", "ott-kernel")
"""They keep exp(-C / epsilon), which underflows at small epsilon: shown, but not in the ratio."""


def resident(field: str) -> int:
    """Bytes of this process by /proc/self/status: VmRSS is now, VmHWM the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def idle_memory() -> int:
    """Resident bytes now, after freed memory went back to the system; the peak is counted anew from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def main() -> None:
    task = json.loads(sys.argv[1])
    Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, it is this process that goes
    warnings.simplefilter("ignore")
    folder = Path(task["folder"])
    x, y = (
        np.load(folder / f"{name}.npy", mmap_mode="r")[: task[rows]].astype(np.float32)
        for name, rows in (("x", "n"), ("y", "m"))
    )
    ready = SOLVERS[task["solver"]](x, y, task["epsilon"], task["residual"], task["attempt"])
    del x, y
    before = idle_memory()
    print("ready", flush=True)
    started = time.perf_counter()
    g, iterations = ready.solve()
    seconds = time.perf_counter() - started
    peak = resident("VmHWM") - before
    np.save(task["g"], g)
    answer = {
        "seconds": seconds,
        "compile_seconds": ready.compile_seconds,
        "iterations": iterations,
        "peak_bytes": peak,
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
