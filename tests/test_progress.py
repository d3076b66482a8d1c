"""What a user sees of a running task, on a terminal and in a log."""

from __future__ import annotations

import re
import threading
from io import StringIO

import pytest
from rich.console import Console

from gotd_ray.progress import Progress


class Clock:
    """Seconds that pass only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(terminal: bool) -> tuple[Progress, StringIO, Clock]:
    out, clock = StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=100, _environ={"TERM": "xterm"})
    return Progress(console, clock), out, clock


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end() -> None:
    progress, out, clock = make(terminal=False)
    with progress.task("embed", total=12_000, unit="documents") as task:
        for _ in range(25):
            clock.now += 1
            task.advance(160)
    assert out.getvalue().splitlines() == [
        "embed  1,600 / 12,000 documents  (160/s, 65 s left)",
        "embed  3,200 / 12,000 documents  (160/s, 55 s left)",
        "embed  4,000 / 12,000 documents  (160/s, 25 s)",
    ]


def test_a_terminal_gets_one_bar_with_count_rate_and_time_left() -> None:
    progress, out, clock = make(terminal=True)
    with progress.task("embed", total=1000, unit="documents") as task:
        clock.now += 10
        task.advance(250)
        midway = plain(out.getvalue())
        clock.now += 30
        task.advance(750)
    assert "━" in midway
    assert "embed  250 / 1,000 documents  (25/s, 30 s left)" in midway
    assert "embed  1,000 / 1,000 documents  (25/s, 40 s)" in plain(out.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_the_note_and_the_end_are_shown_however_fast_the_task_was(terminal: bool) -> None:
    progress, out, _ = make(terminal)
    with progress.task("solve", total=500, unit="passes") as task:
        task.advance()
        task.update(note="residual [0.01]")
    assert "solve  1 / 500 passes  (0 s)  residual [0.01]" in plain(out.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_task_of_unknown_length_shows_its_count_and_age(terminal: bool) -> None:
    progress, out, clock = make(terminal)
    with progress.task("read", unit="files") as task:
        clock.now += 8
        task.advance(2)
    assert "read  2 files  (0.25/s, 8 s)" in plain(out.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failed_task_says_where_it_stopped_and_the_error_goes_on(terminal: bool) -> None:
    progress, out, clock = make(terminal)
    with pytest.raises(KeyError), progress.task("embed", total=40, unit="documents") as task:
        clock.now += 600
        task.advance(20)
        raise KeyError
    assert "embed  20 / 40 documents  (0.033/s, stopped after 10 min)" in plain(out.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_text_that_is_said_during_a_task_is_whole_and_is_not_markup(terminal: bool) -> None:
    progress, out, _ = make(terminal)
    text = "skipped [bold]file[/bold] " + "x" * 200
    with progress.task("embed", total=1):
        progress.say(text)
    assert text in plain(out.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_no_thread_is_started(terminal: bool) -> None:
    progress, _, _ = make(terminal)
    before = threading.active_count()
    with progress.task("embed", total=1):
        assert threading.active_count() == before


def test_a_fast_task_does_not_redraw_at_every_step() -> None:
    progress, out, clock = make(terminal=True)
    with progress.task("embed", total=10_000) as task:
        for _ in range(10_000):
            clock.now += 0.001
            task.advance()
    assert plain(out.getvalue()).count("embed") < 150
