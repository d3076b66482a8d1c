"""What a selection is in Python: the documents that were taken, the scores of all, and the report."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gotd_ray.errors import UserError
from gotd_ray.results import NUMBERS, PAGE, SUBSET

if TYPE_CHECKING:
    import pyarrow as pa

    from gotd_ray.stage import Plan


@dataclass(frozen=True)
class Report:
    """The page of a run; a notebook shows it.

    Attributes:
        path: of the page, which opens offline in any browser.
        numbers: what it shows.
    """

    path: str
    numbers: Mapping[str, Any] = field(repr=False)
    page: str = field(repr=False)

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{html.escape(self.page)}" style="width: 100%; height: 40em; border: 0"></iframe>'


@dataclass(frozen=True)
class Selection:
    """The documents that were taken, best first.

    Attributes:
        path: the folder of the results; None of a selection of vectors.
        facts: the manifest of the choice: counts, the cut, what was set aside.
    """

    path: str | None
    facts: Mapping[str, Any] = field(repr=False)
    _taken: pa.Table = field(repr=False)
    _scored: pa.Table | None = field(default=None, repr=False)
    _plan: Plan | None = field(default=None, repr=False)
    _temporary: Any = field(default=None, repr=False, compare=False)
    """Holds the folder, if it is a temporary one: it goes with this object."""

    @classmethod
    def of(cls, plan: Plan, temporary: Any = None) -> Selection:
        """What a run has left.

        Args:
            temporary: whatever must live as long as the selection.
        """
        chosen = plan.artifacts["select"]
        return cls(chosen.folder.rpartition("/")[0], plan.ran["select"], _read(chosen, SUBSET), None, plan, temporary)

    def __len__(self) -> int:
        return len(self._taken)

    def __repr__(self) -> str:
        of = f"{self.facts['candidates']:,} candidates"
        return f"<Selection: {len(self):,} of {of}{f', in {self.path}' if self.path else ''}>"

    def to_arrow(self) -> pa.Table:
        """A row for each document, in rank order: ``doc_id``, ``row`` (of what was given), ``score``, ``rank``; of
        texts also ``text``, ``source``, ``path``, ``chunk`` (piece of the row), ``chars``, ``tokens``, ``round``."""
        return self._taken

    def to_pandas(self) -> Any:
        """``to_arrow`` as a DataFrame."""
        return self._taken.to_pandas()

    def to_dataset(self) -> Any:
        """``to_arrow`` as a ``datasets.Dataset``, for a trainer.

        Raises:
            UserError: the package ``datasets`` is not installed.
        """
        try:
            import datasets
        except ImportError:
            raise UserError("to_dataset() needs the package datasets. Install it: pip install datasets.") from None
        return datasets.Dataset(datasets.table.InMemoryTable(self._taken))

    @cached_property
    def scores(self) -> pa.Table:
        """The score of every candidate, lower is better: ``doc_id``, ``score``; of vectors in the order of the rows.

        Raises:
            UserError: they were not kept (``select.export_scores``).
        """
        import pyarrow as pa

        from gotd_ray import storage

        if self._scored is not None:
            return self._scored
        assert self._plan is not None
        chosen = self._plan.artifacts["select"]
        names = storage.list_names(chosen.path("scores"), chosen.storage)
        if not names:
            raise UserError("the scores were not kept: set select.export_scores to true.")
        return pa.concat_tables([_read(chosen, f"scores/{name}") for name in names])

    def report(self) -> Report:
        """The report of the run.

        Raises:
            UserError: the selection is one of vectors.
        """
        from gotd_ray import storage

        if self._plan is None:
            raise UserError("a selection of vectors has no report: give texts or paths to have one.")
        made = self._plan.artifacts["report"]
        page = storage.read_bytes(made.path(PAGE), made.storage).decode()
        return Report(made.path(PAGE), json.loads(storage.read_bytes(made.path(NUMBERS), made.storage)), page)


def _read(artifact: Any, name: str) -> pa.Table:
    import pyarrow.parquet as pq

    from gotd_ray import storage

    return pq.read_table(io.BytesIO(storage.read_bytes(artifact.path(name), artifact.storage)))
