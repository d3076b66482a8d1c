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
        known = metrics.METRICS[name.removesuffix("_total")]
        own = ",".join(re.search(rf'(?:^|,){tag}="([^"]*)"', tags)[1] for tag in known.tags)  # type: ignore[index]
        found[f"{name} {own}"] = float(value)
    return found


def test_documents_tokens_residual_and_loss_can_be_scraped() -> None:
    for documents in (3, 4):
        metrics.embedded("made_up", documents, 100)
    metrics.residual(0.5, "made_up")
    metrics.residual(0.25, "made_up")
    metrics.training("made_up", 7, 2.5, 4096)
    metrics.stage("a run", "made_up", 12.5, (0.25, "EUR"))
    metrics.holding(["s3://b/made_up"], "me on a machine", True)
    metrics.holding(["s3://b/other"], "me on a machine", True)
    metrics.holding(["s3://b/other"], "me on a machine", False)
    metrics.refreshed("s3://b/made_up", 12, 1.75e9)
    wanted = {
        "gotd_documents_embedded_total made_up": 7,
        "gotd_tokens_embedded_total made_up": 200,
        "gotd_solve_residual made_up": 0.25,
        "gotd_training_loss made_up": 2.5,
        "gotd_training_step made_up": 7,
        "gotd_training_tokens made_up": 4096,
        "gotd_solve_passes_total made_up": 2,
        "gotd_stage_seconds a run,made_up": 12.5,
        "gotd_stage_cost a run,made_up,EUR": 0.25,
        "gotd_folder_held s3://b/made_up,me on a machine": 1,
        "gotd_folder_held s3://b/other,me on a machine": 0,
        "gotd_refresh_last_success s3://b/made_up": 1.75e9,
        "gotd_refresh_version s3://b/made_up": 12,
    }
    assert {known.name(name) for name, known in metrics.METRICS.items()} == {f"ray_{one.split()[0]}" for one in wanted}
    deadline = time.monotonic() + 600
    while not wanted.items() <= exported().items() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert wanted.items() <= exported().items()
