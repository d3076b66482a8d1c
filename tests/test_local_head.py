"""Jobs on a real head with two workers that wants a token: what a cluster's user does, on this machine."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_run

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:8265"
SCRIPT = ROOT / "cluster" / "local.sh"

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """The environment in which `ray job submit` finds the head, and the token."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8265)) == 0:
            pytest.skip("another Ray's dashboard is on port 8265")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_TOKEN")}
    environment = given | {"PYTHON": sys.executable, "PATH": path, "RAY_AUTH_MODE": "token"}
    start = ["bash", str(SCRIPT), "start", "2"]
    said = subprocess.run(start, env=environment, check=True, timeout=1000, stdout=subprocess.PIPE, text=True).stdout
    token = re.search(r"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=(\S+)", said)
    assert token and Path(token[1]).stat().st_mode & 0o077 == 0
    yield environment | {"RAY_AUTH_TOKEN_PATH": token[1]}
    subprocess.run(["bash", str(SCRIPT), "stop"], env=environment, check=True, timeout=600)
    assert not Path(token[1]).exists()


def ray_job(environment: dict[str, str], verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ray", "job", verb, "--address", ADDRESS, *arguments]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1000, check=False
    )  # fmt: skip


def submit(environment: dict[str, str], *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """What it printed while it followed the job, and the last line of the job's log."""
    name = f"gotd-{uuid.uuid4().hex}"
    job = ["--submission-id", name, "--working-dir", ".", "--", "python", "jobs/run.py", *arguments]
    done = ray_job(environment, "submit", *job)
    log = ray_job(environment, "logs", name)
    assert log.returncode == 0, log.stdout + log.stderr
    last = log.stdout.splitlines()[-1]
    assert last in done.stdout, "the log was not followed to its end"
    return done, json.loads(last)


def test_a_job_gives_the_subset_and_the_same_job_again_is_skipped(
    head: dict[str, str], library: Path, tmp_path: Path
) -> None:
    run, out = make_run(tmp_path / "out", library, solve={"shards": 2}), tmp_path / "out"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.model_dump()))
    command = (str(tmp_path / "run.yaml"), "--set", "select.budget=25")
    done, last = submit(head, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (last["state"], last["code"], last["error"]) == ("done", 0, None)
    assert last["subset"] == f"{out}/select/subset.parquet" and last["report"] == f"{out}/report/report.html"
    table = pq.read_table(last["subset"])
    facts = json.loads((out / "select" / "manifest.json").read_text())
    assert last["counts"] == {
        "candidates": facts["candidates"],
        "documents": table.num_rows,
        "tokens": sum(table["tokens"].to_pylist()),
    }
    assert table.num_rows == 25
    assert (last["ran"], last["skipped"]) == (["embed", "solve", "select", "report"], [])
    written = {path: path.read_bytes() for path in out.rglob("manifest.json")}
    assert len(written) == 4
    done, again = submit(head, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "select: done before, skipped" in done.stdout
    assert (again["ran"], again["skipped"]) == ([], last["ran"])
    assert {name: again[name] for name in again if name not in ("seconds", "ran", "skipped")} == {
        name: last[name] for name in last if name not in ("seconds", "ran", "skipped")
    }
    assert {path: path.read_bytes() for path in out.rglob("manifest.json")} == written


def test_a_job_with_a_broken_config_fails_with_2_and_says_why(head: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("out: x\ncorpus: {path: y}\ntarget: {paths: z}\n")
    done, last = submit(head, str(tmp_path / "run.yaml"))
    assert done.returncode == 1, "Ray gives no other"
    assert "failed with exit code 2" in done.stdout + done.stderr
    assert (last["state"], last["code"], last["subset"]) == ("failed", 2, None)
    assert "unknown key 'corpus.path'. Did you mean 'paths'?" in last["error"]
    assert f"gotd: {last['error']}\n" in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_without_the_token_nothing_is_taken(head: dict[str, str], tmp_path: Path, token: str | None) -> None:
    known = ray_job(head, "list")
    assert known.returncode == 0
    without = {name: value for name, value in head.items() if name != "RAY_AUTH_TOKEN_PATH"}
    without |= {"RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    mark = tmp_path / "ran"
    done = ray_job(without, "submit", "--", "touch", str(mark))
    assert done.returncode != 0
    assert ("Forbidden" if token else "Unauthorized") in done.stdout + done.stderr
    assert ray_job(head, "list").stdout.count("submission_id") == known.stdout.count("submission_id")
    assert not mark.exists()
