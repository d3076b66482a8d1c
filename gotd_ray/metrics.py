"""How far a run is, what it has cost and what is published, for Prometheus.

Ray exports these from every node, with ``ray_`` before their names, ``_total`` behind those of counters, and tags of
its own. It keeps one for each name, forgets them when a cluster ends, and drops them where none is connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ray.util.metrics import Counter, Gauge


class Metric(NamedTuple):
    """What Prometheus is told of it."""

    kind: type[Counter] | type[Gauge]
    words: str
    tags: tuple[str, ...]

    def name(self, name: str) -> str:
        """As Prometheus sees it."""
        return f"ray_{name}{'_total' if self.kind is Counter else ''}"


METRICS = {
    "gotd_documents_embedded": Metric(Counter, "Documents embedded", ("collection",)),
    "gotd_tokens_embedded": Metric(Counter, "Tokens embedded", ("collection",)),
    "gotd_solve_residual": Metric(Gauge, "L1 distance of the plan's marginal from the weights", ("role",)),
    "gotd_solve_passes": Metric(Counter, "Passes over the candidates", ("role",)),
    "gotd_training_loss": Metric(Gauge, "Training loss", ("stage",)),
    "gotd_training_step": Metric(Gauge, "Optimiser steps done", ("stage",)),
    "gotd_training_tokens": Metric(Gauge, "Tokens seen", ("stage",)),
    "gotd_stage_seconds": Metric(Gauge, "Seconds that a stage has taken when it was last done", ("run", "stage")),
    "gotd_stage_cost": Metric(Gauge, "What these seconds cost by costs.per_hour", ("run", "stage", "currency")),
    "gotd_folder_held": Metric(Gauge, "1 while a run holds a folder, 0 after", ("folder", "holder")),
    "gotd_refresh_last_success": Metric(
        Gauge, "When a refresh last ended well, seconds since 1970; also where there was nothing to do", ("out",)
    ),
    "gotd_refresh_version": Metric(Gauge, "The version that is published", ("out",)),
}


def embedded(collection: str, documents: int, tokens: int) -> None:
    """So many more documents and tokens of a collection have vectors."""
    _add("gotd_documents_embedded", documents, {"collection": collection})
    _add("gotd_tokens_embedded", tokens, {"collection": collection})


def residual(value: float, role: str) -> None:
    """One more pass of a solve, to the target or the contrast, and what it has left."""
    _set("gotd_solve_residual", value, {"role": role})
    _add("gotd_solve_passes", 1, {"role": role})


def training(stage: str, step: int, loss: float, tokens: int) -> None:
    """The last step of a training, and the tokens up to it."""
    for name, value in {"loss": loss, "step": step, "tokens": tokens}.items():
        _set(f"gotd_training_{name}", value, {"stage": stage})


def stage(run: str, name: str, seconds: float, paid: tuple[float, str] | None) -> None:
    """A stage is done.

    Args:
        paid: money and its currency, where it is known what an hour costs.
    """
    _set("gotd_stage_seconds", seconds, {"run": run, "stage": name})
    if paid:
        _set("gotd_stage_cost", paid[0], {"run": run, "stage": name, "currency": paid[1]})


def holding(folders: list[str], holder: str, held: bool) -> None:
    """Who works in which folders."""
    for folder in folders:
        _set("gotd_folder_held", float(held), {"folder": folder, "holder": holder})


def refreshed(out: str, version: int, when: float) -> None:
    """A refresh has ended well."""
    _set("gotd_refresh_last_success", when, {"out": out})
    _set("gotd_refresh_version", version, {"out": out})


def _set(name: str, value: float, tags: Mapping[str, str]) -> None:
    known = METRICS[name]
    Gauge(name, known.words, known.tags).set(value, dict(tags))


def _add(name: str, value: float, tags: Mapping[str, str]) -> None:
    known = METRICS[name]
    if value:
        Counter(name, known.words, known.tags).inc(value, dict(tags))
