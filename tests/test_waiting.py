"""GPUs that a cluster has not yet: asked for, waited for, let go of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gotd_ray import cluster
from gotd_ray.config import RaySettings
from gotd_ray.errors import UserError

ONE, LATE = {"GPU": 1}, {"GPU": 1, "on_demand": 1}


class Growing:
    """A cluster whose GPUs come at given seconds; it remembers what it was asked for, and what was said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, comes_at: list[float]) -> None:
        self.now, self.comes_at = 100.0, comes_at
        self.asked: list[list[dict[str, int]]] = []
        self.said: list[str] = []
        monkeypatch.setattr(cluster, "time", self)
        monkeypatch.setattr(cluster, "request_resources", lambda bundles: self.asked.append(bundles))
        monkeypatch.setattr(cluster.ray, "is_initialized", lambda: True)
        monkeypatch.setattr(cluster.ray, "nodes", self.nodes)
        monkeypatch.setattr(cluster, "_ours", lambda: False)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def nodes(self) -> list[dict[str, Any]]:
        come = sum(at <= self.now - 100 for at in self.comes_at)
        nodes = [{"CPU": 4.0, "GPU": 1.0}] * come
        return [{"Alive": True, "Resources": node} for node in [{}, *nodes]] + [{"Alive": False, "Resources": ONE}]

    def connected(self, **settings: Any) -> Any:
        return cluster.connected(RaySettings(**settings), self.said.append)


@pytest.fixture(autouse=True)
def _no_request_is_left() -> Iterator[None]:
    yield
    assert not cluster._awaited


def test_a_run_begins_when_its_gpus_are_there_and_lets_go_of_them_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, [0, 70, 130])
    with growing.connected(gpus=3) as resources:
        assert (resources.gpus, resources.cpus, growing.now) == (3, 12, 230)
        assert growing.asked[0] == growing.asked[-1] == [ONE] * 3
        with growing.connected(gpus=8) as inner:  # a run of a comparison
            assert inner.gpus == 3
        assert [] not in growing.asked
    assert growing.asked[-1] == []
    assert growing.said == [f"waiting for 3 GPUs; the cluster has {there}" for there in (1, 1, 2)]


def test_nothing_is_asked_for_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, [])
    with growing.connected() as resources:
        assert resources.gpus == 0
    assert not growing.asked and not growing.said


def test_after_half_the_time_machines_that_are_no_spot_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, [0, 80])
    with growing.connected(gpus=2, gpus_within=100):
        pass
    assert growing.asked[:16] == [[ONE, ONE]] * 10 + [[ONE, LATE]] * 6
    assert growing.asked[16:] == [[ONE, ONE], []]


def test_gpus_that_do_not_come_are_refused_and_no_longer_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, [10])
    with pytest.raises(UserError) as refused, growing.connected(gpus=2, gpus_within=100):
        pass
    assert str(refused.value) == (
        "ray.gpus is 2, but the cluster has 1 after 100 s. Ask for fewer, or wait longer (ray.gpus_within); `ray "
        "status` on a cluster's head says why no more come."
    )
    assert growing.asked[-1] == [] and growing.now == 200


def test_a_cluster_of_the_runs_own_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, [10])
    monkeypatch.setattr(cluster, "_ours", lambda: True)
    with pytest.raises(UserError, match=r"ray.gpus is 1, but the cluster has 0 after 0 s"), growing.connected(gpus=1):
        pass
    assert growing.now == 100
