"""What may be taken: the budget, the evaluation sets that are searched for, and what to say where nothing is left.

It is refused in the same words before anything runs and by the stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from gotd_ray import config
from gotd_ray.choosing.decontaminate import NgramIndex, least_words
from gotd_ray.choosing.dsir import features
from gotd_ray.errors import UserError
from gotd_ray.preflight import Count
from gotd_ray.storage import StoredFile
from gotd_ray.text.sets import read_set

SECTION = "select.decontaminate"

NOT_TAKEN = {
    "contaminated": (
        "share select.ngram ({settings.ngram}) words in a row with select.decontaminate",
        "check that this holds evaluation sets and not the corpus itself, or raise select.ngram",
    ),
    "too_few_words": (
        "have fewer than select.dsir_min_words ({settings.dsir_min_words}) words",
        "lower it, or raise chunks.max_chars",
    ),
    "empty_cell": (
        "lie in cells that hold no target document",
        "lower select.cells ({settings.cells})",
    ),
    "infinite_score": (
        "have an infinite score by select.method {settings.method}",
        "take another method, or check what this one leaves out",
    ),
    "text_changed": ("have changed or gone since they were embedded", "run again, which embeds them as they are now"),
    "near_duplicate": ("are near-duplicates", "raise select.near_duplicate"),
    "source_quota": ("are over their source's quota", "raise select.source_quota"),
}
"""Why a document is not taken, and what to do."""


@dataclass(frozen=True)
class Unwanted:
    """The texts that must not be selected."""

    index: NgramIndex
    facts: dict[str, Any]
    """files; texts: all that were read; searched and too_short: their two parts; left_out: rows, by reason."""

    told: tuple[str, ...]
    """Sentences for the screen."""


def read_unwanted(settings: config.Select, files: list[StoredFile], storage: config.Storage) -> Unwanted | None:
    """The evaluation sets, each text under the name of its file and its row; None where there is none.

    Args:
        files: of ``settings.decontaminate``.

    Raises:
        UserError: a file cannot be read, too many rows are bad, there is no text, or none that is long enough to be
            found: what is in the sets could then be taken.
    """
    sets = settings.decontaminate
    if sets is None:
        return None
    whole = config.Chunks(max_chars=None, min_chars=1)
    found = read_set(SECTION, SECTION, files, sets, whole, storage)
    texts = [(f"{one.path.rpartition('/')[2]}:{one.row}", one.text) for one in found.documents]
    index = NgramIndex(settings.ngram, texts)
    left_out = dict(sorted(found.tally.reasons.items()))
    facts: dict[str, Any] = {
        "files": len(files),
        "texts": len(texts),
        "searched": len(texts) - index.too_short,
        "too_short": index.too_short,
        "left_out": left_out,
    }
    least = least_words(settings.ngram)
    if not facts["searched"]:
        raise UserError(
            f"{SECTION}: all of its {len(texts):,} texts have fewer than {least} words, so that nothing would be "
            f"searched for. Check {SECTION}.text_column, or leave the section out."
        )
    told = list(found.told)
    if index.too_short:
        told.append(
            f"{SECTION}: {index.too_short:,} of {len(texts):,} texts have fewer than {least} words and are not "
            "searched for: they would be found by chance"
        )
    if left_out:
        shown = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        told.append(f"{SECTION}: rows that are not searched for: {shown}")
    return Unwanted(index, facts, tuple(told))


def check_decontamination(
    settings: config.Select, files: list[StoredFile], storage: config.Storage, corpus: Count | None = None
) -> dict[str, Any] | None:
    """What a selection would search for, see :class:`Unwanted`, with ``told``, sentences for
    the screen; None where the run has no evaluation sets to avoid.

    Args:
        files: of the evaluation sets.
        corpus: what a look at it has found, where there was one: all of a small corpus is held against the filters.

    Raises:
        UserError: as :func:`read_unwanted`; no document can be taken.
    """
    unwanted = read_unwanted(settings, files, storage)
    if corpus and corpus.exact and 0 < corpus.documents == len(corpus.sample):
        _check_filters(settings, corpus.sample, unwanted)
    return unwanted.facts | {"told": list(unwanted.told)} if unwanted else None


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
    said = " and ".join(f"{count:,} {NOT_TAKEN[name][0].format(settings=settings)}" for name, count in reasons.items())
    helps = "; ".join(NOT_TAKEN[name][1] for name in reasons)
    raise UserError(
        f"no document can be taken: of {candidates:,} candidates {said or 'none is left'}. "
        f"{helps[:1].upper()}{helps[1:]}." + (f" They are listed in {where}." if where else "")
    )
