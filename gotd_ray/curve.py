"""`gotd curve`: the same run with more and more documents, and what the next ones would buy.

Each cell of sizes x seeds is an ordinary run in a folder of its own, all over one selection: what grows is ``texts`` of
its finetune or pretune, where a larger number holds a smaller. So a killed curve goes on where it stopped, and a cell
can be looked at with ``gotd show``. What is made of the losses is in ``gotd_ray/curves``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from gotd_ray import config, curve_sources, pipeline, storage
from gotd_ray.checks import look
from gotd_ray.cluster import connected
from gotd_ray.costs import money, spent
from gotd_ray.curves.advice import advise, as_loss
from gotd_ray.errors import UserError, named
from gotd_ray.judging import JUDGES
from gotd_ray.lock import held
from gotd_ray.progress import Progress
from gotd_ray.report.machine import versions
from gotd_ray.report.render import curve_page
from gotd_ray.results import CURVE, CURVE_PAGE, STAGES
from gotd_ray.training.task import MODEL

GROWS = {"target": "finetune", "subset": "pretune"}
"""What grows, and the training that learns it."""

FOLDER = "curve"
"""In a run's ``out``: a folder for each cell."""


@dataclass(frozen=True)
class Cell:
    """One run of a curve.

    Attributes:
        grows: ``target`` or ``subset``; ``warm`` is no point of a curve but the pre-tuned model that the cells of
            target start from.
        size: documents; 0 of ``warm``, which learns all.
    """

    grows: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.grows}-s{self.seed}" if self.grows == "warm" else f"{self.grows}-{self.size}-s{self.seed}"

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that it does; of the others it takes no result."""
        if self.grows == "target":
            return ("finetune", "evaluate")
        return STAGES[: STAGES.index("pretune") + 1] if self.grows == "warm" else STAGES[: STAGES.index("evaluate") + 1]


def cells(run: config.Run) -> list[Cell]:
    """All cells, one seed after the other; the largest size first, so that what is too large fails at once.

    Raises:
        UserError: the run does not say what grows, or has not what would learn it.
    """
    settings = _checked(run)
    found = []
    for seed in settings.seeds:
        if settings.target and run.pretune:
            found.append(Cell("warm", 0, seed))
        for grows in GROWS:
            found += [Cell(grows, size, seed) for size in reversed(getattr(settings, grows) or [])]
    return found


def _checked(run: config.Run) -> config.Curve:
    if run.curve is None:
        raise UserError(
            "the run has no section `curve`. Add it, for example: curve: {target: [50, 100, 200, 400, 800]}"
        )
    if run.evaluate is None:
        raise UserError("nothing measures the loss: add the section `evaluate`")
    for grows, stage in GROWS.items():
        sizes = getattr(run.curve, grows)
        if sizes and getattr(run, stage) is None:
            raise UserError(f"curve.{grows} is what {stage} learns from, and there is none: add `{stage}`, or drop it")
    largest = max(run.curve.subset or [0])
    if run.select.budget_unit == "documents" and largest > run.select.budget:
        raise UserError(
            f"curve.subset goes up to {largest:,}, but select.budget is {run.select.budget:,} documents. Raise the "
            "budget, or leave the largest sizes out."
        )
    known = {metric.name for judge in run.evaluate.asked for metric in JUDGES[judge].metrics}
    if unknown := sorted(set(run.curve.wanted) - known):
        raise UserError(
            f"curve.wanted names {unknown[0]}, which no judge of this run gives; they give {', '.join(sorted(known))}."
        )
    return run.curve


def run_of(run: config.Run, cell: Cell) -> config.Run:
    """The run of a cell.

    Args:
        run: with its paths resolved.

    Raises:
        UserError: the run's settings do not allow it.
    """
    assert run.evaluate and run.curve
    update: dict[str, Any] = {
        "name": f"{run.name}-{cell.name}",
        "out": storage.join(run.out, FOLDER, cell.name),
        "selection": storage.join(run.out, "selections", FOLDER),
        "compare": None,
        "curve": None,
        "tune": None,
        "tracking": None,
    }
    for grows, stage in GROWS.items():
        settings = getattr(run, stage)
        texts = {"texts": cell.size} if grows == cell.grows else {}
        update[stage] = settings and settings.model_copy(update={"seed": cell.seed} | texts)
    judged = "finetune" if run.finetune else "pretune"
    update["evaluate"] = run.evaluate.model_copy(update={"models": [judged]})
    if cell.grows == "warm":
        update["finetune"] = update["evaluate"] = None
    if cell.grows == "target":
        update["survey"] = None
        if run.pretune and run.model:  # what all sizes start from is trained once for each seed
            warm = storage.join(run.out, FOLDER, Cell("warm", 0, cell.seed).name, "pretune", MODEL)
            update["pretune"] = None
            update["model"] = run.model.model_copy(update={"base": warm, "revision": None})
    try:
        return config.checked(run.model_copy(update=update))
    except ValidationError as error:
        raise UserError(f"{cell.name} cannot be run: {config.problems(error)}.") from None


def curve(run: config.Run, progress: Progress) -> dict[str, Any]:
    """Run every cell that is not done, and say what more documents would buy.

    Returns:
        What ``tell`` does; besides, by name, the cells for which there was something to do, ``ran``, and the others,
        ``skipped``.

    Raises:
        UserError: of a cell's run, with the cell's name.
        HeldError: another run works on these folders.
    """
    run = pipeline.resolve_paths(run)
    for sentence in check(run):
        progress.say(f"note: {sentence}")
    todo = cells(run)
    done: dict[Cell, pipeline.Plan] = {}
    with held([run.out], run.storage), connected(run.ray, progress.say):
        for number, cell in enumerate(todo, 1):
            progress.say(f"{cell.name}: {number} of {len(todo)}")
            with named(cell.name):
                done[cell] = pipeline.execute(run_of(run, cell), progress, cell.stages, looked=True)
        result = tell(run, done)
        for name, text in (
            (CURVE, json.dumps(result, indent=1, sort_keys=True)),
            (CURVE_PAGE, curve_page(result)),
        ):
            storage.write_bytes(storage.join(run.out, name), text.encode(), run.storage)
    ran = [cell.name for cell, plan in done.items() if plan.did]
    return result | {"ran": ran, "skipped": [cell.name for cell in done if cell.name not in ran]}


def check(run: config.Run) -> list[str]:
    """Hold the largest and the smallest cell of what grows against the input, the models and the machine.

    Args:
        run: with its paths resolved.

    Returns:
        Sentences to show.

    Raises:
        UserError: the run does not say what grows; of a cell, with its name.
    """
    told: list[str] = []
    todo = cells(run)
    for grows in GROWS:
        own = sorted((cell for cell in todo if cell.grows == grows), key=lambda cell: (-cell.size, cell.seed))
        for cell in own[:1] + own[-1:]:
            one = run_of(run, cell)
            # The model that target starts from is not there yet: it has the base's shape.
            one = one.model_copy(update={"model": run.model}) if grows == "target" else one
            with named(cell.name):
                told += [*config.warnings(one), *look(pipeline.plan(pipeline.resolve_paths(one)), cell.stages).told]
        if 0 < len({cell.size for cell in own}) < 5:
            told.append(
                f"curve.{grows} has fewer than 5 sizes: the rectified law, which has 4 parameters, is not tried."
            )
    return list(dict.fromkeys(told))


def tell(run: config.Run, done: dict[Cell, pipeline.Plan]) -> dict[str, Any]:
    """The curves, and what they advise.

    Returns:
        ``curves``: for what grows and each judge, set and metric the ``sizes``, the ``values`` of each seed, and what
        ``curves.advice`` says of the metric as a loss, which of a share is what it lacks to 1. ``costs``: for each
        size the mean seconds by kind, and money. ``total``: those of all runs together. Of the curves of the subset
        ``theory``, see ``curve_sources.told``; or ``theory_refused``, why not.
    """
    assert run.curve
    measured: dict[tuple[str, ...], dict[tuple[int, int], float]] = {}
    better: dict[tuple[str, ...], str] = {}
    for cell, plan in done.items():
        for row in (plan.manifests.get("evaluate") or {}).get("results", ()):
            place: tuple[str, ...] = (cell.grows, row["judge"], row["set"], row["metric"])
            measured.setdefault(place, {})[cell.size, cell.seed] = row["value"]
            better[place] = row["better"]
    last = next((plan for cell, plan in done.items() if cell.grows == "subset"), None)
    untold = curve_sources.why_not(run) if last else None
    known = curve_sources.scores(last) if last and not untold else None
    curves = []
    for place, values in measured.items():
        sizes = getattr(run.curve, place[0])
        table = np.array([[values[size, seed] for seed in run.curve.seeds] for size in sizes])
        wanted = run.curve.wanted.get(place[3])
        goal = None if wanted is None else float(as_loss(wanted, better[place]))
        named = dict(zip(("grows", "judge", "set", "metric"), place, strict=True)) | {"better": better[place]}
        losses = as_loss(table, better[place])
        advice = advise(np.array(sizes), losses, run.seed, goal)
        theory = curve_sources.told(known, np.array(sizes), losses) if known and place[0] == "subset" else None
        measured_so = {"sizes": sizes, "values": table.tolist(), "wanted": wanted}
        curves.append(named | measured_so | advice | {"theory": theory})
    state = {"run": run.name, "seeds": run.curve.seeds, "level": 0.95}
    made = {"settings": run.model_dump(mode="json"), "versions": versions()}
    return state | made | {"curves": curves, "theory_refused": untold} | _costs(run, done)


def _costs(run: config.Run, done: dict[Cell, pipeline.Plan]) -> dict[str, Any]:
    """Of the trainings of each size the mean; the selection, which all share, counts once."""
    rows = []
    for grows, size in dict.fromkeys((cell.grows, cell.size) for cell in done):
        own = [_after_select(plan) for cell, plan in done.items() if (cell.grows, cell.size) == (grows, size)]
        seconds = {kind: value / len(own) for kind, value in spent(own).items() if kind != "selection"}
        rows.append({"grows": grows, "size": size} | seconds | {"money": money(sum(seconds.values()), run.costs)})
    chosen = next((plan.manifests for cell, plan in done.items() if cell.grows != "target"), {})
    total = spent(
        [{stage: facts for stage, facts in chosen.items() if stage not in ("pretune", "finetune", "evaluate")}]
    )
    for kind, value in spent(_after_select(plan) for plan in done.values()).items():
        total[kind] += value
    paid = money(sum(total.values()), run.costs)
    return {"costs": rows, "total": total | {"money": paid}, "currency": run.costs and run.costs.currency}


def _after_select(plan: pipeline.Plan) -> dict[str, dict[str, Any] | None]:
    return {stage: plan.manifests.get(stage) for stage in ("pretune", "finetune", "evaluate")}
