"""The Markdown that bench_solver.py prints from its log."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import numpy as np
from solver_log import Cell, Log

NOTES = """
Ratio: seconds of the fastest log-domain peer / ours (≥: no such peer came to an end within the limit). Kernel mode
keeps exp(-C / epsilon) in memory and breaks down where it underflows; it is not in the ratio. * one run, as are all
that take more than a minute; † not run: it had failed in an easier cell; "misses": the referee's residual is above
{residual:g} at every setting tried. Memory is peak resident bytes above the process just before the solve. Gap: the
largest |g - ours| / epsilon over all solvers, after centring: that all solve the same problem
(a residual of r may leave about r m / 2 of it on a single target)."""


class Result:
    """What one solver did in one cell."""

    def __init__(self, rows: list[dict], residual: float):
        self.good = [row for row in rows if row["status"] == "ok" and row["residual"] <= residual]
        self.end = next((row for row in rows if row["status"] != "ok"), None)
        self.tried = bool(rows)

    @property
    def seconds(self) -> float:
        return statistics.median(row["seconds"] for row in self.good) if self.good else math.inf

    @property
    def limit(self) -> float:
        return self.end.get("limit", 0.0) if self.end else 0.0

    @property
    def megabytes(self) -> float:
        return statistics.median(row["peak_bytes"] for row in self.good) / 1e6 if self.good else math.inf

    @property
    def iterations(self) -> float:
        return self.good[0]["iterations"]

    def text(self) -> str:
        if self.good:
            return f"{self.seconds:.3g}" + ("*" if len(self.good) == 1 else "")
        if not self.tried:
            return ""
        if self.end is None:
            return "unfinished"
        words = {"limit": f"> {self.limit:g}", "memory": "out of memory", "failed": "fails", "missed": "misses"}
        return words[self.end["status"]] + ("†" if self.end.get("inferred") else "")


def markdown(log: Log, cells: list[Cell], residual: float, solvers: list[str], kernel_mode: tuple[str, ...]) -> str:
    """Seconds of each solver, then the comparison with the best of them."""
    tried = {row.get("solver") for row in log.rows}
    names = [name for name in solvers if name in tried]
    results = {(cell, name): Result(log.of(cell, name), residual) for cell in cells for name in names}
    peers = [name for name in names if name != "ours" and name not in kernel_mode]
    kernels = [name for name in names if name in kernel_mode]
    lines = [f"- {line}" for line in dict.fromkeys(row["facts"] for row in log.rows if "facts" in row)]
    lines += [
        "",
        f"Seconds to residual {residual:g}:",
        "",
        *_table(
            ["n", "m", "epsilon", *names],
            ([*_cell(cell), *(results[cell, name].text() for name in names)] for cell in cells),
        ),
    ]
    ratios: list[tuple[float, bool]] = []
    rows = []
    for cell in cells:
        of_cell = {name: results[cell, name] for name in names}
        rows.append([*_cell(cell), *_comparison(of_cell, peers, kernels, ratios), _gap(log, cell, of_cell)])
    head = [
        "n",
        "m",
        "epsilon",
        "ours, s",
        "passes",
        "fastest peer",
        "its s",
        "ratio",
        "kernel mode",
        "its ratio",
        "ours, MB",
        "of fastest peer's",
        "of leanest peer's",
        "gap",
    ]
    lines += ["", *_table(head, rows)]
    if ratios:
        bound = "≥ " if any(is_bound for _, is_bound in ratios) else ""
        mean = math.exp(statistics.fmean(math.log(value) for value, _ in ratios))
        lines += [
            "",
            f"Ratio: geometric mean {bound}{mean:.2f}, minimum {min(ratios)[0]:.2f}, over {len(ratios)} cells.",
        ]
    errors = {(row["solver"], row["error"].splitlines()[-1]) for row in log.rows if row.get("status") == "failed"}
    lines += [f"- {solver}: {error}" for solver, error in sorted(errors)]
    return "\n".join(lines) + "\n" + NOTES.format(residual=residual)


def _comparison(
    results: dict[str, Result], peers: list[str], kernels: list[str], ratios: list[tuple[float, bool]]
) -> list[str]:
    """Ours against the fastest peers; appends (ratio, whether it is a lower bound)."""
    ours = results.get("ours")
    if not ours or not ours.good:
        return [ours.text() if ours else "", *[""] * 9]
    fastest = min(peers, key=lambda name: results[name].seconds, default=None)
    if fastest and results[fastest].good:
        seconds, mark = results[fastest].seconds, ""
        leanest = min(results[name].megabytes for name in peers)
        shares = [f"{ours.megabytes / other:.3f}" for other in (results[fastest].megabytes, leanest)]
    else:
        seconds, mark, shares = max((results[name].limit for name in peers), default=0.0), "≥ ", ["", ""]
        fastest = None
    if seconds:
        ratios.append((seconds / ours.seconds, bool(mark)))
    kernel = min(kernels, key=lambda name: results[name].seconds, default=None)
    if kernel and results[kernel].good:
        in_kernel = [f"{kernel} {results[kernel].text()}", f"{results[kernel].seconds / ours.seconds:.2f}"]
    else:
        in_kernel = [", ".join(filter(None, (results[name].text() for name in kernels))), ""]
    return [
        ours.text(),
        f"{ours.iterations:.1f}",
        fastest or "none",
        results[fastest].text() if fastest else "",
        f"{mark}{seconds / ours.seconds:.2f}" if seconds else "",
        *in_kernel,
        f"{ours.megabytes:.0f}",
        *shares,
    ]


def _gap(log: Log, cell: Cell, results: dict[str, Result]) -> str:
    """The largest distance of a potential from ours, in units of epsilon."""
    centred = {}
    for name, result in results.items():
        path = log.potential(cell, name)
        if result.good and path.exists():
            g = np.load(path)
            centred[name] = (g - g.mean()) / cell.epsilon
    own = centred.pop("ours", None)
    gaps = [float(np.abs(g - own).max()) for g in centred.values()] if own is not None else []
    return f"{max(gaps):.1e}" if gaps else ""


def _cell(cell: Cell) -> list[str]:
    return [f"{cell.n:,}", f"{cell.m:,}", f"{cell.epsilon:g}"]


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
