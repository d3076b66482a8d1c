"""`gotd tune`: settings of a training by Bayesian optimisation, on models judged early, on dev.

A trial is the training of the run with other settings, on the schedule of its full length, and stops at ``tune.at`` of
it. It is keyed by its content as every stage is, and what is proposed is a function of the trials before it (see
``gotd_ray/tuning/search``): a search that was killed goes on, with the trials of one that was not. Trials are proposed
``tune.at_once`` at a time whatever the cluster has, so that the search does not depend on it; as many of these as there
is room for train side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gotd_ray import config, pipeline, storage
from gotd_ray.checks import look
from gotd_ray.cluster import Resources, connected
from gotd_ray.config.tune import WHOLE
from gotd_ray.costs import money
from gotd_ray.errors import UserError
from gotd_ray.judging import JUDGES
from gotd_ray.judging.judge import Listed
from gotd_ray.lock import held
from gotd_ray.preflight import is_small
from gotd_ray.progress import Progress
from gotd_ray.report.machine import versions
from gotd_ray.report.render import tune_page
from gotd_ray.report.tuning import snippet
from gotd_ray.results import TUNED, TUNED_PAGE, TUNED_SETTINGS, UP_TO_SELECT
from gotd_ray.training.check import estimate
from gotd_ray.training.job import micro_batch
from gotd_ray.trials import Search, Trainer, in_words, search_of, value_of
from gotd_ray.tuning.agreement import agreement, order, saved, to_finish
from gotd_ray.tuning.search import Tried, propose
from gotd_ray.tuning.space import Setting, outside

DIFFERENT = 0.5
"""Share of dev's texts which are also judged on, from which dev counts as the test set."""

Found = dict[str, Any]
"""What stands in ``tune.json``."""


def before(run: config.Run) -> tuple[str, ...]:
    """The stages that must be done before the training that is searched."""
    if run.tuned == "pretune":
        return UP_TO_SELECT
    return (*UP_TO_SELECT, "pretune") if run.pretune else ()


def check(run: config.Run, *, looked: bool = False) -> list[str]:
    """Hold what is left to do of a search against the input, the models and the machine.

    Args:
        run: with its paths resolved.
        looked: whether the training and what it needs were looked at, as a comparison does.

    Returns:
        Sentences to show.

    Raises:
        UserError: for whatever a trial would be refused; dev is what the models are judged on.
    """
    plan = pipeline.plan(run)
    search = search_of(plan)
    told = [] if looked else look(plan, [*before(run), run.tuned]).told
    names = [name for name in ("eval_every", "patience") if getattr(search.given.task.settings, name)]
    if names:
        told.append(f"tune: its trials look at dev when they end alone, without {run.tuned}.{' and '.join(names)}.")
    if not search.first():
        away = outside(search.settings.space, search.given.task.settings.model_dump())
        told.append(
            f"tune: the run's own settings are not tried, since {away[0]} lies outside of tune.space: what is found "
            "can be worse than they are."
        )
    _check_space(search)
    return list(dict.fromkeys([*told, *_check_dev(plan, search)]))


def _check_space(search: Search) -> None:
    """Both corners, and all batch sizes, against the model and the workers."""
    space, task = search.settings.space, search.given.task
    for end in ("low", "high"):
        corner = {name: getattr(limits, end) for name, limits in space.items()}
        given, _ = search.trial({name: int(v) if name in WHOLE else v for name, v in corner.items()}, 0.5)
        estimate(given.task)
    if limits := space.get("batch_size"):
        low, high = int(limits.low), int(limits.high)
        sizes = [size for size in range(low, high + 1) if limits.scale != "powers" or not size & (size - 1)]
        for size in sizes:
            try:
                micro_batch(
                    task.settings.model_copy(update={"batch_size": size}), task.settings.workers or 1, task.stage
                )
            except UserError as error:
                raise UserError(f"tune.space.batch_size holds {size}: {error} Or set its scale to powers.") from None


def _check_dev(plan: pipeline.Plan, search: Search) -> list[str]:
    """Dev against the texts of every judge.

    Raises:
        UserError: half of dev or more is judged on.
    """
    task = search.given.task
    plain = task.text.model_copy(update={"source_column": None})  # which a judge takes for the column of its modes
    dev = Listed(f"{task.stage}.dev", plain, task.dev or [], task.storage)
    if plan.evaluation is None or not is_small(dev.files):
        return []
    texts, told = dev.distinct(), []
    for where, (case, listed) in plan.evaluation.reads().items():
        if not JUDGES[case.judge].texts or not is_small(listed.files):
            continue
        if both := len(texts.keys() & listed.distinct().keys()):
            said = f"{both:,} of the {len(texts):,} texts of {dev.where} are also in {where}"
            if both >= DIFFERENT * len(texts):
                raise UserError(
                    f"{said}: settings that were searched on them would be judged on them. Give {dev.where} other "
                    "texts."
                )
            told.append(f"{said}: the search sees a part of what is judged on.")
    return told


def tune(run: config.Run, progress: Progress) -> Found:
    """Search, train the best to the end, and hold the early look against it; what is done so far is written each time.

    Returns:
        What stands in ``tune.json``; besides, by key, the trainings that were done now, ``ran``, and those found done,
        ``skipped``.

    Raises:
        UserError: what the settings, the input or the machine do not allow; a trial that fails for other reasons than
            its settings.
        HeldError: another run works on these folders.
    """
    run = pipeline.resolve_paths(run)
    for sentence in [*config.warnings(run), *check(run)]:
        progress.say(f"note: {sentence}")
    with held([run.out], run.storage), connected(run.ray, progress.say) as resources:
        return work(run, resources, progress)


