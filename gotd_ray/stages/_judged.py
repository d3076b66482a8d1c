"""The sets of an evaluation: what they are called, how they are read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gotd_ray import config, storage
from gotd_ray.config.evaluation import Questions
from gotd_ray.errors import UserError
from gotd_ray.filesystems import unpacked
from gotd_ray.models import zero_shot
from gotd_ray.stages._texts import WHOLE
from gotd_ray.text.documents import Labelled
from gotd_ray.text.sets import TextSet, read_set

if TYPE_CHECKING:
    from gotd_ray.stages._evaluation import Evaluations

LABELLED = "evaluate.toxicity.classifier"
"""What the texts of the toxicity classifier are called in messages."""


def where(judge: str, name: str) -> str:
    """What a set is called in messages."""
    return f"evaluate.{judge}" + (f".{name}" if judge != "classification" else "")


def text_of(run: config.Run, judge: str) -> config.Text:
    """How a judge's files are read: as the target, all of it."""
    assert run.evaluate is not None
    all_of_it = {"exclude_sources": [], "sample": 1.0, "weight_column": None, "proportions": None}
    columns: dict[str, Any] = {"source_column": None}
    if judge == "zero_shot":
        columns |= {"format": "jsonl"}
    if run.evaluate.text_column:
        columns |= {"text_column": run.evaluate.text_column}
    found = run.target.model_copy(update=all_of_it | columns)
    if judge == "classification":
        assert run.finetune is not None and run.finetune.label_column
        return Labelled.of(found, run.finetune.label_column)
    return found


def labelled_text(run: config.Run) -> config.Text:
    """How the texts of the toxicity classifier are read."""
    assert run.evaluate and run.evaluate.toxicity and run.evaluate.toxicity.classifier
    return Labelled.of(text_of(run, "toxicity"), run.evaluate.toxicity.classifier.label_column)


def read(run: config.Run, planned: Evaluations, judge: str, name: str) -> TextSet:
    """A set, its texts whole, in the order of their ids and labels whatever that of the files.

    Raises:
        UserError: see :func:`gotd_ray.text.sets.read_set`.
    """
    return _in_order(
        read_set(where(judge, name), "target", planned.sets[judge, name], text_of(run, judge), WHOLE, run.storage)
    )


def read_labelled(run: config.Run, planned: Evaluations) -> TextSet:
    """The texts of the toxicity classifier, likewise.

    Raises:
        UserError: see :func:`gotd_ray.text.sets.read_set`.
    """
    return _in_order(read_set(LABELLED, "target", planned.labelled, labelled_text(run), WHOLE, run.storage))


def _in_order(found: TextSet) -> TextSet:
    return replace(found, documents=sorted(found.documents, key=lambda one: (one.doc_id, one.label or "")))


def questions(run: config.Run, planned: Evaluations, name: str, columns: Questions) -> list[dict[str, Any]]:
    """The rows of a zero-shot task of the user's own.

    Raises:
        UserError: a file cannot be read, or has none.
    """
    found: list[dict[str, Any]] = []
    for file in planned.sets["zero_shot", name]:
        try:
            with storage.InputFile(file.uri, run.storage) as opened:
                data = unpacked(opened).read()
        except (OSError, EOFError) as error:
            raise UserError(
                f"evaluate.zero_shot.local.{name}: {file.uri} cannot be read: {' '.join(str(error).split())}. Repair "
                "it, or name another."
            ) from None
        found += zero_shot.read_questions(name, data, columns.model_copy(update={"path": file.uri}))
    return found
