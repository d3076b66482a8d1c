"""What the glue asks of Ray can be given: no actor is larger than a node."""

from __future__ import annotations

import pytest

from gotd_ray.cluster import Resources
from gotd_ray.config import Encoder
from gotd_ray.stages._shards import _cpu_share
from gotd_ray.stages.embed import READER_CPUS, _actors

CLUSTERS = [
    Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True),
    Resources(cpus=1, gpus=0, nodes=1, node_cpus=1, private=True),
    Resources(cpus=32, gpus=0, nodes=4, node_cpus=8, private=False),
    Resources(cpus=64, gpus=0, nodes=1, node_cpus=64, private=False),
    Resources(cpus=20, gpus=0, nodes=2, node_cpus=4, private=False),
]


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("actors", [None, 1, 2, 7])
def test_encoders_fit_the_nodes_and_leave_room_for_a_reader(cluster: Resources, actors: int | None) -> None:
    number, threads, request = _actors(Encoder(actors=actors), "cpu", cluster)
    assert 0 < request["num_cpus"] <= cluster.node_cpus
    assert number * request["num_cpus"] + READER_CPUS <= cluster.cpus + 1e-9
    assert threads is not None
    assert 1 <= threads <= cluster.node_cpus


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 100])
def test_shards_dealt_to_the_nodes_fit_them(cluster: Resources, shards: int) -> None:
    share = _cpu_share(shards, cluster)
    assert share * -(-shards // cluster.nodes) <= cluster.node_cpus


def test_one_encoder_per_gpu_on_gpus() -> None:
    cluster = Resources(cpus=16, gpus=4, nodes=2, node_cpus=8, private=False)
    assert _actors(Encoder(), "cuda", cluster) == (4, None, {"num_gpus": 1})
    assert _actors(Encoder(actors=9), "cuda", cluster)[0] == 4
