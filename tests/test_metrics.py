"""What Prometheus reads of a run, from the port that Ray itself names."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest

from gotd_ray import metrics

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def exported() -> dict[str, float]:
    """Values of our metrics as the node exports them, by name and tags of ours."""
    import ray

    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        text = answer.read().decode()
    found = {}
    for name, tags, value in re.findall(r"^ray_(gotd_\w+){(.*)} (\S+)$", text, re.MULTILINE):
        own = ",".join(re.findall(r'(?:collection|role|stage)="(\w*)"', tags))
        found[f"{name} {own}"] = float(value)
    return found


def test_documents_tokens_residual_and_loss_can_be_scraped() -> None:
    for documents in (3, 4):
        metrics.embedded("made_up", documents, 100)
    metrics.residual(0.5, "made_up")
    metrics.residual(0.25, "made_up")
    metrics.training("made_up", 7, 2.5)
    wanted = {
        "gotd_documents_embedded_total made_up": 7,
        "gotd_tokens_embedded_total made_up": 200,
        "gotd_solve_residual made_up": 0.25,
        "gotd_training_loss made_up": 2.5,
        "gotd_training_step made_up": 7,
    }
    deadline = time.monotonic() + 600
    while not wanted.items() <= exported().items() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert wanted.items() <= exported().items()
