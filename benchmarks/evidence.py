"""Rows of measurements as JSON lines: kept as they come, so that a benchmark that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

FOLDER = Path(__file__).parent / "evidence"


class Evidence:
    """A file of rows, each of which is named by the same few columns."""

    def __init__(self, path: Path, named_by: Sequence[str]):
        self._path, self.named_by = path, tuple(named_by)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines if line.strip()]
        self._known = {self._name(row) for row in self.rows}

    def _name(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.named_by)

    def has(self, **named: Any) -> bool:
        """Whether the row of this name is there."""
        return self._name(named) in self._known

    def add(self, **row: Any) -> None:
        """Write a row; one of its name is not there yet."""
        assert not self.has(**row), f"{self._name(row)} is there already"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self._known.add(self._name(row))

    def where(self, **fixed: Any) -> list[Row]:
        """The rows with these values, in the order of writing."""
        return [row for row in self.rows if all(row[name] == value for name, value in fixed.items())]
