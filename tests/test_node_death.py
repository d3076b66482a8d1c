"""A node killed in the middle: the pool goes on with what is left, in the same bits. Real nodes, killed for real."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
from conftest import make_run
from corpora import write_index
from ray.cluster_utils import Cluster
from solved import solve_rows

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.index import Embedded
from gotd_ray.progress import Progress
from gotd_ray.results import POTENTIALS
from gotd_ray.shards.pool import shards
from gotd_ray.shards.work import Problem
from gotd_ray.stages import solve

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WIDTH = 16


def random(folder: Path, targets: int) -> Embedded:
    rng = np.random.default_rng(0)
    return write_index(folder, rng.normal(size=(6000, WIDTH)), rng.normal(size=(targets, WIDTH)))


def run_of(folder: Path) -> config.Run:
    settings = {"tolerance": 1e-12, "max_passes": 120, "epsilon": 0.05, "landmarks": 64, "shards": 3, "kept_memory": 0}
    return make_run(folder, folder, solve=settings)


def solved(folder: Path, vectors: Embedded, resources: Resources) -> bytes:
    """The potentials' file of a solve that makes all its passes."""
    run = run_of(folder)
    if resources.private:
        run = run.model_copy(update={"solve": run.solve.model_copy(update={"shards": 1})})
    artifact = Artifact(str(folder / "solve"), "key", config.Storage())
    solve_rows(run, vectors, artifact, Site(resources, "cpu", Progress()))
    return (folder / "solve" / POTENTIALS).read_bytes()


ALONE = Resources(cpus=1, gpus=0, nodes=1, node_cpus=1, private=True)
"""One shard in this process: no Ray."""

THREE = Resources(cpus=3, gpus=0, nodes=3, node_cpus=1, private=False)
"""Three nodes of one CPU: a shard each, and no room for another."""


@contextmanager
def cluster() -> Iterator[Cluster]:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    nodes.wait_for_nodes()
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def alive() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def kill_one(nodes: Cluster) -> None:
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)


def solve_while_a_node_dies(folder: Path, nodes: Cluster) -> None:
    vectors = random(folder / "solve", targets=100)
    undisturbed = solved(folder / "undisturbed", vectors, ALONE)
    solve.CHECKPOINT_SECONDS = 0.05
    killed: list[float] = []

    def killer() -> None:
        while not list((folder / "killed" / "solve").glob("checkpoint-*")):
            time.sleep(0.01)
        kill_one(nodes)
        killed.append(time.monotonic())

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    other = solved(folder / "killed", vectors, THREE)
    ended = time.monotonic()
    thread.join()
    assert killed[0] < ended, "the node outlived the solve: the test proves nothing"
    assert alive() == 2
    assert other == undisturbed


def lose_an_answer_that_was_not_fetched(folder: Path, nodes: Cluster) -> None:
    """It is too large to travel with the reply, so it lies on the node that dies."""
    targets = 20_000
    vectors = random(folder / "answer", targets=10)
    rng = np.random.default_rng(2)
    problem = Problem("p", rng.normal(size=(targets, WIDTH)), np.full(targets, 1 / targets), 1.0, "float32")
    question = (problem, np.zeros(targets), 6000.0, 16)
    with shards(vectors, 3, config.Storage(), Site(THREE, "cpu", Progress())) as pool:
        before = pool.ask("columns", *question)
        pending = [actor.columns.remote(*question) for actor in pool._actors]
        ray.wait(pending, num_returns=3, fetch_local=False)
        kill_one(nodes)
        while alive() == 3:
            time.sleep(0.05)
        after = [pool._answer(i, pending[i], "columns", question) for i in range(3)]
    assert all((one == other).all() for one, other in zip(before, after, strict=True))


def test_the_pool_outlives_its_nodes(tmp_path: Path) -> None:
    """In a process and a temporary folder of its own: this one is connected to another cluster."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:  # names of sockets are limited to 107 bytes
        environment = {**os.environ, "RAY_TMPDIR": short, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("RAY_ADDRESS", None)
        done = subprocess.run(
            [sys.executable, __file__, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=1000
        )
    assert done.returncode == 0, done.stderr[-4000:]


if __name__ == "__main__":
    with cluster() as made:
        lose_an_answer_that_was_not_fetched(Path(sys.argv[1]), made)
        made.add_node(num_cpus=1)
        solve_while_a_node_dies(Path(sys.argv[1]), made)
