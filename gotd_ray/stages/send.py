"""The last stage, send: the report's numbers -> the trackers that ``tracking`` names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from gotd_ray import storage, tracking
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Site
from gotd_ray.results import NUMBERS
from gotd_ray.stage import Plan, Stage
from gotd_ray.tracking import Trackers

VERSION = 1
"""Raised when other numbers are sent of equal reports."""


@dataclass(frozen=True)
class Sending:
    """What is sent, and where."""

    where: Trackers
    report: Artifact
    written: str | None
    """When the report was; None while it is not."""

    def key(self) -> Any:
        """A report that is written anew is sent anew."""
        return asdict(self.where), self.written


def _given(plan: Plan) -> Sending | None:
    where, report = tracking.trackers(plan.run), plan.steps["report"]
    written = report.manifest["written"] if report.manifest else None
    return Sending(where, report.artifact, written) if where else None


def send(given: Sending, artifact: Artifact, site: Site) -> dict[str, Any]:
    """See :func:`gotd_ray.tracking.send`."""
    facts = json.loads(storage.read_bytes(given.report.path(NUMBERS), artifact.storage))
    return tracking.send(given.where, facts, artifact, site.progress)


STAGE = Stage("send", VERSION, _given, send)
