"""A cluster that grows when a run asks for GPUs, and shrinks after it: Ray's autoscaler on fake nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from gotd_ray import cluster
from gotd_ray.config import RaySettings

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MEMORY = 100 * 2**20
PORT = 6379
"""Where the fake provider's nodes look for the head."""

HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""Of the fake provider's head, as Ray's own tests have it."""

CONFIG = {
    "cluster_name": "growing",
    "max_workers": 3,
    "idle_timeout_minutes": 0.05,
    "provider": {  # as an external one: the wheel lacks the defaults of Ray's own name for it
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": HEAD_ID,
        "launch_multiple": True,
    },
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    **{f"{kind}_commands": [] for kind in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu-spot": {
            "resources": {"CPU": 1, "GPU": 1, "object_store_memory": MEMORY},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
            "priority": 10,
        },
    },
}


@contextmanager
def growing(folder: Path) -> Iterator[str]:
    """The address of a head without CPUs; whatever belongs to it is ended at the end."""
    (folder / "growing.yaml").write_text(json.dumps(CONFIG))
    head = ["--head", "--block", f"--port={PORT}", f"--temp-dir={folder}", "--num-cpus=0", "--num-gpus=0"]
    command = [*head, f"--object-store-memory={MEMORY}", "--include-dashboard=false", "--disable-usage-stats"]
    environment = os.environ | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    program = str(Path(sys.executable).with_name("ray"))
    config = f"--autoscaling-config={folder / 'growing.yaml'}"
    with (folder / "head.log").open("w") as log:
        started = subprocess.Popen([program, "start", *command, config], env=environment, stdout=log, stderr=log)
    try:
        address = folder / "ray_current_cluster"
        until(lambda: address.is_file() or started.poll() is not None)
        assert started.poll() is None, (folder / "head.log").read_text()
        yield address.read_text().strip()
    finally:
        started.terminate()
        started.wait(60)
        for pid in those_of(folder):
            os.kill(pid, signal.SIGKILL)


def those_of(folder: Path) -> list[int]:
    """Processes that have the folder in their command line: the fake nodes are no children of the head's."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 1) for line in listed.splitlines()]
    return [int(pid) for pid, words in lines if f"{folder}/" in words and int(pid) != os.getpid()]


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.2)


def nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A driver that is left connected when its head ends is ended by Ray, and what went wrong is not told."""
    ray.init(address=address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def grow_and_shrink(folder: Path) -> None:
    with growing(folder) as address, connected(address):
        assert nodes() == 1
        said: list[str] = []
        with cluster.connected(RaySettings(gpus=2, gpus_within=120), said.append) as resources:
            assert (resources.gpus, resources.nodes, nodes()) == (2, 2, 3)
            time.sleep(8)  # longer than machines may idle
            assert nodes() == 3
        assert said[0] == "waiting for 2 GPUs; the cluster has 0"
        until(lambda: nodes() == 1)


def test_a_cluster_grows_for_a_run_and_shrinks_after_it() -> None:
    """In a process of its own: this one is connected to another cluster."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"another program listens on port {PORT}")
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:  # names of sockets are limited to 107 bytes
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("RAY_ADDRESS", None)
        done = subprocess.run(
            [sys.executable, __file__, short], env=environment, capture_output=True, text=True, timeout=1000
        )
    assert done.returncode == 0, done.stderr[-4000:]


if __name__ == "__main__":
    grow_and_shrink(Path(sys.argv[1]))
