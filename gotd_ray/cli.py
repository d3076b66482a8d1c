"""The command line, see `gotd --help`. Heavy libraries are imported late."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from gotd_ray import config
from gotd_ray.errors import HeldError, UserError, redacted
from gotd_ray.progress import Progress

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Escape codes: Ray colours what its workers raise."""

app = typer.Typer(
    help="Choose, out of an open-web corpus, the documents that best warm up a language model for your task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="The run, as YAML; see jobs/demo.yaml.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Change one key: --set select.budget=500")]
JSON = "--json"
Opened = Annotated[bool, typer.Option("--open", help="Open the page in a browser, where there is a desktop.")]
Told = Annotated[bool, typer.Option(JSON, help="The last line of the output is JSON: what became of it, and where.")]

STARTED = time.monotonic()


@app.command()
def run(config_file: Config, overrides: Overrides = None, opened: Opened = False, told: Told = False) -> None:
    """Do every stage that is not done yet, and show what came out."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import desktop, outcome, pipeline, results, show

    finished = pipeline.execute(settings, Progress())
    show.results(results.read(finished.run), show.console())
    if opened:
        desktop.show(finished.artifacts["report"].path(results.PAGE))
    if told:
        _tell(0, **outcome.of_run(finished))


@app.command()
def check(config_file: Config, overrides: Overrides = None) -> None:
    """Validate, touch every path, count documents, estimate time and memory. Starts nothing, leaves nothing behind."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import checks, pipeline, show
    from gotd_ray import compare as comparison
    from gotd_ray import curve as curves
    from gotd_ray import tune as tuning

    resolved = pipeline.resolve_paths(settings)
    current = pipeline.plan(resolved)
    found = checks.look(current, everything=True)
    told = [*config.warnings(settings), *found.told]
    told += comparison.check(resolved) if settings.compare else []
    told += curves.check(resolved) if settings.curve else []
    told += tuning.check(resolved) if settings.tune else []
    found.told = list(dict.fromkeys(told))
    show.estimate(current, found, show.console())


@app.command()
def plan(config_file: Config, overrides: Overrides = None) -> None:
    """Say what a run would do and what it would skip."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import pipeline, show

    show.stages(pipeline.plan(pipeline.resolve_paths(settings)), show.console())


@app.command()
def compare(config_file: Config, overrides: Overrides = None, opened: Opened = False, told: Told = False) -> None:
    """Train and judge the arms of the section `compare` side by side; goes on where it stopped."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import compare as comparison
    from gotd_ray import desktop, outcome, show_arms, storage
    from gotd_ray.results import COMPARISON_PAGE

    progress = Progress()
    found = comparison.compare(
        settings, progress, lambda cell, plan: progress.say("\n".join(show_arms.chosen(cell, plan)))
    )
    for line in show_arms.comparison(found):
        print(line)
    if opened:
        desktop.show(storage.join(found["settings"]["out"], COMPARISON_PAGE))
    if told:
        _tell(0, **outcome.of_comparison(found))


@app.command()
def curve(config_file: Config, overrides: Overrides = None, opened: Opened = False, told: Told = False) -> None:
    """Train and judge at the sizes of the section `curve`: what do more documents buy? Goes on where it stopped."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import curve as curves
    from gotd_ray import desktop, outcome, show_curve, storage
    from gotd_ray.results import CURVE_PAGE

    found = curves.curve(settings, Progress())
    for line in show_curve.curves(found):
        print(line)
    if opened:
        desktop.show(storage.join(found["settings"]["out"], CURVE_PAGE))
    if told:
        _tell(0, **outcome.of_curve(found))


@app.command()
def tune(config_file: Config, overrides: Overrides = None, opened: Opened = False, told: Told = False) -> None:
    """Search the settings of a training by trials that are judged early on dev; goes on where it stopped."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import desktop, outcome, show_tune, storage
    from gotd_ray import tune as tuning
    from gotd_ray.results import TUNED_PAGE

    found = tuning.tune(settings, Progress())
    for line in show_tune.search(found):
        print(line)
    if opened:
        desktop.show(storage.join(found["settings"]["out"], TUNED_PAGE))
    if told:
        _tell(0, **outcome.of_search(found))


@app.command()
def refresh(
    config_file: Config,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what has changed, and what it costs.")] = False,
    told: Told = False,
) -> None:
    """Bring the subset up to date with a corpus that changes: the next version, beside the last one."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import outcome
    from gotd_ray import refresh as refreshing

    found = refreshing.refresh(settings, Progress(), dry_run=dry_run)
    for sentence in found.words:
        print(sentence)
    if told:
        _tell(0, **outcome.of_refresh(found))


@app.command()
def show(config_file: Config, overrides: Overrides = None) -> None:
    """Say what ran, where it is, what it measured, and what has changed since."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import pipeline, results
    from gotd_ray import refresh as refreshing
    from gotd_ray import show as shown

    resolved, console = pipeline.resolve_paths(settings), shown.console()
    found, version = results.read(resolved), refreshing.published(settings)
    if version:
        shown.version(*version[:2], found, console)
        resolved = version[2]
        beside = {name: getattr(found, name) for name in ("comparison", "curve", "search")}
        found = dataclasses.replace(results.read(resolved), **beside)
    shown.results(found, console)
    try:
        current, why = pipeline.plan(resolved), ""
    except UserError as error:
        current, why = None, str(error)
    if not (version and current and refreshing.is_done(current, version[1])):
        shown.since(found, current, why, console, "gotd refresh" if version else "gotd run")


@app.command()
def report(config_file: Config, overrides: Overrides = None, opened: Opened = False) -> None:
    """Write the report of what is done so far anew, and print its path."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import desktop, pipeline
    from gotd_ray import refresh as refreshing

    version = refreshing.published(settings)
    run = version[2] if version else settings
    page = pipeline.write_report(run, Progress(), of_a_version=version is not None)
    print(page)
    if opened:
        desktop.show(page)


@app.command()
def init(
    paths: Annotated[
        list[str], typer.Argument(help="The corpus and the target, or a folder with corpus* and target*.")
    ],
    file: Annotated[Path, typer.Option("-o", "--output", help="The YAML to write.")] = Path("run.yaml"),
) -> None:
    """Look at a corpus and a target, guess how they are read, and write a run.yaml with comments."""
    from gotd_ray import begin

    if len(paths) > 2:
        raise UserError(f"{len(paths)} paths are given. Name a corpus and a target: gotd init CORPUS TARGET.")
    for line in begin.begin(paths, file):
        print(line)
    print(f"\nwritten: {file}\nnext:    gotd check {file}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a run, by which editors complete and check its YAML."""
    from gotd_ray.config import schema as described

    print(described.text(), end="")


@app.command()
def export(
    config_file: Config,
    tool: Annotated[str, typer.Option("--for", help="trl, axolotl or llamafactory.")],
    overrides: Overrides = None,
) -> None:
    """Write the subset for another tool: JSON lines, and a stub of its config."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import export as exporting
    from gotd_ray import pipeline

    folder, told = exporting.export(pipeline.resolve_paths(settings), tool)
    print("\n".join([*told, folder]))


INTERRUPTED, TERMINATED = 130, 143
"""Exit codes of shells: 128 and the number of the signal."""

STATES = {0: "done", HeldError.exit_code: "held"}
"""By exit code, what the JSON calls it; any other is ``failed``."""


def main() -> None:
    """Run the command line.

    Exits with 0 when all is done, 2 for what the user can fix, 75 where another run holds the folders, 1 for a fault of
    ours, 130 or 143 when it was interrupted or terminated; each but 0 with one line that says why.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal or log that knows no Unicode
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # as batch systems end a job: clean up first
    sys.exit(_run())


def _run() -> int:
    kept = "what is done is kept, and the same command goes on from there"
    try:
        app()
    except SystemExit as end:  # typer ends so: 2 for words on the command line that it does not know
        if end.code == 1:  # the reader of our output has gone, as in `gotd show run.yaml | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if end.code == INTERRUPTED:
            return _stop(f"interrupted; {kept}", INTERRUPTED)
        if end.code in (TERMINATED, signal.SIGTERM):  # ours, or that of Ray, which puts a handler of its own in place
            return _stop(f"terminated; {kept}", TERMINATED)
        if end.code and JSON in sys.argv:
            _tell(int(end.code), error="the words on the command line are not understood: see above")
        raise
    except UserError as error:
        return _stop(str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort
        return _stop(f"{_fault(error)}", 1)
    return 0


def _stop(said: str, code: int) -> int:
    said = redacted(said)
    print(f"gotd: {said}", file=sys.stderr)
    if JSON in sys.argv:  # looked for here, so that nothing can go wrong before it is known
        _tell(code, error=said)
    return code


def _tell(code: int, **facts: Any) -> None:
    """Write the last line, see :mod:`gotd_ray.outcome`.

    Args:
        code: the exit code.
        facts: besides; ``error`` is what standard error says, on one line.
    """
    known = {"state": STATES.get(code, "failed"), "code": code, "seconds": round(time.monotonic() - STARTED, 1)}
    print(json.dumps(known | {"error": None, "subset": None, "report": None} | facts), flush=True)


def _fault(error: Exception) -> str:
    """What to say of a fault of ours: one line, and where its trace lies."""
    trace = redacted("".join(traceback.format_exception(error)))
    said = " ".join(f"{type(error).__name__}: {ANSI.sub('', str(error))}".split())[:600]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="gotd-", suffix=".log", delete=False, errors="replace") as file:
            file.write(trace)
    except OSError:
        return f"a fault of gotd_ray, or of what it stands on: {said}"
    return f"a fault of gotd_ray, or of what it stands on: {said} (the whole trace is in {file.name}; please report it)"
