"""How far a run is: a bar on a terminal, a plain line now and then in a log. No thread runs beside the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

Clock = Callable[[], float]

SECONDS_BETWEEN_LINES = 10.0  # a log of a day's run stays readable
SECONDS_BETWEEN_FRAMES = 0.1  # smooth to the eye, and free even when a task advances a thousand times a second


class Progress:
    """Shows the tasks of a run, one after the other.

    Args:
        console: where to write; null is standard error, so that results on standard output stay clean.
        clock: seconds, growing; for tests.

    Example::

        with progress.task("embed", total=12_000, unit="documents") as task:
            task.advance(64)
    """

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        self.console = console or Console(stderr=True)
        self._clock = clock

    def say(self, text: str) -> None:
        """Write one line, above a bar if there is one. The text is shown as it is, never read as markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int | None = None, unit: str = "steps") -> Iterator[Task]:
        """A piece of work that counts up to ``total`` units; null when nobody knows how many there will be."""
        task = Task(name, total, unit, self._clock)
        live = self.console.is_terminal and not self.console.is_dumb_terminal
        with self._bar(task) if live else self._lines(task):
            try:
                yield task
            except BaseException:
                task.state = "stopped"
                raise
            else:
                task.state = "finished"

    @contextmanager
    def _lines(self, task: Task) -> Iterator[None]:
        task.show = _at_most_every(SECONDS_BETWEEN_LINES, lambda: self.say(task.line()), self._clock)
        try:
            yield
        finally:
            self.say(task.line())

    @contextmanager
    def _bar(self, task: Task) -> Iterator[None]:
        columns = (BarColumn(bar_width=24), TextColumn("{task.fields[line]}", markup=False))
        with Bars(*columns, console=self.console, auto_refresh=False) as bars:
            bar = bars.add_task(task.name, total=task.total, line=task.line())

            def draw() -> None:
                bars.update(bar, completed=task.done, line=task.line(), refresh=True)

            task.show = _at_most_every(SECONDS_BETWEEN_FRAMES, draw, self._clock)
            draw()
            try:
                yield
            finally:
                draw()


@dataclass
class Task:
    """What has been done of one piece of work. Made by `Progress.task`."""

    name: str
    total: int | None
    unit: str
    clock: Clock
    done: int = 0
    note: str = ""
    state: str = "running"
    show: Callable[[], None] = lambda: None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def advance(self, count: int = 1) -> None:
        """``count`` more units are done."""
        self.done += count
        self.show()

    def update(self, note: str) -> None:
        """What to say beside the count, such as ``residual 0.01``."""
        self.note = note
        self.show()

    def line(self) -> str:
        """For example ``embed  4,096 / 12,000 documents  (151/s, 52 s left)``."""
        count = f"{self.done:,}" if self.total is None else f"{self.done:,} / {self.total:,}"
        pace = ", ".join(self._pace())
        return "  ".join(filter(None, [self.name, f"{count} {self.unit}", f"({pace})", self.note]))

    def _pace(self) -> Iterator[str]:
        elapsed = self.clock() - self.started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        if rate:
            yield f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        if self.state == "stopped":
            yield f"stopped after {_duration(elapsed)}"
        elif self.state == "finished" or self.total is None or not rate:
            yield _duration(elapsed)
        else:
            yield f"{_duration(max(self.total - self.done, 0) / rate)} left"


def _at_most_every(seconds: float, action: Callable[[], None], clock: Clock) -> Callable[[], None]:
    last = clock()

    def act() -> None:
        nonlocal last
        if clock() - last >= seconds:
            last = clock()
            action()

    return act


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
