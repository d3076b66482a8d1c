"""How many fields of a JSON object a model gives right, in the answers of conversations that hold one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gotd_ray.errors import UserError
from gotd_ray.judging.answers import answered, asked, cases_of, conversations, mean
from gotd_ray.judging.answers import check as check_asking
from gotd_ray.judging.intervals import Metric, columns, ratio
from gotd_ray.judging.judge import Case, Columns, Judge, Known, Subject


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text, whatever stands around it."""
    start = text.find("{")
    while start >= 0:
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)
            return found
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
    return None


def fields_right(given: dict[str, Any], wanted: dict[str, Any]) -> int:
    """How many of the wanted fields have their value; of texts white space does not count, of numbers the type."""
    return sum(name in given and _same(given[name], value) for name, value in wanted.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.split() == other.split()
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _wanted(where: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of the answers.

    Raises:
        UserError: an answer is none, or has no field.
    """
    found = [first_object(text) for text in texts]
    if bad := sum(not one for one in found):
        raise UserError(
            f"{where}: {bad:,} of {len(found):,} answers hold no JSON object with a field, of which "
            "evaluate.extraction counts the fields. Correct them, or judge them by evaluate.answers."
        )
    return [one for one in found if one]


def _check(cases: Sequence[Case], known: Known) -> None:
    check_asking(cases, known)
    for case in cases:
        if case.reads[0].where in known.whole:  # else once all are read
            _wanted(case.reads[0].where, [asked(turns)[1] for turns in conversations(case).values()])


def _judge(case: Case, subject: Subject) -> dict[str, Columns]:
    same, given, texts = answered(case, subject)
    wanted = _wanted(case.reads[0].where, texts)
    found = [first_object(text) for text in given]
    right = [fields_right(one or {}, other) for one, other in zip(found, wanted, strict=True)]
    return {
        case.set: same
        | {
            "fields_right": np.array(right, np.int64),
            "fields": np.array([len(one) for one in wanted], np.int64),
            "valid": np.array([one is not None for one in found]),
            "all_right": np.array(
                [
                    one is not None and len(one) == n == len(other)
                    for one, n, other in zip(found, right, wanted, strict=True)
                ]
            ),
        }
    }


JUDGE = Judge(
    version=1,
    kind="causal",
    metrics=(
        Metric("field_accuracy", "higher", columns("fields_right", "fields"), ratio),
        mean("all_fields", "all_right"),
        mean("valid_json", "valid"),
    ),
    columns={"cut": pa.bool_(), "ended": pa.bool_(), "continuation": pa.string()}
    | {"fields_right": pa.int64(), "fields": pa.int64(), "valid": pa.bool_(), "all_right": pa.bool_()},
    cases=cases_of("extraction"),
    judge=_judge,
    check=_check,
    cut="the last tokens of these prompts count",
)
