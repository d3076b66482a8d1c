"""What a check found: one JSON line a result, as it comes, and a table at the end."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from measure import heading, row


class Results:
    """All results of a run; those that are wrong make it fail.

    Args:
        out: file to which the lines are appended, besides standard output.
        seconds: of each part, after which no further time is measured. Checks always run.
    """

    def __init__(self, out: Path | None = None, seconds: float = math.inf):
        self._out, self._seconds = out, seconds
        self._rows: list[dict[str, Any]] = []
        self.begin("")

    def begin(self, part: str) -> None:
        self._part, self._started = part, time.monotonic()

    @property
    def late(self) -> bool:
        """Whether this part has used its time."""
        return time.monotonic() - self._started > self._seconds

    def check(self, name: str, value: float, *, least: float | None = None, most: float | None = None) -> None:
        """A number that must lie within its bounds; one that is not finite does not."""
        low, high = -math.inf if least is None else least, math.inf if most is None else most
        bounds = {"least": least} if most is None else {"most": most}
        self._add({"check": name, "value": value, **bounds, "right": math.isfinite(value) and low <= value <= high})

    def time(self, name: str, seconds: float, **facts: Any) -> None:
        self._add({"time": name, "seconds": seconds, **facts})

    def note(self, said: str) -> None:
        """What was left out."""
        self._add({"note": said})

    def broken(self, why: str) -> None:
        """The part did not come to its end."""
        self._add({"check": "to the end", "value": 0, "least": 1, "right": False, "why": why})

    def _add(self, found: dict[str, Any]) -> None:
        self._rows.append({"part": self._part} | found)
        line = json.dumps(self._rows[-1])
        print(line, flush=True)
        if self._out:
            with self._out.open("a") as file:
                file.write(line + "\n")

    def failed(self) -> int:
        """How many checks are wrong."""
        return sum(not found.get("right", True) for found in self._rows)

    def table(self) -> None:
        """Checks, then times, then what was left out."""
        print()
        heading("part", "check", "value", "bound", "right")
        for found in self._rows:
            if "check" in found:
                bound = f"at least {found['least']:g}" if "least" in found else f"at most {found['most']:g}"
                said = "yes" if found["right"] else f"NO {found.get('why', '')}".strip()
                row(found["part"], found["check"], f"{found['value']:.6g}", bound, said)
        print()
        heading("part", "time of", "seconds", "and")
        for found in self._rows:
            if "time" in found:
                facts = {name: value for name, value in found.items() if name not in ("part", "time", "seconds")}
                told = ", ".join(f"{name} {value:,.4g}" for name, value in facts.items())
                row(found["part"], found["time"], f"{found['seconds']:.4g}", told)
        for found in self._rows:
            if "note" in found:
                print(f"\n{found['part']}: {found['note']}")
