"""What a run or a comparison has left, for the program that started it: see ``--json`` of the command line."""

from __future__ import annotations

from typing import Any

from gotd_ray import storage
from gotd_ray.results import COMPARISON, COMPARISON_PAGE, PAGE, SUBSET
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
    out = found["settings"]["out"]
    return {
        "table": storage.join(out, COMPARISON),
        "report": storage.join(out, COMPARISON_PAGE),
        "counts": {"cells": found["cells"]},
        "ran": found["ran"],
        "skipped": found["skipped"],
    }
