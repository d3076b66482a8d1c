"""What a table of measurements must say about where it comes from."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch


def facts(packages: tuple[str, ...] = ("torch", "numpy")) -> str:
    """Date, commit, CPU, memory, GPU, versions and command, as one line of Markdown."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    command = shlex.join(["python", *sys.argv])
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {_commit()}; {os.cpu_count()} cores of {model}, "
        f"{memory:.0f} GiB{card}; Python {platform.python_version()}, {versions}; `{command}`"
    )


def _commit() -> str:
    here = Path(__file__).parent

    def git(*words: str) -> str:
        try:
            return subprocess.run(
                ["git", "-C", here, *words], capture_output=True, text=True, check=False
            ).stdout.strip()
        except FileNotFoundError:  # a bare machine has no git
            return ""

    return (git("rev-parse", "--short", "HEAD") or "no commit") + (
        " with changes" if git("status", "--short", "-uno") else ""
    )
