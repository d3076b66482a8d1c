"""Which programs open a storage's folder in one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from measure import heading, row

Try = Callable[[str], object]


def _duckdb(query: str) -> Try:
    def read(folder: str) -> object:
        import duckdb

        with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as session:
            return session.execute(query.format(folder)).fetchone()

    return read


def _call(module: str, name: str, path: str) -> Try:
    return lambda folder: getattr(importlib.import_module(module), name)(path.format(folder))


def _collect(name: str) -> Try:
    return lambda folder: getattr(importlib.import_module("polars"), name)(folder).select("vector").head(2).collect()


def _datasets(kind: str, files: str) -> Try:
    def read(folder: str) -> object:
        import datasets

        names = sorted(str(path) for path in Path(folder).glob(files) if path.is_file())
        found = datasets.load_dataset(kind, data_files=names, split="train", streaming=True)
        return next(iter(found))["vector"]

    return read


def _parquet(glob: str) -> dict[str, Try | None]:
    return {
        "DuckDB": _duckdb(f"SELECT max(vector[1]) FROM read_parquet('{{}}/{glob}')"),
        "pandas": _call("pandas", "read_parquet", "{}/parts"),
        "polars": _call("polars", "read_parquet", f"{{}}/{glob}"),
        "datasets": _datasets("parquet", glob),
    }


READERS: dict[str, dict[str, Try | None]] = {
    "lance": {
        "DuckDB": _duckdb("SELECT max(vector[1]) FROM '{}'"),
        "pandas": None,
        "polars": _collect("scan_lance"),
        "datasets": _datasets("lance", "**/*"),
    },
    "delta": {
        "DuckDB": _duckdb("SELECT max(vector) FROM delta_scan('{}')"),
        "pandas": None,
        "polars": _collect("scan_delta"),
        "datasets": None,
    },
    "runs": _parquet("parts/*.parquet"),
    "runs-bytes": _parquet("parts/*.parquet")
    | {"DuckDB": _duckdb("SELECT max(vector) FROM read_parquet('{}/parts/*')")},
    "parts": _parquet("parts/*.parquet"),
}


def tries(folders: dict[str, str]) -> None:
    """Prints what came of each try; where a library of the storage is needed, it is installed here."""
    print()
    programs = list(READERS["runs"])
    heading("storage", *programs)
    for name, folder in folders.items():
        cells = []
        for program in programs:
            attempt = READERS[name][program]
            cells.append("no reader" if attempt is None else _tried(attempt, folder))
        row(name, *cells)


def _tried(attempt: Try, folder: str) -> str:
    try:
        attempt(folder)
    except Exception as error:  # noqa: BLE001 - whatever it raises is what is reported
        return " ".join(f"no: {type(error).__name__}: {error}".split()).replace("|", " ")[:100]
    return "yes"
