"""What has come of a command, for the program that started it: see ``--json`` of the command line."""

from __future__ import annotations

from typing import Any

from gotd_ray import storage
from gotd_ray.refresh import Refreshed
from gotd_ray.results import (
    COMPARISON,
    COMPARISON_PAGE,
    CURVE,
    CURVE_PAGE,
    PAGE,
    SUBSET,
    TUNED,
    TUNED_PAGE,
    TUNED_SETTINGS,
)
from gotd_ray.stage import Plan


def of_run(plan: Plan) -> dict[str, Any]:
    """Paths, counts of documents and tokens, and which stages it did or found done.

    Args:
        plan: what ``pipeline.execute`` returns.
    """
    chosen = plan.ran["select"]
    return {
        "subset": plan.artifacts["select"].path(SUBSET),
        "report": plan.artifacts["report"].path(PAGE),
        "counts": {name: chosen[name] for name in ("candidates", "documents", "tokens")},
        "ran": list(plan.did),
        "skipped": [name for name in plan.steps if name not in plan.did],
    }


def of_comparison(found: dict[str, Any]) -> dict[str, Any]:
    """Paths, counts of cells, and which cells it did something for or found done.

    Args:
        found: what ``compare.compare`` returns.
    """
    return _of_many(found, COMPARISON, COMPARISON_PAGE) | {"counts": {"cells": found["cells"]}}


def of_curve(found: dict[str, Any]) -> dict[str, Any]:
    """Paths, counts of cells, and which cells it did something for or found done.

    Args:
        found: what ``curve.curve`` returns.
    """
    counts = {"cells": len(found["ran"]) + len(found["skipped"])}
    return _of_many(found, CURVE, CURVE_PAGE) | {"counts": counts}


def of_search(found: dict[str, Any]) -> dict[str, Any]:
    """Paths, counts of trials, the best setting, and which trainings it did or found done.

    Args:
        found: what ``tune.tune`` returns.
    """
    return _of_many(found, TUNED, TUNED_PAGE) | {
        "settings": storage.join(found["settings"]["out"], TUNED_SETTINGS),
        "best": {found["stage"]: found["best"]["setting"]},
        "counts": {"trials": len(found["trials"])},
    }


def _of_many(found: dict[str, Any], table: str, page: str) -> dict[str, Any]:
    """What all that runs many has: its table and page by path, and what it did or found done."""
    out = found["settings"]["out"]
    paths = {"table": storage.join(out, table), "report": storage.join(out, page)}
    return paths | {"ran": found["ran"], "skipped": found["skipped"]}


def of_refresh(found: Refreshed) -> dict[str, Any]:
    """Paths of what is published, the models in use among it; counts of documents that came and went, where something
    was done; and which stages it did or found done.

    Args:
        found: what ``refresh.refresh`` returns.
    """
    out, pointer = found.versions.out, found.pointer
    here: dict[str, Any] = {"version": None, "pointer": None}
    if pointer:
        here = {"version": pointer.version, "pointer": found.versions.pointer}
        paths = ("subset", "report", "changes", "changes_page")
        here |= {name: storage.join(out, getattr(pointer, name)) for name in paths if getattr(pointer, name)}
        here["models"] = {stage: storage.join(out, path) for stage, path in pointer.models.items()}
    counts = {name: found.facts.get(name, {}) for name in ("documents", "files")}
    return here | {"counts": counts, "ran": list(found.ran), "skipped": list(found.skipped)}
