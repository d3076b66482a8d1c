"""What to try next: Optuna asked and told, as a pure function of what was tried.

Every batch is proposed by a study that is built anew from the trials so far (``create_trial``), by a sampler with a
seed of its own. So nothing of a search lives in a process: one that was killed goes on as if it had not been, from the
values on disk. All trials are judged after the same share of their schedules, so that the surrogate sees one fidelity.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection

from gotd_ray.ot.kernel import one_thread_each
from gotd_ray.tuning.space import Setting, Space, distribution, drawn_of, value_of


@dataclass(frozen=True)
class Tried:
    """A trial.

    Attributes:
        value: on dev; None where the training broke down.
    """

    setting: Setting
    value: float | None


def propose(space: Space, tried: Sequence[Tried], count: int, *, sampler: str, seed: int, better: str) -> list[Setting]:
    """The next settings to try, which differ where the space allows it: those asked for before count as running.

    Args:
        tried: in their order; one that broke down counts as the worst of the others.
        count: settings to propose.
        sampler: ``gp``, ``tpe`` or ``random``.
        better: ``lower`` or ``higher`` values.
    """
    optuna.logging.set_verbosity(logging.ERROR)
    directions = {"lower": StudyDirection.MINIMIZE, "higher": StudyDirection.MAXIMIZE}
    distributions = {name: distribution(name, limits) for name, limits in space.items()}
    with one_thread_each(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction=directions[better], sampler=_sampler(sampler, seed, len(tried)))
        _tell(study, space, tried, better)
        asked = [study.ask(distributions).params for _ in range(count)]
    return [{name: value_of(name, space[name], drawn) for name, drawn in params.items()} for params in asked]


def _sampler(name: str, seed: int, tried: int) -> BaseSampler:
    """A sampler whose draws are those of this place in the search."""
    own = (seed * 1_000_003 + tried) % 2**32
    if name == "gp":
        return GPSampler(seed=own, warn_independent_sampling=False)
    return TPESampler(seed=own) if name == "tpe" else RandomSampler(seed=own)


def _tell(study: Study, space: Space, tried: Sequence[Tried], better: str) -> None:
    known = [one.value for one in tried if one.value is not None]
    if not known:
        return
    worst = max(known) if better == "lower" else min(known)
    distributions = {name: distribution(name, limits) for name, limits in space.items()}
    for one in tried:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: drawn_of(space[name], value) for name, value in one.setting.items()},
                distributions=distributions,
                value=worst if one.value is None else one.value,
            )
        )
