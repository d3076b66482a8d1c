"""Where the work runs: a private cluster on this machine, a running one, or the one of the current job."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.autoscaler.sdk import request_resources

from gotd_ray.config import RaySettings
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress


@dataclass(frozen=True)
class Resources:
    """What the connected cluster has."""

    cpus: int
    gpus: int
    nodes: int
    """Nodes that have CPUs."""

    node_cpus: int
    """CPUs of the smallest of them."""

    private: bool
    """Started by this process, on this machine alone."""

    gpu_cpus: int = 1
    """CPUs for each GPU, on the node where these are fewest."""

    def device(self, wanted: str) -> str:
        """Where a language model works: ``cuda`` or ``cpu``.

        Args:
            wanted: ``model.device``.

        Raises:
            UserError: a GPU is wanted, and there is none.
        """
        if wanted == "cuda" and not self.gpus:
            raise UserError("model.device is cuda, but no GPU is there. Set it to auto or cpu, or run where a GPU is.")
        return "cuda" if self.gpus and wanted != "cpu" else "cpu"


@dataclass(frozen=True)
class Site:
    """Where a stage works, and whom it tells."""

    resources: Resources
    device: str
    """``cuda`` or ``cpu``."""

    progress: Progress


KEEPS_ITS_MEMORY = {
    "env_vars": {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**28),
    }
}
"""Runtime environment of processes that ask for the same hundreds of megabytes at every step, as a language model's
logits are. By default glibc has the kernel map and clear them anew each time: a sixth of a training on CPU. The price
is a heap with holes: a quarter more memory at the peak, with SmolLM2-135M."""


def in_job() -> bool:
    """Whether this process was started by ``ray job submit``."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def address_of(settings: RaySettings) -> str | None:
    """The cluster that a run joins; None where it starts its own."""
    return settings.address or ("auto" if in_job() or os.environ.get("RAY_ADDRESS") else None)


@contextmanager
def connected(settings: RaySettings, say: Callable[[str], None]) -> Iterator[Resources]:
    """Connect to Ray for the length of a run; a private cluster ends with it.

    Args:
        settings: the section.
        say: shows a line, where there is something to wait for.

    Raises:
        UserError: no cluster answers at ``ray.address``; the GPUs that are asked for do not come.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it would warn that its progress bars are off
    if ray.is_initialized():  # a notebook's cluster, or one that start_private left for several runs
        with _gpus_awaited(settings, _ours(), say):
            yield _resources(private=_ours())
        return
    address = address_of(settings)
    try:
        if address is None:
            start_private(settings.num_cpus)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, TimeoutError) as error:
        raise UserError(
            f"no Ray cluster answers at '{address}': {error}. Start one, or leave ray.address empty for a private one; "
            "a head started by cluster/local.sh takes jobs only (ray job submit)."
        ) from None
    try:
        with _gpus_awaited(settings, address is None, say):
            yield _resources(private=address is None)
    finally:
        ray.shutdown()
        _started.clear()


ON_DEMAND = "on_demand"
"""Resource of machines that their cloud does not take back; the files in ``cluster/`` give it to no others."""

POLL, SPEAK = 5.0, 60.0
"""Seconds between looks at a cluster that grows, and between lines that say so."""

_awaited: list[int] = []
"""GPUs that this process has asked for; a run inside another asks for none."""


@contextmanager
def _gpus_awaited(settings: RaySettings, private: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Ask for ``ray.gpus``, wait until they are there, and keep them for the length of a run.

    The request stands for that time, so that a cluster that can grow keeps idle machines, and replaces lost ones.
    """
    if settings.gpus is None or _awaited:
        yield
        return
    _awaited.append(settings.gpus)
    try:
        _await_gpus(settings.gpus, 0.0 if private else settings.gpus_within, say)
        yield
    finally:
        _awaited.clear()
        with suppress(Exception):  # the cluster may be gone, and the request with it
            request_resources(bundles=[])


