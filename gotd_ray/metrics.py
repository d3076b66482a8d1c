"""How far a run is, for Prometheus: Ray exports these from every node, with ``ray_`` before their names.

Metrics are made where they are set: Ray keeps one for each name, and forgets them all when a cluster ends.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge


def embedded(collection: str, documents: int, tokens: int) -> None:
    """So many more documents and tokens of a collection have vectors."""
    tags = {"collection": collection}
    if documents:
        Counter("gotd_documents_embedded", "Documents embedded", ("collection",)).inc(documents, tags)
    if tokens:
        Counter("gotd_tokens_embedded", "Tokens embedded", ("collection",)).inc(tokens, tags)


def residual(value: float, role: str) -> None:
    """The last pass of a solve, to the target or the contrast."""
    Gauge("gotd_solve_residual", "L1 distance of the plan's marginal from the weights", ("role",)).set(
        value, {"role": role}
    )


def training(stage: str, step: int, loss: float) -> None:
    """The last step of a training."""
    Gauge("gotd_training_loss", "Training loss", ("stage",)).set(loss, {"stage": stage})
    Gauge("gotd_training_step", "Optimiser steps done", ("stage",)).set(step, {"stage": stage})
