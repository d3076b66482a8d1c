"""What the Python API is given, as a section of the config: frames and lists of texts become a Parquet file."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gotd_ray.config.text import columns_of
from gotd_ray.errors import UserError

KINDS = (
    "a path (str, Path or list of Path), a list of texts, a pandas DataFrame or Series, a datasets.Dataset, a section "
    "as in run.yaml (dict), or an array of vectors (n, d)"
)


def is_array(given: object) -> bool:
    """Whether it is an array of numbers, numpy's or torch's."""
    return (isinstance(given, np.ndarray) and given.dtype.kind not in "OUS") or _is(given, "torch", "Tensor")


def section_of(given: object, name: str, folder: Path, columns: Mapping[str, str | None]) -> dict[str, Any]:
    """The section of a set.

    Args:
        name: ``corpus`` or ``target``.
        folder: where a Parquet file is written, to be called by its content: the same texts are the same file.
        columns: keys of the section that name columns.

    Raises:
        UserError: it is none of ``KINDS``, is empty, or lacks a column.
    """
    named = {key: value for key, value in columns.items() if value}
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, str | Path):
        return {"paths": str(given), **named}
    if isinstance(given, list | tuple) and given and all(isinstance(one, Path) for one in given):
        return {"paths": [str(one) for one in given], **named}
    table = _table(given, name, named)
    if not len(table):
        raise UserError(f"select(): {name} is empty. Give it some texts.")
    # The parent is the source's name where no column is: that of the set.
    return {"paths": str(_written(table, folder / name)), "source_from": "parent", **named}


def _table(given: Any, name: str, named: dict[str, str]) -> Any:
    """A table of the columns that are named; a list of texts has one, whatever its name."""
    import pyarrow as pa

    if _is(given, "pandas", "DataFrame"):
        return pa.Table.from_pandas(given[_columns(given.columns, name, named)], preserve_index=False)
    if _is(given, "datasets", "Dataset"):
        wanted = _columns(given.column_names, name, named)
        return given.select_columns(wanted).with_format("arrow")[:]
    texts = given.tolist() if _is(given, "pandas", "Series") or isinstance(given, np.ndarray) else given
    if not isinstance(texts, list | tuple):
        raise UserError(f"select(): {name} is a {type(given).__name__}. Give {KINDS}.")
    if others := {key: value for key, value in named.items() if key != "text_column"}:
        raise UserError(f"select(): {name} is a list of texts, which has no {', '.join(others)}. Give a DataFrame.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"select(): {name}[{row}] is a {type(text).__name__}, not a text. Leave it out.")
    return pa.table({named["text_column"]: pa.array(texts, pa.large_string())})


def _columns(there: Iterable[Any], name: str, named: dict[str, str]) -> list[str]:
    """The columns to keep.

    Raises:
        UserError: one is not there.
    """
    known = [str(one) for one in there]
    wanted = [*columns_of(named["text_column"]), *(value for key, value in named.items() if key != "text_column")]
    # A dotted name leads into a column of objects.
    kept = {one: one if one in known else one.partition(".")[0] for one in wanted}
    for one, column in kept.items():
        if column not in known:
            raise UserError(
                f"select(): {name} has no column '{one}'; it has {', '.join(known[:20])}. Name its text with "
                f"{'target_' if name == 'target' else ''}text_column."
            )
    return list(dict.fromkeys(kept.values()))


def _written(table: Any, folder: Path) -> Path:
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), stream, compression="zstd", row_group_size=1024)
    data = stream.getvalue()
    path = folder / f"{hashlib.blake2b(data, digest_size=8).hexdigest()}.parquet"
    if not path.exists():  # the time of a file is part of what it is
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


def _is(given: object, package: str, name: str) -> bool:
    """Whether it is of a class of a package, which then is imported."""
    kind = getattr(sys.modules.get(package), name, None)
    return kind is not None and isinstance(given, kind)
