"""What a judge is: all there is to one stands in one record, in one file of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.judging.intervals import Metric
from gotd_ray.storage import StoredFile
from gotd_ray.text.documents import Document
from gotd_ray.text.sets import WHOLE, TextSet, read_set
from gotd_ray.text.tally import Tally

Columns = Mapping[str, np.ndarray]
"""Of n examples, each (n,); ``example`` names them."""


@dataclass(frozen=True)
class Listed:
    """Files that a judge reads.

    Attributes:
        where: what they are called in messages.
        text: how they are read.
        files: those found under its paths.
    """

    where: str
    text: config.Text
    files: list[StoredFile]
    storage: config.Storage

    def read(self) -> TextSet:
        """The texts, whole, in the order of their ids and labels whatever that of the files.

        Raises:
            UserError: see :func:`gotd_ray.text.sets.read_set`; no row names a mode.
        """
        found = read_set(self.where, "target", self.files, self.text, WHOLE, self.storage)
        documents = sorted(found.documents, key=lambda one: (one.doc_id, one.label or "", one.source))
        return replace(found, documents=documents, told=(*found.told, *self._without_mode(found.tally)))

    def _without_mode(self, tally: Tally) -> list[str]:
        """A sentence on rows that do not name their mode."""
        column = self.text.source_column
        if column is None or not tally.unnamed:
            return []
        if not tally.columns[column]:
            names = ", ".join(map(repr, sorted(tally.seen)[:10])) or "no columns"
            raise UserError(
                f"{self.where} has no column '{column}' (evaluate.modes); it has {names}. Correct the name, or leave "
                "it out."
            )
        return [
            f"{self.where}: {tally.unnamed:,} of {tally.rows:,} rows name no mode in '{column}' (evaluate.modes): "
            "theirs is their file's name"
        ]

    def distinct(self) -> dict[str, str]:
        """The texts by id; equal ones are one."""
        return {one.doc_id: one.text for one in self.read().documents}

    def modes(self, documents: Iterable[Document]) -> dict[str, np.ndarray]:
        """The column ``mode`` of such documents, where ``evaluate.modes`` names one."""
        named = self.text.source_column is not None
        return {"mode": np.array([one.source for one in documents], object)} if named else {}


@dataclass(frozen=True)
class Case:
    """One set before one judge, with all that decides its numbers: its key is made of this.

    Attributes:
        settings: the judge's own and ``max_tokens``, ``precision`` and ``seed``.
        reads: the set itself, and after it what else the judge reads; nothing where others bring the data.
    """

    judge: str
    set: str
    settings: Mapping[str, Any]
    reads: tuple[Listed, ...]


@dataclass(frozen=True)
class Subject:
    """A model that is judged, on its device.

    Attributes:
        window: tokens that it is given at a time, at the most.
        batch_tokens: tokens of a batch, padding counted.
        precision: ``float32`` or ``bfloat16``, of the matrix products.
    """

    model: Any
    tokenizer: Any
    window: int
    batch_tokens: int
    precision: str = "float32"

    def cast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Known:
    """What is known of an evaluation before anything runs.

    Attributes:
        window: tokens that the models are given at a time.
        labels: of each labelled set, by what it is called; of large ones those of a part.
        whole: the sets that were read to their end.
        learnt: the classes that the classifier will know; none where that cannot be told yet.
        chat: whether there is a chat template.
    """

    window: int
    labels: Mapping[str, set[str]]
    whole: set[str]
    learnt: Callable[[], set[str]]
    chat: bool = True


@dataclass(frozen=True)
class Judge:
    """A judge. It is called as its section in ``evaluate`` is, and as its file.

    Attributes:
        version: raised when what it says of equal texts changes.
        kind: the objective of the models that it judges.
        metrics: what its rows are summed up to.
        columns: of its rows, besides ``example`` and ``mode``.
        cases: its section, how the target's files are read, and finetune's section -> for each set its name, the
            settings that decide its numbers, and how what it reads is read, by what that is called in messages.
        judge: a case and a model -> the rows by set; a judge may make several sets of one.
        check: holds its cases against what is known before anything runs; raises a UserError.
        cut: what counts of a text that is too long for the model; None where windows take all of it.
        distinct: equal texts are one.
        texts: its sets are texts in the target's form; otherwise it reads and checks them itself.
        modes: it gives the mode of each row, where ``evaluate.modes`` says what that is.
    """

    version: int
    kind: str
    metrics: tuple[Metric, ...]
    columns: Mapping[str, pa.DataType]
    cases: Callable[
        [Any, config.Text, config.Finetune | None], Iterator[tuple[str, dict[str, Any], dict[str, config.Text]]]
    ]
    judge: Callable[[Case, Subject], dict[str, Columns]]
    check: Callable[[Sequence[Case], Known], None] | None = None
    cut: str | None = None
    distinct: bool = False
    texts: bool = True
    modes: bool = False
