"""`gotd compare`: the same run with other documents, arm by arm, and how sure the differences are.

Each cell of arms x budgets x seeds is an ordinary run in a folder of its own, with all its settings but those of its
arm; cells share the index, and those of one arm and budget their selection. So a killed comparison goes on where it
stopped, and a cell can be looked at with ``gotd show``. All that is chosen is chosen first, and can be looked at while
the trainings run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from gotd_ray import config, pipeline, storage, tune
from gotd_ray.arms import Cell, cells, run_of, selects
from gotd_ray.checks import look
from gotd_ray.cluster import Resources, connected
from gotd_ray.config.compare import Arm
from gotd_ray.costs import money, spent
from gotd_ray.errors import UserError, named
from gotd_ray.index import table_of
from gotd_ray.judging.intervals import Examples, Metric, difference, interval
from gotd_ray.judging.measure import EXAMPLES, grouped, metrics_of
from gotd_ray.lock import held
from gotd_ray.progress import Progress
from gotd_ray.report.machine import versions
from gotd_ray.report.render import comparison_page
from gotd_ray.results import AFTER_SELECT, COMPARISON, COMPARISON_PAGE, STAGES, UP_TO_SELECT

Tuned = dict[tuple[str, int | None], dict[str, Any]]
"""By label and budget of an arm, what the search of its settings has found."""


def compare(
    run: config.Run, progress: Progress, chose: Callable[[Cell, pipeline.Plan], None] = lambda *_: None
) -> dict[str, Any]:
    """Run every cell that is not done, and hold the arms against each other; what is done so far is written each time.

    Args:
        chose: told of the first cell of each selection, once its documents are chosen and before anything is trained.

    Returns:
        What ``tell`` does; besides, by name, the cells for which there was something to do, ``ran``, and the others,
        ``skipped``.

    Raises:
        UserError: of a cell's run, with the cell's name.
        HeldError: another run works on these folders.
    """
    run = pipeline.resolve_paths(run)
    todo = {cell: run_of(run, cell) for cell in cells(run)}
    for sentence in check(run):
        progress.say(f"note: {sentence}")
    with held([run.out], run.storage):
        return _compare(run, todo, progress, chose)


def check(run: config.Run) -> list[str]:
    """Hold what is left to do of each arm against the input, the models and the machine, before the first one runs.

    Args:
        run: with its paths resolved.

    Returns:
        Sentences to show; of those on the settings, what holds in all arms that choose documents.

    Raises:
        UserError: of an arm, with its name; the run does not say what is compared.
    """
    largest: dict[Arm, Cell] = {}
    for cell in (cell for cell in cells(run) if not cell.tuned):
        if cell.arm not in largest or (cell.budget or 0) > (largest[cell.arm].budget or 0):
            largest[cell.arm] = cell
    chosen = [cell for cell in largest.values() if selects(cell.arm)] or list(largest.values())
    notes = [config.warnings(run_of(run, cell)) for cell in chosen]
    told = [note for note in notes[0] if all(note in others for others in notes)]
    trained = False
    for arm, cell in largest.items():
        # All arms that choose documents are trained and judged alike: one look at that is enough.
        passed = AFTER_SELECT if trained and selects(arm) else ()
        trained = trained or selects(arm) is not None
        stages = [stage for stage in _stages(cell) if stage not in passed]
        try:
            told += look(pipeline.plan(pipeline.resolve_paths(run_of(run, cell))), stages).told
        except UserError as error:
            raise type(error)(f"the arm {arm}: {error}") from None
    if own := next((cell for cell in cells(run) if cell.tuned), None):
        told += tune.check(pipeline.resolve_paths(run_of(run, own)), looked=True)
    return list(dict.fromkeys(told))


def _compare(
    run: config.Run,
    todo: dict[Cell, config.Run],
    progress: Progress,
    chose: Callable[[Cell, pipeline.Plan], None],
) -> dict[str, Any]:
    last = list(todo)[-1]
    done: dict[Cell, pipeline.Plan] = {}
    with connected(run.ray, progress.say) as resources:
        did = _choose(todo, progress, chose)
        tuned = _tune(todo, resources, progress)
        for number, (cell, its_run) in enumerate(todo.items(), 1):
            progress.say(f"{cell.name}: {number} of {len(todo)}")
            with named(cell.name):
                done[cell] = pipeline.execute(its_run, progress, _stages(cell), looked=True)
            if cell.label == last.label and _held_against(run, done):
                result = tell(run, done, len(todo), tuned)
                for name, text in (
                    (COMPARISON, json.dumps(result, indent=1, sort_keys=True)),
                    (COMPARISON_PAGE, comparison_page(result)),
                ):
                    storage.write_bytes(storage.join(run.out, name), text.encode(), run.storage)
    ran = [cell.name for cell, plan in done.items() if plan.did or cell in did]
    return result | {"ran": ran, "skipped": [cell.name for cell in done if cell.name not in ran]}


def _choose(
    todo: dict[Cell, config.Run], progress: Progress, chose: Callable[[Cell, pipeline.Plan], None]
) -> set[Cell]:
    """Do every selection, in the order of the arms; returns the cells for which there was something to do."""
    did: set[Cell] = set()
    shared: set[str | None] = set()
    for cell, its_run in todo.items():
        if selects(cell.arm) is None or its_run.selection in shared:
            continue
        progress.say(f"{cell.arm}: choosing")
        # With the first a report: there is something to read while the rest goes on.
        stages = UP_TO_SELECT if shared else (*UP_TO_SELECT, "report")
        shared.add(its_run.selection)
        with named(cell.name):
            plan = pipeline.execute(its_run, progress, stages, looked=True)
        if plan.did:
            did.add(cell)
        chose(cell, plan)
    return did


def _tune(todo: dict[Cell, config.Run], resources: Resources, progress: Progress) -> Tuned:
    """Search the settings of each arm and budget, with its first seed, and put them into its runs."""
    found: Tuned = {}
    for cell, its_run in list(todo.items()):
        if not cell.tuned:
            continue
        if (cell.label, cell.budget) not in found:
            progress.say(f"{cell.label}: searching its settings")
            with named(cell.name), held([its_run.out], its_run.storage):
                found[cell.label, cell.budget] = tune.work(its_run, resources, progress)
        todo[cell] = tune.with_best(its_run, found[cell.label, cell.budget])
    return found


def _stages(cell: Cell) -> Sequence[str]:
    """An arm without documents of its own needs none of the stages that choose some."""
    if selects(cell.arm):
        return STAGES
    return ("evaluate",) if cell.arm == "base" else ("finetune", "evaluate")


def _held_against(run: config.Run, done: dict[Cell, pipeline.Plan]) -> bool:
    assert run.compare
    return any(cell.arm == run.compare.against for cell in done)


def tell(
    run: config.Run, done: dict[Cell, pipeline.Plan], cells_in_all: int, tuned: Tuned | None = None
) -> dict[str, Any]:
    """The table: each arm's mean over seeds with its interval, and its paired difference from ``compare.against``.

    A tuned arm is held against that arm as tuned, and this against itself as it was.

    Returns:
        ``rows``: for each judge, set, metric, arm and budget the ``value``, ``low``, ``high`` over ``seeds`` runs,
        the ``difference`` (value, low, high) from the arm it is held against, ``wins`` of how many pairs, and a
        ``verdict``: better, worse or within noise. ``costs``: for each arm and budget the mean seconds of its stages,
        and where the report of its first run lies. ``tuned``: the settings found for each arm and budget.
    """
    assert run.compare and run.evaluate
    against = run.compare.against
    examples = {cell: _examples(plan, run) for cell, plan in done.items()}  # by (judge, set): a cell has one model
    groups: dict[tuple[str, int | None], list[Cell]] = {}
    for cell in done:
        groups.setdefault((cell.label, cell.budget), []).append(cell)
    rows: list[dict[str, Any]] = []
    for judge, name in dict.fromkeys(place for found in examples.values() for place in found):
        any_of_them = next(found[judge, name] for found in examples.values() if (judge, name) in found)
        for metric in metrics_of(judge, any_of_them):
            for (arm, budget), every in groups.items():
                members = [cell for cell in every if (judge, name) in examples[cell]]
                if not members:  # a base that is no classifier, a classifier that gives texts no likelihood
                    continue
                runs = [examples[cell][judge, name] for cell in members]
                value, low, high = interval(metric, runs, run.seed, run.evaluate.resamples)
                row: dict[str, Any] = {"judge": judge, "set": name, "metric": metric.name, "better": metric.better}
                row |= {"arm": arm, "budget": budget}
                row |= {"seeds": len(runs), "value": value, "low": low, "high": high}
                other = _reference(members[0], against, done)
                judged = [cell for cell in done if cell.label == other and (judge, name) in examples[cell]]
                others = _partners(members, judged)
                pairs = [(examples[a][judge, name], examples[b][judge, name]) for a, b in others]
                rows.append(row | (_difference(metric, pairs, run) if arm != against and pairs else {}))
    costs = [
        {"arm": arm, "budget": budget, **_cost(run, [done[cell] for cell in members], members[0])}
        for (arm, budget), members in groups.items()
    ]
    for row in costs:
        if search := (tuned or {}).get((row["arm"], row["budget"])):
            row |= {"tuning": search["seconds"], "seconds": row["seconds"] + search["seconds"]}
            row |= {"money": money(row["seconds"], run.costs)}
    own = [
        {"arm": arm, "budget": budget, "stage": search["stage"], "setting": search["best"]["setting"]}
        for (arm, budget), search in (tuned or {}).items()
    ]
    state = {"run": run.name, "cells": len(done), "cells_in_all": cells_in_all, "against": against, "level": 0.95}
    made = {"settings": run.model_dump(mode="json"), "versions": versions()}
    return state | made | {"rows": rows, "costs": costs, "tuned": own, "seeds": run.compare.seeds}


def _reference(cell: Cell, against: str, done: Iterable[Cell]) -> str:
    """The label of the arm that one is held against."""
    own = f"{against}, tuned"
    return own if cell.tuned and cell.arm != against and any(one.label == own for one in done) else against


def _examples(plan: pipeline.Plan, run: config.Run) -> dict[tuple[str, ...], Examples]:
    """(judge, set) -> the examples of the cell's one model."""
    table = table_of(storage.read_bytes(plan.artifacts["evaluate"].path(EXAMPLES), run.storage))
    return grouped(table, ["judge", "set"])


