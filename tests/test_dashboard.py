"""What is shown and watched from outside names what the code exports, and all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gotd_ray.metrics import METRICS

CLUSTER = Path(__file__).parent.parent / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana" / "gotd-ray.json").read_text())
ALERTS = yaml.safe_load((CLUSTER / "prometheus" / "alerts.yaml").read_text())
EXPORTED = {known.name(name): known for name, known in METRICS.items()}
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
QUERIES = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
RAYS = {"ray_node_gpus_utilization": ("instance", "GpuIndex")}
"""Metrics of Ray itself, and tags of theirs."""


def names(query: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", query))


def tags(query: str) -> set[str]:
    """Those that a query sums by."""
    return {tag.strip() for some in re.findall(r"\bby \(([^)]*)\)", query) for tag in some.split(",")}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    assert set().union(*(names(query["expr"]) for query in QUERIES)) == EXPORTED.keys() | RAYS.keys()


def test_rules_ask_for_metrics_that_are_exported() -> None:
    assert set().union(*(names(rule["expr"]) for rule in RULES)) <= EXPORTED.keys()
    assert any("gotd_refresh_last_success" in rule["expr"] and "36 * 3600" in rule["expr"] for rule in RULES)


@pytest.mark.parametrize("query", [*(one["expr"] for one in QUERIES), *(rule["expr"] for rule in RULES)])
def test_queries_are_well_formed_and_ask_by_tags_that_the_metric_has(query: str) -> None:
    assert query.count("(") == query.count(")") and query.count("[") == query.count("]")
    for name in names(query):
        assert tags(query) <= set(EXPORTED[name].tags if name in EXPORTED else RAYS[name])
        counter = name.endswith("_total")
        assert (f"rate({name}[" in query) == counter, "a counter is of use as a rate, and a gauge has none"


def test_ray_exports_what_is_taken_from_it() -> None:
    ray = pytest.importorskip("ray.dashboard.modules.reporter.reporter_agent")
    source = Path(ray.__file__).read_text()
    assert all(f'"{name.removeprefix("ray_")}"' in source for name in RAYS)


def test_grafana_finds_what_it_requires() -> None:
    """The fields without which an import is refused, or a panel stays empty."""
    assert DASHBOARD["title"] and re.fullmatch(r"[\w-]{1,40}", DASHBOARD["uid"]) and "id" not in DASHBOARD
    assert isinstance(DASHBOARD["schemaVersion"], int) and isinstance(DASHBOARD["version"], int)
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries", "table") and panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["fieldConfig"]["overrides"] == []
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])}
        assert not cells & taken, "no panel lies on another"
        taken |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= tags(target["expr"])


def test_rules_have_what_prometheus_requires() -> None:
    assert set(ALERTS) == {"groups"} and all(set(group) == {"name", "rules"} for group in ALERTS["groups"])
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smhd]", rule["for"]) and rule["annotations"]["summary"]


def test_the_documentation_lists_them_all() -> None:
    text = (CLUSTER.parent / "docs" / "clusters.md").read_text()
    for name, known in EXPORTED.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        assert f"| `{name}` | {kind} | {', '.join(known.tags)} | {known.words} |" in text
