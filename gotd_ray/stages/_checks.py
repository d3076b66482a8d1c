"""What can be known of a solve and a selection before anything runs; it is refused in the same words after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from gotd_ray import config, methods
from gotd_ray.errors import UserError
from gotd_ray.preflight import Count
from gotd_ray.select.dsir import features
from gotd_ray.shards.points import check_proportions, check_weights
from gotd_ray.stages._unwanted import Unwanted, read_unwanted
from gotd_ray.storage import StoredFile

_NOT_TAKEN = {
    "contaminated": (
        "share select.ngram ({settings.ngram}) words in a row with select.decontaminate",
        "check that this holds evaluation sets and not the corpus itself, or raise select.ngram",
    ),
    "too_few_words": (
        "have fewer than select.dsir_min_words ({settings.dsir_min_words}) words",
        "lower it, or raise chunks.max_chars",
    ),
    "text_changed": ("have changed or gone since they were embedded", "run again, which embeds them as they are now"),
    "near_duplicate": ("are near-duplicates", "raise select.near_duplicate"),
    "source_quota": ("are over their source's quota", "raise select.source_quota"),
}
"""Why a document is not taken, and what to do."""


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


def check_decontamination(
    settings: config.Select, files: list[StoredFile], storage: config.Storage, corpus: Count | None = None
) -> dict[str, Any] | None:
    """What a selection would search for, see :class:`gotd_ray.stages._unwanted.Unwanted`, with ``told``, sentences for
    the screen; None where the run has no evaluation sets to avoid.

    Args:
        files: of the evaluation sets.
        corpus: what a look at it has found, where there was one: all of a small corpus is held against the filters.

    Raises:
        UserError: as :func:`gotd_ray.stages._unwanted.read_unwanted`; no document can be taken.
    """
    unwanted = read_unwanted(settings, files, storage)
    if corpus and corpus.exact and 0 < corpus.documents == len(corpus.sample):
        _check_filters(settings, corpus.sample, unwanted)
    return unwanted.facts | {"told": list(unwanted.told)} if unwanted else None


def _weighed(run: config.Run, counts: Mapping[str, Count]) -> list[str]:
    """The sets whose weights a method needs."""
    if not methods.find(run.select.method).weighs or (run.select.method == "gotd" and run.solve.potentials):
        return ["target"]
    return [
        "target",
        "reference" if "reference" in counts else "corpus",
        *(["contrast"] if "contrast" in counts else []),
    ]


def check_budget(settings: config.Select, available: int, about: str = "") -> None:
    """Hold the budget against the documents there are.

    Args:
        available: distinct documents of the corpus.
        about: "about " where that is an estimate.

    Raises:
        UserError: it is larger.
    """
    if settings.budget_unit == "documents" and settings.budget > available:
        raise UserError(
            f"select.budget is {settings.budget:,}, but the corpus has {about}{available:,} distinct documents. Lower "
            "the budget, or add to corpus.paths."
        )


def _check_filters(settings: config.Select, texts: list[str], unwanted: Unwanted | None) -> None:
    """Look for one text, out of all of a small corpus, that no filter takes out."""
    left_out: Counter[str] = Counter()
    for text in sorted(set(texts)):
        if settings.method == "dsir" and features([text]).words()[0] < settings.dsir_min_words:
            left_out["too_few_words"] += 1
        elif unwanted and unwanted.index.match(text):
            left_out["contaminated"] += 1
        else:
            return
    refuse_nothing(settings, left_out.total(), left_out)


def refuse_nothing(settings: config.Select, candidates: int, counts: Mapping[str, int], where: str = "") -> NoReturn:
    """Say which filters have left nothing to take.

    Args:
        candidates: how many documents there were.
        counts: of those that were not taken, by reason.
        where: the file that lists them.

    Raises:
        UserError: always.
    """
    reasons = {name: count for name, count in counts.items() if count}
    said = " and ".join(f"{count:,} {_NOT_TAKEN[name][0].format(settings=settings)}" for name, count in reasons.items())
    helps = "; ".join(_NOT_TAKEN[name][1] for name in reasons)
    raise UserError(
        f"no document can be taken: of {candidates:,} candidates {said or 'none is left'}. "
        f"{helps[:1].upper()}{helps[1:]}." + (f" They are listed in {where}." if where else "")
    )