def _await_gpus(wanted: int, within: float, say: Callable[[str], None]) -> None:
    started, spoken = time.monotonic(), -SPEAK
    while (there := _gpus()) < wanted:
        waited = time.monotonic() - started
        if waited >= within:
            raise UserError(
                f"ray.gpus is {wanted}, but the cluster has {there} after {within:,.0f} s. Ask for fewer, or wait "
                "longer (ray.gpus_within); `ray status` on a cluster's head says why no more come."
            )
        if waited - spoken >= SPEAK:
            say(f"waiting for {wanted} GPUs; the cluster has {there}")
            spoken = waited
        # Ray asks a cloud without spot machines for them for ever, and turns to no other type by itself.
        late = {ON_DEMAND: 1} if waited >= within / 2 else {}
        request_resources(bundles=[{"GPU": 1}] * there + [{"GPU": 1} | late] * (wanted - there))
        time.sleep(POLL)
    request_resources(bundles=[{"GPU": 1}] * wanted)


def _gpus() -> int:
    return sum(int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"])


START_ATTEMPTS = 3

_started: list[str] = []
"""Address of the cluster that this process has started."""


def _ours() -> bool:
    return bool(_started) and ray.get_runtime_context().gcs_address in _started


def start_private(num_cpus: int | None) -> None:
    """A cluster on this machine, for this process alone; ``ray.shutdown`` ends it."""
    # Ray's core warns on the terminal of things that Ray Data does on purpose; its log files keep all of it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Threads that wait by spinning would take the cores from the other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Listen on the loopback interface only; without this Ray takes the machine's address.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if not any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        # A secret of this cluster's own: Ray would write one to the home folder, which not every batch system has.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for left in reversed(range(START_ATTEMPTS)):
        try:
            _start(num_cpus)
            break
        except Exception as error:  # a bare one is what Ray raises then
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise UserError(
                    f"Ray did not start on this machine in {START_ATTEMPTS} attempts of half a minute: other programs "
                    "take all of its CPUs. Wait for them, or name a cluster elsewhere in ray.address."
                ) from error
    _started.append(ray.get_runtime_context().gcs_address)


TEMP_CHARS = 37
"""Bytes of the folder that Ray's session lies in, at the most: the name of a socket in it has 107."""


def temp_folder() -> str | None:
    """Where Ray puts its sessions and sockets; None leaves it to Ray, which goes by RAY_TMPDIR, TMPDIR or ``/tmp``.

    Raises:
        UserError: no folder serves.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    wanted = os.environ[name] if name else "/tmp"
    if _serves(wanted):
        return None
    for folder in ("/tmp", "/dev/shm"):
        if _serves(folder):
            return str(Path(folder, f"ray-{os.getuid()}"))
    raise UserError(
        f"{name or 'the folder'} '{wanted}' cannot hold Ray's sockets: it must be a folder that this user can write, "
        f"its name at most {TEMP_CHARS} bytes. Set RAY_TMPDIR to one."
    )


def _serves(folder: str) -> bool:
    return Path(folder).is_dir() and os.access(folder, os.W_OK) and len(os.fsencode(folder)) <= TEMP_CHARS


def _start(num_cpus: int | None) -> None:
    with _native_stderr_silenced():  # it would say that the level was set; errors are raised all the same
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=temp_folder(),
            # A laptop's other programs must not make Ray kill our workers, nor starve them: Ray's default is nice 15.
            # A process that has imported what a task needs waits for the next one: by default it ends after a second.
            _system_config={
                "memory_monitor_refresh_ms": 0,
                "worker_niceness": 0,
                "idle_worker_killing_time_threshold_ms": 60_000,
            },
        )


@contextmanager
def _native_stderr_silenced() -> Iterator[None]:
    """Send to nowhere what this process's C++ code writes to standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _resources(private: bool) -> Resources:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1] or [1]
    shares = [int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]
    return Resources(sum(cpus), _gpus(), len(cpus), min(cpus), private, max(1, min(shares, default=1)))