def _partners(members: list[Cell], others: list[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """Cells of one seed (and one budget, where both have one); the base, which has no seed, goes with each."""
    for one in members:
        for other in others:
            same_seed = one.seed == other.seed or None in (one.seed, other.seed)
            same_budget = one.budget == other.budget or None in (one.budget, other.budget)
            if same_seed and same_budget:
                yield one, other


def _difference(metric: Metric, pairs: list[tuple[Examples, Examples]], run: config.Run) -> dict[str, Any]:
    assert run.evaluate
    value, low, high = difference(metric, pairs, run.seed, run.evaluate.resamples)
    lower = metric.better == "lower"
    good, bad = (high < 0, low > 0) if lower else (low > 0, high < 0)
    each = [difference(metric, [pair], run.seed, 1)[0] for pair in pairs]
    return {
        "difference": [value, low, high],
        "wins": sum(one < 0 if lower else one > 0 for one in each),
        "pairs": len(pairs),
        "verdict": "better" if good else "worse" if bad else "within noise",
    }


def _cost(run: config.Run, plans: list[pipeline.Plan], cell: Cell) -> dict[str, Any]:
    """Mean seconds of the arm's own stages, in all and by kind, without embedding, which all arms share; money, where
    ``costs`` says what an hour costs; and its first run's report."""
    stages = [stage for stage in _stages(cell) if stage != "embed"]
    kinds = spent({stage: plan.manifests.get(stage) for stage in stages} for plan in plans)
    kinds = {kind: seconds / len(plans) for kind, seconds in kinds.items()}
    every = [facts for plan in plans for stage in stages if (facts := plan.manifests.get(stage))]
    seconds = sum(facts.get("seconds", 0.0) for facts in every) / len(plans)  # of the report, too
    report = f"arms/{cell.name}/report/report.html" if selects(cell.arm) else None
    return {"seconds": seconds, **kinds, "money": money(seconds, run.costs), "report": report}
