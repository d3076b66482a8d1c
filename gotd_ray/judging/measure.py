"""What is made of the judges' rows: metrics with intervals, differences to the base, overlap with what was learnt."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from gotd_ray import config
from gotd_ray.judging import JUDGES, intervals
from gotd_ray.judging.cases import Evaluation, Unit
from gotd_ray.judging.judge import Columns
from gotd_ray.judging.modes import modes_of, of_mode, over_modes
from gotd_ray.text.chunks import split
from gotd_ray.text.documents import document_id
from gotd_ray.text.sets import left_out_of
from gotd_ray.training.task import read as read_examples
from gotd_ray.training.task import subset_of

EXAMPLES = "examples.parquet"

SCHEMA = pa.schema(
    dict.fromkeys(("model", "judge", "set", "example", "mode"), pa.string())
    | {name: kind for judge in JUDGES.values() for name, kind in judge.columns.items()}
)
"""Columns of the examples; those that a judge does not give are null."""


def table_of_rows(unit: Unit, name: str, columns: Columns) -> pa.Table:
    """Rows of ``SCHEMA``.

    Args:
        name: of the set, as the judge calls it.
    """
    count = len(columns["example"])
    same = {"model": unit.model.name, "judge": unit.case.judge, "set": name}
    given = dict(columns) | {key: np.full(count, value, object) for key, value in same.items()}
    return pa.table(
        [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(count, f.type) for f in SCHEMA], SCHEMA
    )


def measure(examples: pa.Table, seed: int, resamples: int) -> dict[str, Any]:
    """Metrics with intervals, and those of every model minus the base's on the same examples.

    Args:
        examples: rows of ``SCHEMA``.
        seed: of the bootstrap.
        resamples: its draws.

    Returns:
        ``results`` and ``differences``, a mapping for each model, judge, set and metric; a mode of a set is called
        SET/MODE. ``cut``, for each model, judge and set of which texts were longer than the model could take, how
        many.
    """
    results: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    cut: list[dict[str, Any]] = []
    found = grouped(examples, ["model", "judge", "set"])
    for (model, judge, name), own in found.items():
        where = {"model": model, "judge": judge, "set": name}
        if count := int((own["cut"] == True).sum()):  # noqa: E712 - others are null
            cut.append(where | {"texts": count, "examples": len(own["example"])})
        base = found.get(("base", judge, name)) if model != "base" else None
        parts = [("", own, base, metrics_of(judge, own))]
        parts += [  # the first metric is enough of each mode alone
            (f"/{mode}", of_mode(own, mode), base and of_mode(base, mode), [JUDGES[judge].metrics[0]])
            for mode in modes_of(own)
        ]
        for mode, some, others, metrics in parts:
            for metric in metrics:
                named = where | {"set": name + mode, "metric": metric.name, "better": metric.better}
                value, low, high = intervals.interval(metric, [some], seed, resamples)
                results.append(named | {"value": value, "low": low, "high": high, "examples": len(some["example"])})
                if others is not None:
                    value, low, high = intervals.difference(metric, [(some, others)], seed, resamples)
                    differences.append(named | {"against": "base", "value": value, "low": low, "high": high})
    return {"results": results, "differences": differences, "cut": cut}


def metrics_of(judge: str, examples: intervals.Examples) -> list[intervals.Metric]:
    """A judge's metrics, and where the examples name their modes, each metric's mean over these and its worst."""
    modes = modes_of(examples)
    own = JUDGES[judge].metrics
    return [one for metric in own for one in (metric, *(over_modes(metric, modes) if modes else ()))]


def grouped(examples: pa.Table, by: list[str]) -> dict[tuple[str, ...], intervals.Examples]:
    """The columns of each group of rows that follow each other and are equal in the columns ``by``."""
    columns = {name: examples[name].to_numpy(zero_copy_only=False) for name in examples.column_names}
    places = zip(*(columns[name].tolist() for name in by), strict=True)
    found: dict[tuple[str, ...], intervals.Examples] = {}
    start = 0
    for place, same in groupby(places):
        end = start + sum(1 for _ in same)
        found[place] = {name: column[start:end] for name, column in columns.items()}
        start = end
    return found


def cut_in_words(cut: list[dict[str, Any]]) -> list[str]:
    """A sentence for each row of ``cut``, see :func:`measure`."""
    return [
        f"evaluate: {row['texts']:,} of the {row['examples']:,} texts of {row['judge']} '{row['set']}' are too long "
        f"for {row['model']}: {JUDGES[row['judge']].cut}"
        for row in cut
    ]


def look(planned: Evaluation) -> dict[str, Any]:
    """What there is to say of the sets themselves.

    Returns:
        ``overlap``: for each set of texts how many are, or hold a piece that is, a document that was trained on; None
        where none was. ``left_out``: for each set the rows and texts left out, by reason. ``told``: both in words.
    """
    learnt: dict[str, set[str] | None] = {"subset": None, "target": None}
    if planned.subset is not None:
        learnt["subset"] = set(subset_of(planned.subset, "doc_id", planned.storage, planned.first))
    if planned.finetuning is not None:
        learnt["target"] = read_examples(planned.finetuning).ids
    overlap: list[dict[str, Any]] = []
    left_out: dict[str, dict[str, int]] = {}
    told: list[str] = []
    for where, (case, listed) in planned.reads().items():
        judge = JUDGES[case.judge]
        if not judge.texts:
            continue
        found = listed.read()
        told += found.told
        left_out[where] = dict(found.tally.reasons)
        if listed is not case.reads[0]:
            continue
        equal = len(found.documents) - len({one.doc_id for one in found.documents}) if judge.distinct else 0
        left_out[where] |= {"equal_text": equal} if equal else {}
        pieces = [ids_of(one.text, planned.chunks) for one in found.documents]
        counts = {
            name: None if ids is None else sum(not ids.isdisjoint(piece) for piece in pieces)
            for name, ids in learnt.items()
        }
        overlap.append({"judge": case.judge, "set": case.set, "texts": len(pieces), **counts})
        told += [
            f"evaluate: {count:,} of {len(pieces):,} texts of {case.judge} '{case.set}' stand word for word in the "
            f"{name} that was trained on"
            for name, count in counts.items()
            if count
        ]
    left_out = {where: reasons for where, reasons in left_out.items() if reasons}
    told += [words for where, reasons in left_out.items() for words in left_out_of(where, reasons)]
    return {"overlap": overlap, "left_out": left_out, "told": told}


def ids_of(text: str, chunks: config.Chunks) -> set[str]:
    """Ids of a text and of the pieces that the run would cut it into."""
    pieces = [piece for piece in split(text, chunks.max_chars) if len(piece) >= chunks.min_chars]
    return {document_id(piece) for piece in (text, *pieces)}
