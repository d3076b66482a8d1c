"""The stage solve over rows that a test has made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Site
from gotd_ray.earlier import read_earlier
from gotd_ray.index import Embedded
from gotd_ray.stages.solve import Fit, solve


def solve_rows(
    run: config.Run, embedded: Embedded, artifact: Artifact, site: Site, encoder: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Its facts."""
    encoder = encoder or {}
    vectors: Any = SimpleNamespace(read=lambda _: embedded, collections=["reference"] if run.reference else [])
    return solve(Fit.of(run, vectors, encoder, read_earlier(run, encoder)), artifact, site)
