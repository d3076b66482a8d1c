"""What a run left, read from its folders alone: no corpus, encoder, base model or tracker is asked.

Each stage leaves a folder with ``manifest.json``, its facts, and ``settings.json``, the run's settings when it was
done. So results can be looked at when the corpus has moved, the settings have changed, or on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.index import table_of
from gotd_ray.storage import StoredFile

AFTER_SELECT = ("pretune", "finetune", "evaluate")
"""The stages that a run has only where it asks for them."""

UP_TO_SELECT = ("survey", "sketch", "coarse", "embed", "solve", "sieve", "refine", "dsir", "select")
"""The stages that choose documents."""

STAGES = (*UP_TO_SELECT, *AFTER_SELECT, "report", "send")
"""All stages in their order."""

FILES = "files.parquet"
"""In the folder of embed: which files each set was, as they were."""

POTENTIALS = "potentials.safetensors"
"""In the folder of solve, and of coarse."""

LOG_WEIGHTS = "weights"
"""In the folder of dsir: a folder."""

SUBSET = "subset.parquet"
"""In the folder of select."""

PAGE, NUMBERS = "report.html", "report.json"
"""In the folder of report."""

COMPARISON, COMPARISON_PAGE = "compare.json", "compare.html"
"""In the folder of a comparison: its table, and the page of it."""

CURVE, CURVE_PAGE = "curve.json", "curve.html"
"""In the folder of a run: what `gotd curve` has measured, and the page of it."""

TUNED, TUNED_PAGE, TUNED_SETTINGS = "tune.json", "tune.html", "tune.yaml"
"""In the folder of a run whose settings were searched: the trials, their page, and the best settings."""

_DECIDES_NOTHING = ("name", "ray", "compare", "curve", "tune", "costs", "refresh", "tracking")
"""Sections on which no number depends."""


def folder_of(run: config.Run, stage: str) -> str:
    """Where a stage's results lie."""
    own = stage in (*AFTER_SELECT, "report", "send")
    return storage.join(run.out if own else run.selection or run.out, stage)


@dataclass(frozen=True)
class Results:
    """The stages that are done in a run's folders, whatever their keys.

    Attributes:
        run: whose folders were looked at, paths resolved.
        manifests: by stage, in their order.
        settings: by stage, those of the run that did it; none of stages that are older than this file.
        comparison: the table of ``gotd compare``, where there is one.
        curve: what ``gotd curve`` has measured, likewise.
        search: the trials of ``gotd tune``, likewise.
    """

    run: config.Run
    manifests: dict[str, dict[str, Any]]
    settings: dict[str, dict[str, Any]]
    comparison: dict[str, Any] | None
    curve: dict[str, Any] | None
    search: dict[str, Any] | None

    def path(self, stage: str, *parts: str) -> str:
        """Something in a stage's folder."""
        return storage.join(folder_of(self.run, stage), *parts)

    def files(self) -> dict[str, dict[str, StoredFile]]:
        """By set and uri, the files that were embedded; empty where that is not known."""
        embedded = "refine" if self.run.cascade else "embed"
        data = storage.read_if_there(self.path(embedded, FILES), self.run.storage)
        found: dict[str, dict[str, StoredFile]] = {}
        for row in table_of(data).to_pylist() if data else ():
            file = StoredFile(row["uri"], row["size"], row["modified"])
            found.setdefault(row["set"], {})[file.uri] = file
        return found


def read(run: config.Run) -> Results:
    """Read the manifests that lie in the folders of a run, its paths resolved; damaged ones count as absent."""
    manifests, settings = {}, {}
    for stage in STAGES:
        artifact = Artifact(folder_of(run, stage), "", run.storage)
        if (manifest := artifact.lies()) is not None:
            manifests[stage] = manifest
            settings[stage] = artifact.settings_then() or {}
    return Results(run, manifests, settings, *(_table(run, name) for name in (COMPARISON, CURVE, TUNED)))


def _table(run: config.Run, name: str) -> dict[str, Any] | None:
    data = storage.read_if_there(storage.join(run.out, name), run.storage)
    try:
        return json.loads(data) if data else None
    except ValueError:
        return None


def judgements(evaluated: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results of an evaluation by judge, set and metric: ``minus_base`` is the row of the difference.

    Args:
        evaluated: the manifest of evaluate.
    """
    names = ("judge", "set", "metric", "model")
    changed = {tuple(row[name] for name in names): row for row in evaluated["differences"]}
    rows = [row | {"minus_base": changed.get(tuple(row[name] for name in names))} for row in evaluated["results"]]
    return sorted(rows, key=lambda row: (row["judge"], row["set"], row["metric"]))


def files_table(sets: Mapping[str, Iterable[StoredFile]]) -> pa.Table:
    """What ``FILES`` holds: set, uri, size, modified."""
    rows = [(name, file.uri, file.size, file.modified) for name, files in sets.items() for file in files]
    types = {"set": pa.string(), "uri": pa.string(), "size": pa.int64(), "modified": pa.int64()}
    return pa.Table.from_pylist([dict(zip(types, row, strict=True)) for row in rows], pa.schema(types))


def changes(
    results: Results, run: config.Run, files: Mapping[str, Iterable[StoredFile]], stale: list[str]
) -> list[str]:
    """What is not as it was when the stale stages were done, a line each.

    Args:
        results: what lies there.
        run: the settings now, resolved as the stages would get them.
        files: of each set, now.
        stale: stages that lie there and would be done again.
    """
    now = dict(_flat(run.model_dump(mode="json")))
    before = {name: value for stage in stale for name, value in _flat(results.settings.get(stage, {}))}
    said = [
        f"{name}: {before.get(name, 'not set')} then, {now.get(name, 'not set')} now"
        for name in (sorted({*before, *now}) if before else ())
        if before.get(name) != now.get(name) and name.partition(".")[0] not in _DECIDES_NOTHING
    ]
    then = results.files()
    for name, listed in files.items():
        if name in then and (counts := in_words(count(differing(then[name], listed)))):
            said.append(f"{name}: {counts}")
    return said


def differing(then: Mapping[str, StoredFile], now: Iterable[StoredFile]) -> dict[str, list[str]]:
    """The files that are ``new``, ``changed`` and ``gone``.

    Args:
        then: by uri.
    """
    current = {file.uri: file for file in now}
    return {
        "new": sorted(current.keys() - then.keys()),
        "changed": [uri for uri, file in current.items() if uri in then and then[uri] != file],
        "gone": sorted(then.keys() - current.keys()),
    }


def count(files: Mapping[str, Sized]) -> dict[str, int]:
    """How many of each."""
    return {what: len(some) for what, some in files.items()}


def in_words(counts: Mapping[str, int]) -> str:
    """Numbers of files, by what became of them; empty where there are none."""
    return ", ".join(f"{many:,} file{'s' if many > 1 else ''} {what}" for what, many in counts.items() if many)


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield before + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
