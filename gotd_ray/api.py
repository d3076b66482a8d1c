"""The Python API, for notebooks and scripts: ``select``, ``run``, ``Potentials``.

Texts and paths go the way of ``gotd run``, with the same ids in the end; arrays of vectors need no cluster and no file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotd_ray import config
from gotd_ray.config.load import of as config_of
from gotd_ray.errors import UserError
from gotd_ray.estimator import Potentials, choose
from gotd_ray.given import is_array, section_of
from gotd_ray.selection import Selection

if TYPE_CHECKING:
    from gotd_ray.progress import Progress

__all__ = ["Potentials", "Selection", "UserError", "run", "select"]


def select(
    corpus: Any,
    target: Any,
    budget: int,
    *,
    text_column: str = "text",
    source_column: str | None = None,
    weight_column: str | None = None,
    target_text_column: str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    **sections: Mapping[str, Any],
) -> Selection:
    """Choose the documents of a corpus that best lead a model towards a target.

    With ``ray.init`` done the work runs on that cluster; otherwise on a private one, for as long as the call takes.
    Arrays of vectors are solved in this process.

    Args:
        corpus: a path (a ``str`` or ``Path``: a file, folder, glob or URL) or a list of ``Path``; a list of texts; a
            pandas DataFrame or Series; a ``datasets.Dataset``; a section as in run.yaml, a ``dict``; or an array of
            vectors (n, d).
        target: the same; an array (m, d) where the corpus is one.
        budget: documents to take.
        text_column: where the text stands in a row.
        source_column: where the name of a document's source stands, of the corpus.
        weight_column: where a document's weight in the transport stands, of the corpus.
        target_text_column: where the text of the target stands, if elsewhere.
        out: folder of the results, as ``out`` of run.yaml: a second call does only what is missing. None: a temporary
            one, deleted with the selection.
        quiet: tell nothing on standard error.
        sections: others of run.yaml, such as ``solve={"preset": "paper"}`` or ``encoder={"max_tokens": 128}``; of
            arrays ``solve`` and ``select`` alone.

    Raises:
        UserError: what is given does not serve, in one line.
    """
    if "budget" in sections.get("select", {}):
        raise UserError("select(): the budget is given twice. Leave it out of select={...}.")
    budget = _plain(budget)
    if is_array(corpus) or is_array(target):
        if out or {source_column, weight_column, target_text_column} != {None}:
            raise UserError("select(): vectors have no columns and leave no files. Leave out the columns and `out`.")
        return choose(corpus, target, budget, _progress(quiet), **sections)
    temporary = None if out else tempfile.TemporaryDirectory(prefix="gotd-")
    folder = Path(temporary.name if temporary else str(out)).expanduser()
    columns = {"text_column": text_column, "source_column": source_column, "weight_column": weight_column}
    data: dict[str, Any] = {
        "out": str(folder / "results" if temporary else out),
        "corpus": section_of(corpus, "corpus", folder / "given", columns),
        "target": section_of(target, "target", folder / "given", {"text_column": target_text_column or text_column}),
        **{name: dict(section) if isinstance(section, Mapping) else section for name, section in sections.items()},
    }
    data["select"] = {"budget": budget, **data.get("select", {})}
    return _execute(config_of(data, "select()"), quiet, temporary)


def run(config_file: str | Path, *, quiet: bool = False, **overrides: Any) -> Selection:
    """``gotd run``: do every stage that is not done yet.

    Args:
        config_file: the YAML.
        quiet: tell nothing on standard error.
        overrides: sections or keys that win over the file: ``select={"budget": 500}``, or ``**{"select.budget": 500}``.

    Raises:
        UserError: as ``gotd run`` says.
    """
    sets = [f"{key}={json.dumps(_plain(value), default=str)}" for key, value in _flat(overrides)]
    return _execute(config.load(config_file, sets), quiet)


def _execute(settings: config.Run, quiet: bool, temporary: Any = None) -> Selection:
    from gotd_ray import pipeline

    return Selection.of(pipeline.execute(settings, _progress(quiet)), temporary)


def _progress(quiet: bool) -> Progress:
    from rich.console import Console

    from gotd_ray.progress import Progress

    return Progress(Console(stderr=True, quiet=quiet))


def _flat(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's, paths as texts: the config takes no value for one of another type."""
    return value.item() if isinstance(value, np.generic) else value
