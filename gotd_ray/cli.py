"""The command line: gotd run | compare | check | plan | show | report. Heavy libraries are imported late."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress

app = typer.Typer(
    help="Choose, out of an open-web corpus, the documents that best warm up a language model for your task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="The run, as YAML; see jobs/demo.yaml.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Change one key: --set select.budget=500.")]


@app.command()
def run(config_file: Config, overrides: Overrides = None) -> None:
    """Do every stage that is not done yet, and show what came out."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import pipeline, show

    finished = pipeline.execute(settings, Progress())
    show.results(finished, Console(soft_wrap=True))


@app.command()
def check(config_file: Config, overrides: Overrides = None) -> None:
    """Validate, touch every path, count documents, estimate time and memory. Starts nothing, writes nothing."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import pipeline, show

    current = pipeline.plan(pipeline.resolve_paths(settings))
    counts = pipeline.check(current)
    pipeline.check_judges(current)
    show.estimate(current, counts, Console(soft_wrap=True))


@app.command()
def plan(config_file: Config, overrides: Overrides = None) -> None:
    """Say what a run would do and what it would skip."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import pipeline, show

    show.stages(pipeline.plan(pipeline.resolve_paths(settings)), Console(soft_wrap=True))


@app.command()
def compare(config_file: Config, overrides: Overrides = None) -> None:
    """Train and judge the arms of the section `compare` side by side; goes on where it stopped."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import compare as comparison
    from gotd_ray import show

    show.comparison(comparison.compare(settings, Progress()), Console(soft_wrap=True))


@app.command()
def show(config_file: Config, overrides: Overrides = None) -> None:
    """Say what ran, where it is and what it measured."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import pipeline
    from gotd_ray import show as shown

    shown.results(pipeline.plan(pipeline.resolve_paths(settings)), Console(soft_wrap=True))


@app.command()
def report(config_file: Config, overrides: Overrides = None) -> None:
    """Write the report of what is done so far anew, and print its path."""
    settings = config.load(config_file, overrides or [])
    from gotd_ray import pipeline

    print(pipeline.write_report(settings))


def main() -> None:
    """Run the command line; the user's own mistakes end in one message and exit status 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except UserError as error:
        print(f"gotd: {error}", file=sys.stderr)
        sys.exit(2)
