"""No actor is asked to be larger than a node, and what a shard answers depends on the request alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_run
from corpora import write_index
from solved import solve_rows

from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.config import Encoder, Storage
from gotd_ray.encoding import READER_CPUS, encoder_actors
from gotd_ray.errors import UserError
from gotd_ray.ot.exact import from_units
from gotd_ray.ot.shard import MIN_SEGMENTS
from gotd_ray.progress import Progress
from gotd_ray.shards.pool import _cpu_share
from gotd_ray.shards.work import Holding, Mixture, Problem, Work

ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)

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
    number, threads, request = encoder_actors(Encoder(actors=actors), "cpu", cluster)
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
    assert encoder_actors(Encoder(), "cuda", cluster) == (4, None, {"num_gpus": 1})
    assert encoder_actors(Encoder(actors=9), "cuda", cluster)[0] == 4


def test_a_shard_that_is_made_anew_takes_up_the_mixture_of_the_request(tmp_path: Path) -> None:
    """Else a shard that dies between two passes would go on with other weights, and silently."""
    x = np.random.default_rng(0).normal(size=(300, 8))
    held = Holding(write_index(tmp_path, x, x[:1]), Storage(), range(MIN_SEGMENTS), MIN_SEGMENTS, "cpu", 1)
    rng = np.random.default_rng(1)
    y, b, g = rng.normal(size=(5, 8)).astype(np.float32), np.full(5, 0.2), rng.normal(size=5)
    first = Work(held)
    total = from_units(first.mass(1))
    ids = np.concatenate([segment.ids for segment in first.shard.segments])[::30]
    mixtures = [None, Mixture(ids, 0.3, total), Mixture(ids[:3], 0.5, total)]
    problems = [Problem(str(n), y, b, 5.0, "float32", mixture) for n, mixture in enumerate(mixtures)]
    answers = [(first.columns(p, g, 1000.0, 1).tolist(), first.mass(1, p)) for p in problems]
    assert len({str(answer) for answer in answers}) == 3
    for place in (2, 0, 1):
        anew, problem = Work(held), problems[place]
        assert (anew.columns(problem, g, 1000.0, 1).tolist(), anew.mass(1, problem)) == answers[place]
        assert (first.columns(problem, g, 1000.0, 1).tolist(), first.mass(1, problem)) == answers[place]
    assert from_units(answers[1][1]) == pytest.approx(1)
    assert from_units(first.mass(1)) == total == 300


@pytest.mark.ray
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_vector_in_an_actor_stops_the_run_in_one_line(value: float, tmp_path: Path, ray_cluster: None) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    x[7, 2] = value
    vectors, artifact = write_index(tmp_path, x, rng.normal(size=(5, 4))), Artifact(str(tmp_path), "key", Storage())
    site = Site(Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=False), "cpu", Progress())
    with pytest.raises(UserError, match="vectors are broken: set encoder") as raised:
        solve_rows(make_run(tmp_path, tmp_path, solve={"shards": 2}), vectors, artifact, site)
    assert "\n" not in str(raised.value)
    assert artifact.manifest() is None


@pytest.mark.parametrize(
    "error",
    [MemoryError("unable to allocate 9 TiB"), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(ALLOCATOR)],
)
def test_a_shard_that_runs_out_of_memory_and_lives_is_told_what_to_do(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Work, "columns", fail)
    rng = np.random.default_rng(0)
    vectors = write_index(tmp_path, rng.normal(size=(200, 4)), rng.normal(size=(5, 4)))
    site = Site(Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True), "cpu", Progress())
    with pytest.raises(UserError) as raised:
        solve_rows(
            make_run(tmp_path, tmp_path, solve={"shards": 1}), vectors, Artifact(str(tmp_path), "k", Storage()), site
        )
    assert str(raised.value) == (
        "shard 0 ran out of memory in 'columns'. Raise solve.shards so that each holds less, or use larger nodes."
    )
    monkeypatch.setattr(Work, "columns", lambda *_: (_ for _ in ()).throw(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match=r"^a fault of ours$"):
        solve_rows(
            make_run(tmp_path, tmp_path, solve={"shards": 1}), vectors, Artifact(str(tmp_path), "k", Storage()), site
        )


@pytest.mark.ray
def test_a_part_of_the_index_that_is_damaged_is_told_once_and_is_no_death_of_a_shard(
    tmp_path: Path, ray_cluster: None
) -> None:
    rng = np.random.default_rng(0)
    vectors = write_index(tmp_path, rng.normal(size=(200, 4)), rng.normal(size=(5, 4)))
    (part,) = (tmp_path / "corpus" / "vectors" / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-100])
    site = Site(Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=False), "cpu", Progress())
    with pytest.raises(UserError, match=part.name) as raised:
        solve_rows(
            make_run(tmp_path, tmp_path, solve={"shards": 2}), vectors, Artifact(str(tmp_path), "k", Storage()), site
        )
    assert "\n" not in str(raised.value)
    assert "died" not in str(raised.value)
