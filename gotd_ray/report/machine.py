"""What a report says of the machine and of the software that made it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch

PACKAGES = ("gotd_ray", "torch", "ray", "transformers", "sentence-transformers", "deepspeed", "numpy", "pyarrow")


class Cluster(Protocol):
    """What Ray offers, see :class:`gotd_ray.cluster.Resources`."""

    @property
    def cpus(self) -> int: ...
    @property
    def gpus(self) -> int: ...
    @property
    def nodes(self) -> int: ...


def versions() -> dict[str, str]:
    """Of this program, of what computes, and of Python."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"Python": platform.python_version()}


def hardware(cluster: Cluster | None) -> dict[str, Any]:
    """Of the machine that writes the report, and of the cluster if there is one now."""
    found: dict[str, Any] = {"system": f"{platform.system()} {platform.machine()}", "processor": _processor()}
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    if cluster:
        return found | {"CPUs": cluster.cpus, "GPUs": cluster.gpus, "nodes": cluster.nodes}
    return found | {"CPUs": os.cpu_count()}


def _processor() -> str:
    """Its name; Python's own answer is empty on Linux."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