def work(run: config.Run, resources: Resources, progress: Progress) -> Found:
    """See ``tune``; the cluster is there, and all was checked."""
    run = pipeline.resolve_paths(run)
    if stages := before(run):
        pipeline.execute(run, progress, stages, looked=True)
    search = search_of(pipeline.plan(run, resources.gpus))
    trainer = Trainer(search, resources, progress)
    settings, early, manifests = search.settings, list[Setting](), list[dict[str, Any]]()
    seed = run.seed if settings.seed is None else settings.seed
    while len(early) < settings.trials:
        own = [search.first()] if not early and search.first() else []
        count = min(settings.at_once, settings.trials - len(early)) - len(own)
        tried = [
            Tried(setting, value_of(facts, search.metric)) for setting, facts in zip(early, manifests, strict=True)
        ]
        found = propose(settings.space, tried, count, sampler=settings.sampler, seed=seed, better=search.better)
        batch = own + found
        done = trainer.train(batch, settings.at)
        early, manifests = early + batch, manifests + done
        for number, (setting, facts) in enumerate(zip(batch, done, strict=True), len(early) - len(batch) + 1):
            value = value_of(facts, search.metric)
            said = "broke down" if value is None else f"{search.metric} {value:.4g}"
            progress.say(f"trial {number} of {settings.trials}: {said} with {in_words(setting)}")
        _write(search, tell(search, early, manifests, {}, trainer.rooms))
    values = [value_of(facts, search.metric) for facts in manifests]
    chosen = to_finish(values, settings.finish, search.better)
    if not chosen:
        said = manifests[0].get("diverged", "")
        raise UserError(f"tune: not one of {len(values)} trials could be trained. Narrow tune.space. The first: {said}")
    progress.say(f"training {len(chosen)} of the trials to the end")
    late = dict(zip(chosen, trainer.train([early[number] for number in chosen], 1.0), strict=True))
    result = tell(search, early, manifests, late, trainer.rooms)
    _write(search, result)
    return result | {"ran": trainer.ran, "skipped": trainer.skipped}


def tell(
    search: Search,
    early: Sequence[Setting],
    manifests: Sequence[dict[str, Any]],
    late: dict[int, dict[str, Any]],
    rooms: int,
) -> Found:
    """What is known so far.

    Args:
        early: the settings of the trials, in their order.
        manifests: of these, after ``tune.at``.
        late: by number of the trial, to the end, in the order in which they were finished.
        rooms: trainings that are side by side, each of which takes its part of the machines.

    Returns:
        ``trials``: a row each with ``number``, ``setting``, ``early`` and ``late`` values (None: broke down, or not
        trained to the end), ``rank`` by the early value, seconds of training and of the whole stage; ``best``: the
        number of the best at the end and its setting; ``agreement`` and ``time``: see ``gotd_ray/tuning/agreement``;
        ``seconds``: of all machines, and ``money``, where ``costs`` says what an hour costs.
    """
    values = [value_of(facts, search.metric) for facts in manifests]
    ends = {number: value_of(facts, search.metric) for number, facts in late.items()}
    ranks = {number: rank for rank, number in enumerate(order(values, search.better), 1)}
    rows = [
        {
            "number": number + 1,
            "setting": setting,
            "early": values[number],
            "late": ends.get(number),
            "rank": ranks[number],
            "said": facts.get("diverged"),
            "steps": facts.get("steps"),
            "train_seconds": facts.get("train_seconds"),
            "seconds": facts["seconds"],
            "late_seconds": late[number]["seconds"] if number in late else None,
            "money": money((facts["seconds"] + late.get(number, {}).get("seconds", 0.0)) / rooms, search.run.costs),
        }
        for number, (setting, facts) in enumerate(zip(early, manifests, strict=True))
    ]
    whole = [number for number, value in ends.items() if value is not None]
    looks = {number: value for number, value in enumerate(values) if value is not None}
    lasting = [value for value in ends.values() if value is not None]
    best = whole[order(lasting, search.better)[0]] if whole else None
    settings = search.settings
    seed = search.run.seed if settings.seed is None else settings.seed
    pairs = [(manifests[n]["train_seconds"], late[n]["train_seconds"]) for n in whole]
    seconds = sum(facts["seconds"] for facts in [*manifests, *late.values()]) / rooms
    texts = next((facts["dev_texts"] for facts in manifests if "dev_texts" in facts), None)
    known: Found = {
        "run": search.run.name,
        "stage": search.given.task.stage,
        "metric": search.metric,
        "better": search.better,
        "dev_texts": texts,
        "trials_in_all": settings.trials,
        "first_is_own": bool(search.first()),
        "trials": rows,
        "best": None if best is None else {"number": best + 1, "setting": early[best], "value": ends[best]},
        "agreement": agreement([looks[n] for n in whole], lasting, search.better, seed) if whole else None,
        "time": saved([facts.get("train_seconds", 0.0) for facts in manifests], pairs, settings.finish)
        if whole
        else None,
        "seconds": seconds,
        "money": money(seconds, search.run.costs),
    }
    return known | {"settings": search.run.model_dump(mode="json"), "versions": versions()}


def with_best(run: config.Run, found: Found) -> config.Run:
    """The run with the settings that a search has found best, and without a search.

    Args:
        found: what ``work`` returns.
    """
    section = getattr(run, found["stage"]).model_copy(update=found["best"]["setting"])
    return config.checked(run.model_copy(update={found["stage"]: section, "tune": None}))


def _write(search: Search, found: Found) -> None:
    run = search.run
    texts = {TUNED: json.dumps(found, indent=1, sort_keys=True), TUNED_PAGE: tune_page(found)}
    if found["best"]:
        texts[TUNED_SETTINGS] = snippet(found)
    for name, text in texts.items():
        storage.write_bytes(storage.join(run.out, name), text.encode(), run.storage)
