"""What an arm of a comparison is, which cells there are, and the run of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from gotd_ray import config, storage
from gotd_ray.config.compare import Arm
from gotd_ray.config.selection import used_by
from gotd_ray.errors import UserError
from gotd_ray.judging import JUDGES

ARMS: dict[Arm, dict[str, Any] | None] = {
    "base": None,
    "target_only": None,
    "gotd_paper": {"method": "gotd", "rounds": 1},
    "gotd_debiased": {"method": "gotd", "rounds": 1},
    "gotd_rounds": {"method": "gotd"},
}
"""What an arm sets in ``select``; None: nothing is selected, there is no pre-fine-tune. Any other is a method."""


def selects(arm: Arm) -> dict[str, Any] | None:
    """See ``ARMS``."""
    return ARMS.get(arm, {"method": arm, "rounds": 1})


PRESET_OF: dict[Arm, str] = {"gotd_paper": "paper", "gotd_debiased": "debiased", "gotd_rounds": "debiased"}


@dataclass(frozen=True)
class Cell:
    """One run of the comparison; ``budget`` is None where nothing is selected, ``seed`` where nothing is trained;
    ``tuned``: with settings of the arm's own."""

    arm: Arm
    budget: int | None
    seed: int | None
    tuned: bool = False

    @property
    def label(self) -> str:
        """What the arm is called in tables."""
        return f"{self.arm}, tuned" if self.tuned else self.arm

    @property
    def name(self) -> str:
        parts = [self.arm, self.budget and f"b{self.budget}", None if self.seed is None else f"s{self.seed}"]
        parts += ["tuned"] if self.tuned else []
        return re.sub(r"[^\w.-]", "-", "-".join(str(part) for part in parts if part is not None))


def cells(run: config.Run) -> list[Cell]:
    """All cells, one seed after the other, so that an unfinished comparison is balanced.

    Raises:
        UserError: the run does not say what is compared, or the arms could not be compared fairly.
    """
    settings = _checked(run)
    found: list[Cell] = []
    for seed in settings.seeds:
        for budget in settings.budgets or [run.select.budget]:
            for arm in settings.arms:
                cell = Cell(arm, budget if selects(arm) else None, None if arm == "base" else seed)
                found += [] if cell in found else [cell]
            for cell in [one for one in found if one.seed == seed and one.budget in (budget, None)]:
                own = replace(cell, tuned=True)
                found += [own] if settings.tune and own not in found and _tunable(run, cell.arm) else []
    return found


def _tunable(run: config.Run, arm: Arm) -> bool:
    """Whether an arm has the training whose settings are searched."""
    return arm != "base" and (run.tuned == "finetune" or selects(arm) is not None)


def _checked(run: config.Run) -> config.Compare:
    if run.compare is None:
        raise UserError("the run has no section `compare`. Add it, for example: compare: {seeds: [0, 1, 2]}")
    arms = run.compare.arms
    if run.evaluate is None:
        raise UserError("nothing judges the arms: add the section `evaluate`")
    if run.pretune is None and any(map(selects, arms)):
        raise UserError("the arms differ in the documents of the pre-fine-tune, and there is none: add `pretune`")
    if run.finetune is None and "target_only" in arms:
        raise UserError("the arm target_only is a fine-tune alone, and there is none: add `finetune`, or drop the arm")
    if run.pretune and run.pretune.steps is None and run.pretune.tokens is None:
        raise UserError(
            "documents of one arm are longer than those of another, so that epochs are not the same training: set "
            "pretune.steps or pretune.tokens"
        )
    return run.compare


def run_of(run: config.Run, cell: Cell) -> config.Run:
    """The run of a cell.

    Args:
        run: with its paths resolved.

    Raises:
        UserError: the arm does not go with the run's other settings.
    """
    assert run.evaluate and run.compare
    select = selects(cell.arm)
    judged = "base" if cell.arm == "base" else "finetune" if run.finetune else "pretune"
    update: dict[str, Any] = {
        "name": f"{run.name}-{cell.name}",
        "out": storage.join(run.out, "arms", cell.name),
        "evaluate": run.evaluate.model_copy(update={"models": [judged]} | _unfit(cell)),
        "compare": None,
        "tune": run.tune if cell.tuned else None,
    }
    for stage in ("pretune", "finetune"):
        settings = getattr(run, stage)
        update[stage] = settings and settings.model_copy(update={"seed": cell.seed})
    if select is None:
        update["pretune"] = update["survey"] = None  # it takes no document of the corpus
        update["selection"] = update["out"]
        update["finetune"] = None if cell.arm == "base" else update["finetune"]
        return _validated(run, update, cell)
    rounds = {"rounds": run.compare.rounds} if cell.arm == "gotd_rounds" else {}
    chosen_by_chance = "select.seed" in used_by(select["method"])
    draw = {"seed": cell.seed} if chosen_by_chance else {}
    update["select"] = run.select.model_copy(update={"budget": cell.budget} | select | rounds | draw)
    preset = PRESET_OF.get(cell.arm, run.solve.preset)
    if preset != run.solve.preset:  # what was set beside the one preset is not the other
        own = {"preset": preset, "epsilon": None, "epsilon_unit": None, "tolerance": None}
        update["solve"] = run.solve.model_copy(update=own)
    shared = replace(cell, tuned=False).name if chosen_by_chance else f"{cell.arm}-b{cell.budget}"
    update["selection"] = storage.join(run.out, "selections", shared)
    return _validated(run, update, cell)


def _unfit(cell: Cell) -> dict[str, None]:
    """The judges left out: the base is no classifier yet."""
    return {name: None for name, judge in JUDGES.items() if judge.kind == "classification" and cell.arm == "base"}


def _validated(run: config.Run, update: dict[str, Any], cell: Cell) -> config.Run:
    """A copy is not validated by itself."""
    try:
        return config.checked(run.model_copy(update=update))
    except ValidationError as error:
        raise UserError(
            f"the arm {cell.arm} cannot be run: {config.problems(error)}. Or drop it from compare.arms."
        ) from None
