"""START HERE: the stages in their order, each skipped when its manifest says that it is done.

    survey -> embed -> solve -> select  survey: where the run has that section. What scores the documents depends
                    -> dsir  ->         on select.method: solve (gotd), dsir (dsir), or nothing but the vectors
    sketch -> coarse -> embed           of a cascade, before and after the solve: cheap vectors and their transport say
    solve -> sieve -> refine            what is encoded
           -> pretune -> finetune       where the run has these sections
           -> evaluate                  the same
           -> report                    of all that ran
           -> send                      the report's numbers to where ``tracking`` says

``plan`` lists files and reads manifests only. ``execute`` does what the plan says is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gotd_ray import config, lock, metrics, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.checks import look
from gotd_ray.cluster import Site, connected
from gotd_ray.costs import money
from gotd_ray.errors import UserError
from gotd_ray.index import LostError
from gotd_ray.lock import held
from gotd_ray.models.choice import pick_device, train_precision
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.paths import resolve_paths
from gotd_ray.progress import Progress
from gotd_ray.report.render import page
from gotd_ray.results import NUMBERS, PAGE, folder_of
from gotd_ray.results import STAGES as NAMES
from gotd_ray.stage import Plan, Stage
from gotd_ray.stages import dsir, embed, evaluate, report, select, send, sieve, solve, survey, train

STAGES: tuple[Stage, ...] = (
    survey.STAGE,
    embed.SKETCH,
    solve.COARSE,
    embed.STAGE,
    solve.STAGE,
    sieve.STAGE,
    embed.REFINE,
    dsir.STAGE,
    select.STAGE,
    train.PRETUNE,
    train.FINETUNE,
    evaluate.STAGE,
    report.STAGE,
    send.STAGE,
)
"""The run, in its order."""


def plan(run: config.Run, gpus: int | None = None) -> Plan:
    """List the files and read the manifests; nothing is started.

    Args:
        run: with its paths resolved.
        gpus: of the cluster; None looks at this machine.

    Raises:
        UserError: a path, the encoder or a setting does not serve.
    """
    device, encoder = encoder_of(run, gpus)
    # Decided here, once: in a cluster of unlike machines each would decide for itself.
    known = run.encoder.model_copy(update={"precision": encoder.get("precision", "auto")})
    cheap = TextEncoder(embed.cheap(known)).identity if run.cascade else None
    model = run.model and run.model.model_copy(update={"precision": train_precision(run.model, gpus)})
    return Plan(run.model_copy(update={"encoder": known, "model": model}), device, encoder, cheap=cheap).of(STAGES)


def encoder_of(run: config.Run, gpus: int | None = None) -> tuple[str, dict[str, Any]]:
    """The device of the encoder, and what determines its vectors; see ``plan``."""
    device = pick_device(run.encoder, gpus)
    return device, TextEncoder(run.encoder, device).identity


Then = Callable[[Plan], Sequence[str]]
"""By what some stages have left, those to do besides."""


def execute(
    run: config.Run,
    progress: Progress,
    only: Sequence[str] = NAMES,
    *,
    then: Then | None = None,
    looked: bool = False,
) -> Plan:
    """Run what is missing and return the plan with all stages done.

    Args:
        only: the stages to do; what they need of others must be there.
        then: what to do besides, on the same listing of the files.
        looked: whether all that can be known beforehand was looked at, as a comparison does for all its runs at once.

    Raises:
        UserError: what the settings, the input or the machine do not allow.
        HeldError: another run works on these folders.
    """
    notes = config.warnings(run)
    run = resolve_paths(run)
    current = plan(run)
    asked = NAMES if then else only
    if then is None and all(current.done(stage) for stage in current.steps if stage in only):
        for stage in current.steps:
            if stage in only:
                progress.say(f"{stage}: done before, skipped")
        return current
    if not looked:
        for sentence in [*notes, *look(current, asked).told]:
            progress.say(f"note: {sentence}")
    assert run.selection is not None
    with held([run.out, run.selection], run.storage), connected(run.ray, progress.say) as resources, _shown_as_held():
        current = plan(run, resources.gpus)  # another run may just have ended
        for name, step in current.steps.items():
            if name in asked and not current.done(name):
                step.stage.fits(step.given, resources)
        site = Site(resources, current.device, progress)
        try:
            return _work(current, site, only, then)
        except LostError as lost:
            if "embed" not in only:
                raise
            progress.say(f"note: {lost} That is done now.")
            return _work(current.of(STAGES), site, only, then)


@contextmanager
def _shown_as_held() -> Iterator[None]:
    """Says to Prometheus which folders this process holds, for as long as the body runs."""
    folders, holder = lock.mine()
    metrics.holding(folders, holder, True)
    try:
        yield
    finally:
        metrics.holding(folders, holder, False)


def _work(current: Plan, site: Site, only: Sequence[str], then: Then | None = None) -> Plan:
    """Do what is left to do of some stages."""
    for name in [name for name in current.steps if name in only]:
        lock.check()
        if current.done(name):
            site.progress.say(f"{name}: done before, skipped")
            continue
        step = current.steps[name]
        step.stage.work(step.given, step.artifact, site)
        current = replace(current.of(STAGES), did=(*current.did, name))  # later keys depend on what a stage kept
        seconds, costs = float(current.ran[name].get("seconds", 0.0)), current.run.costs
        paid = money(seconds, costs)
        metrics.stage(current.run.name, name, seconds, (paid, costs.currency) if costs and paid is not None else None)
    return _work(current, site, then(current)) if then else current


def write_report(run: config.Run, progress: Progress, *, of_a_version: bool = False) -> str:
    """Write the report anew, of what is done so far, and return its path; no cluster is started.

    On a machine without corpus or models the page is made of the numbers that the run has left; so it is for a version
    of a refresh whose corpus has gone on.

    Raises:
        UserError: nothing was selected yet.
    """
    run = resolve_paths(run)
    with held([run.out], run.storage):
        folder = folder_of(run, "report")
        numbers = storage.read_if_there(storage.join(folder, NUMBERS), run.storage)

        def as_it_was(why: str) -> str:
            progress.say(f"note: {why} So the page is made of the numbers of the last report.")
            path = storage.join(folder, PAGE)
            storage.write_bytes(path, page(json.loads(numbers or b"")).encode(), run.storage)
            return path

        try:
            current = plan(run)
        except UserError as error:
            if numbers is None:
                raise
            return as_it_was(str(error))
        if not current.done("select"):
            if of_a_version and numbers is not None:
                return as_it_was("files or settings are no longer those of the published version.")
            lies = Artifact(folder_of(run, "select"), "", run.storage).lies()
            if lies:
                raise UserError(
                    f"nothing to report: the selection under {run.out} is not of this run as it stands. Run gotd run "
                    "first; gotd show says what has changed."
                )
            raise UserError(f"nothing to report: no selection is done under {run.out}. Run gotd run first.")
        step = current.steps["report"]
        report.report(step.given, step.artifact, None)
    return step.artifact.path(PAGE)
