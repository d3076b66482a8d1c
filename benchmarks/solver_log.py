"""The problems that bench_solver.py puts, and the file in which it keeps the answers."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One problem of the grid."""

    n: int
    m: int
    epsilon: float

    def no_harder_than(self, other: Cell) -> bool:
        return self.n <= other.n and self.m <= other.m and self.epsilon >= other.epsilon


class Log:
    """Results so far, each a dictionary; appended to a file as they come. Potentials lie in a folder beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.folder = path.with_suffix(".potentials")
        self.folder.mkdir(parents=True, exist_ok=True)

    def append(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)

    def begin(self, vectors: str, described: str) -> None:
        """Note where the results that follow come from; those of other vectors do not belong beside them."""
        if any(row.get("vectors", vectors) != vectors for row in self.rows):
            sys.exit(f"{self.path} holds results of other vectors: choose another --log")
        self.append({"facts": described, "vectors": vectors})

    def of(self, cell: Cell, solver: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row.items() >= {**asdict(cell), "solver": solver}.items()]

    def potential(self, cell: Cell, solver: str) -> Path:
        return self.folder / f"{solver}-{cell.n}-{cell.m}-{cell.epsilon:g}.npy"
