"""All that can be known cheaply before anything runs: `gotd check` says it, and a run looks at the same first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gotd_ray import config, storage, tracking
from gotd_ray.choosing.recall import sample_share
from gotd_ray.config.selection import used_by
from gotd_ray.errors import UserError
from gotd_ray.filters import check_budget, check_decontamination
from gotd_ray.index import Collection
from gotd_ray.judging import cases
from gotd_ray.models import language
from gotd_ray.points import check_proportions, check_weights
from gotd_ray.preflight import Count, check_sources, count_documents
from gotd_ray.results import STAGES
from gotd_ray.stage import Plan
from gotd_ray.training import check
from gotd_ray.training import task as training

NUMBERS_OF_A_ROW = 130
"""Bytes of a document in the index beside its vector: address and size, compressed."""

STATES = 4
"""Copies of a trained model's weights on disk at once: two moments and the weights in a checkpoint, and the model."""


@dataclass
class Look:
    """What was found.

    Attributes:
        counts: by set, of those that are still to be embedded.
        unwanted: evaluation sets that are searched for.
        told: sentences to show.
        room: bytes that will be written, by folder.
    """

    counts: dict[str, Count] = field(default_factory=dict)
    unwanted: dict[str, Any] | None = None
    told: list[str] = field(default_factory=list)
    room: dict[str, int] = field(default_factory=dict)


def look(plan: Plan, only: Sequence[str] = STAGES, *, everything: bool = False) -> Look:
    """Hold the settings against the input, the models and the machine, for what is left to do; nothing is written.

    Args:
        only: the stages that will be done.
        everything: look also at what is done already.

    Raises:
        UserError: what a run would be refused for.
    """
    found = Look()

    def to_do(stage: str) -> bool:
        return stage in only and stage in plan.steps and (everything or not plan.done(stage))

    trackers = tracking.trackers(plan.run)
    if trackers and (to_do("send") or any(to_do(stage) for stage in training.STAGES)):
        tracking.check(trackers)
    for name, collection in plan.listed.items():
        found.told += [f"{name}: {words}" for words in collection.passed_over]
    if to_do("embed"):
        _sets(plan, found)
    if to_do("select"):
        found.unwanted = check_decontamination(
            plan.run.select, plan.steps["select"].given.unwanted, plan.run.storage, found.counts.get("corpus")
        )
        found.told += found.unwanted["told"] if found.unwanted else []
    trainings = {stage: task for stage, task in plan.trainings.items() if to_do(stage)}
    if trainings:
        found.told += check.check(trainings)
    if plan.evaluation and to_do("evaluate"):
        found.told += cases.check(plan.evaluation)
    _places(plan, found)
    return found


def _sets(plan: Plan, found: Look) -> None:
    """The sets that are embedded: columns, bad rows, names, the budget and the proportions against what they hold."""
    run = plan.run
    for name, collection in plan.collections.items():
        count = count_documents(name, name, collection.files, collection.text, run.chunks, run.storage)
        if not count.documents:
            raise UserError(
                f"the {name} has no document: {count.why_empty()}. Check {name}.text_column, chunks.min_chars and "
                f"{name}.exclude_sources."
            )
        found.counts[name] = count
        found.told += count.warnings
    check_selection(run, found.counts)
    if run.cascade is not None:
        found.told += check_cascade(run, found.counts["corpus"])
    if run.survey:
        found.told += check_sources("survey.always", run.survey.always, found.counts["corpus"])


def check_cascade(run: config.Run, corpus: Count) -> list[str]:
    """What a cascade will encode.

    Raises:
        UserError: the budget takes more documents than are encoded.
    """
    documents = corpus.distinct if corpus.exact else corpus.documents
    sample = sample_share(documents, run)
    about = "" if corpus.exact else "about "
    if run.cascade == "auto":
        told = f"a random sample, {about}{sample:.0%} of the corpus, and as many of the best as it shows to be needed"
        return [f"encoder.cascade: {told}, are encoded"]
    assert run.cascade is not None
    most = run.cascade + (1 - run.cascade) * sample
    if run.select.budget_unit == "documents" and corpus.exact and run.select.budget > most * documents:
        raise UserError(
            f"encoder.cascade is {run.cascade}, which leaves about {most * documents:,.0f} of {documents:,} documents, "
            f"and select.budget is {run.select.budget:,}. Raise encoder.cascade, or lower select.budget."
        )
    return [
        f"encoder.cascade: {about}{most:.0%} of the corpus is encoded: the best {run.cascade:.0%} and a random sample "
        f"of {sample:.0%}"
    ]


def check_selection(run: config.Run, counts: Mapping[str, Count]) -> None:
    """Hold budget, weights and shares against what a look at the files has found.

    Args:
        counts: of the sets that the run embeds, by name.

    Raises:
        UserError: the budget exceeds the corpus; all weights of a set, or of a source with a share, are 0; shares and
            sources do not name the same.
    """
    corpus, target = counts["corpus"], counts["target"]
    if corpus.exact:
        check_budget(run.select, corpus.distinct)
    elif run.select.budget > 3 * corpus.documents:
        check_budget(run.select, corpus.documents, "about ")
    for name in _weighed(run, counts):
        if counts[name].exact:
            check_weights(name, bool(counts[name].weighted))
    if run.target.proportions is not None:
        weighted = target.weighted if target.exact else None
        check_proportions(run.target.proportions, target.sources, target.exact, weighted)


def _weighed(run: config.Run, counts: Mapping[str, Count]) -> list[str]:
    """The sets whose weights a method needs."""
    if "corpus.weight_column" not in used_by(run.select.method) or (
        run.select.method == "gotd" and run.solve.potentials
    ):
        return ["target"]
    return [
        "target",
        "reference" if "reference" in counts else "corpus",
        *(["contrast"] if "contrast" in counts else []),
    ]


def _places(plan: Plan, found: Look) -> None:
    """That the folders can be written, and have room for what will be put there.

    Raises:
        UserError: they cannot, or have not.
    """
    run = plan.run
    assert run.index is not None
    vector = 2 * plan.encoder["width"] + NUMBERS_OF_A_ROW
    new = sum(_share_missing(plan.collections[name]) * count.documents for name, count in found.counts.items())
    found.room[run.index] = int(new * vector)
    trained = sum(not plan.done(stage) for stage in plan.trainings)
    if trained and run.model:
        found.room[run.out] = trained * STATES * language.weight_bytes(language.find(run.model, run.storage))
    for folder in dict.fromkeys((run.out, run.selection or run.out, run.index)):
        free, needed = storage.check_writable(folder, run.storage), found.room.get(folder, 0)
        if free is not None and free < needed:
            raise UserError(
                f"{folder} has {free / 1e9:,.1f} GB of room, and about {needed / 1e9:,.1f} GB will be written there. "
                "Free some, or name a folder elsewhere."
            )


def _share_missing(collection: Collection) -> float:
    missing = collection.index.snapshot(collection.files)[1]
    return len(missing) / max(len(collection.files), 1)
