"""The evaluation sets of ``select.decontaminate``, read whole: what is searched for, and what is too short for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.select.decontaminate import NgramIndex, least_words
from gotd_ray.storage import StoredFile
from gotd_ray.text.sets import read_set

SECTION = "select.decontaminate"


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
