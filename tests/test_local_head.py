"""A job on a real head: what a cluster's user does, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_run

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:8265"

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """The environment in which `ray job submit` finds the head."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8265)) == 0:
            pytest.skip("another Ray's dashboard is on port 8265")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHON": sys.executable, "PATH": path}
    script = str(ROOT / "cluster" / "local.sh")
    subprocess.run(["bash", script, "start"], env=environment, check=True, timeout=120)
    yield environment
    subprocess.run(["bash", script, "stop"], env=environment, check=True, timeout=60)


def submit(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ray", "job", "submit", "--address", ADDRESS, "--working-dir", ".", "--", "python", "jobs/run.py"]
    return subprocess.run(
        [*command, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


def test_a_job_gives_the_subset(head: dict[str, str], library: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", library)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.model_dump()))
    done = submit(head, str(tmp_path / "run.yaml"), "--set", "select.budget=25")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tmp_path}/out/select/subset.parquet" in done.stdout
    assert len(pq.read_table(tmp_path / "out" / "select" / "subset.parquet")) == 25


def test_a_job_with_a_broken_config_fails_and_says_why(head: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("out: x\ncorpus: {path: y}\ntarget: {paths: z}\n")
    done = submit(head, str(tmp_path / "run.yaml"))
    assert done.returncode != 0
    assert "unknown key 'corpus.path'. Did you mean 'paths'?" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout
