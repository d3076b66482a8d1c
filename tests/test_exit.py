"""How the command line and the jobs end: exit codes, one line without a trace, and JSON where it is wanted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import make_run
from test_lock import HOLD

ROOT = Path(__file__).parent.parent
TRACE = re.compile(r"Traceback|\x1b\[|  File \"")


def gotd(*arguments: object, code: str = "", **surroundings: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; ``code`` runs before it."""
    program = f"{code}\nfrom gotd_ray.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, errors="replace", env=os.environ | surroundings, timeout=1000,
    )  # fmt: skip
    assert not TRACE.search(found.stdout + found.stderr), found.stderr
    return found


def told(found: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last line of its output; it says what the exit code and standard error say."""
    last: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    assert last["code"] == found.returncode
    assert set(last) >= {"state", "code", "error", "subset", "report", "seconds"}
    return last


@pytest.fixture
def config_file(library: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(make_run(tmp_path / "out", library).model_dump(exclude_unset=True)))
    return path


def test_words_that_it_does_not_know(config_file: Path) -> None:
    for arguments in (["rnu", config_file], ["run"], ["run", config_file, "--bogus"]):
        assert gotd(*arguments).returncode == 2, arguments


def test_what_the_user_can_fix(tmp_path: Path) -> None:
    found = gotd("run", tmp_path / "none.yaml")
    assert found.returncode == 2
    assert found.stderr == (
        f"gotd: cannot read the config '{tmp_path}/none.yaml': No such file or directory. "
        "Give the path of a YAML file.\n"
    )


@pytest.mark.parametrize("command", ["run", "compare", "refresh"])
def test_a_job_says_why_it_failed_in_its_last_line(command: str, config_file: Path, tmp_path: Path) -> None:
    job = [sys.executable, ROOT / "jobs" / f"{command}.py"]
    for arguments, said in (
        ([tmp_path / "none.yaml"], f"cannot read the config '{tmp_path}/none.yaml': No such file or directory. "),
        ([config_file, "--set", "select.budgte=3"], "unknown key 'select.budgte'. Did you mean 'budget'?"),
        ([config_file, "--bogus"], "the words on the command line are not understood: see above"),
    ):
        found = subprocess.run([*job, *arguments], capture_output=True, text=True, timeout=1000)
        last = told(found)
        assert (last["state"], last["code"], last["subset"]) == ("failed", 2, None)
        assert said in last["error"] and "\n" not in last["error"]
        assert "--bogus" in arguments or found.stderr == f"gotd: {last['error']}\n"


def test_a_folder_that_another_run_holds(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    holder = [sys.executable, "-c", HOLD, str(tmp_path / "out"), ""]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        found = gotd("run", config_file, "--json")
        other.communicate("")
    assert found.returncode == 75
    assert found.stderr.startswith(f"gotd: {tmp_path}/out is in use: ") and found.stderr.count("\n") == 1
    assert f"(process {other.pid})" in found.stderr
    assert told(found)["state"] == "held" and f"gotd: {told(found)['error']}\n" == found.stderr


def test_a_fault_of_ours_is_one_line_and_its_trace_a_file(config_file: Path, tmp_path: Path) -> None:
    code = (
        "from gotd_ray import pipeline\n"
        "def broken(*_): raise KeyError('\\x1b[31mthe key\\x1b[0m\\nof nobody')\n"
        "pipeline.plan = broken"
    )
    found = gotd("plan", config_file, code=code, TMPDIR=str(tmp_path))
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1 and "KeyError" in found.stderr
    (log,) = tmp_path.glob("gotd-*.log")
    assert str(log) in found.stderr and "Traceback" in log.read_text()
    last = told(gotd("run", config_file, "--json", code=code, TMPDIR=str(tmp_path)))
    assert (last["state"], last["code"]) == ("failed", 1) and "KeyError" in last["error"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_or_terminated(config_file: Path, tmp_path: Path, number: int, code: int) -> None:
    # What a shell starts in the background, as `make test` does these tests, ignores an interrupt.
    program = (
        "import signal, time\nfrom gotd_ray import pipeline\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def wait(*_):\n    print('waiting', flush=True)\n    time.sleep(200)\n"
        "pipeline.plan = wait\nfrom gotd_ray.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "run", "--json", str(config_file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        process.send_signal(number)
        out, said = process.communicate(timeout=1000)
    assert process.returncode == code
    last = json.loads(out)
    assert (last["state"], last["code"]) == ("failed", code)
    assert last["error"].endswith("what is done is kept, and the same command goes on from there")
    assert not TRACE.search(said)


def test_a_reader_that_goes_away_is_no_fault(config_file: Path) -> None:
    program = "from gotd_ray.cli import main; main()"
    command = f"{sys.executable} -c '{program}' plan {config_file} | true; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=1000)
    assert found.stdout.strip() == "0", found.stderr
    assert not found.stderr


def test_a_terminal_that_knows_no_unicode(config_file: Path, library: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config_file.read_text()) | {"corpus": {"paths": f"{tmp_path}/größe 大小"}}
    config_file.write_text(yaml.safe_dump(settings))
    found = gotd("plan", config_file, PYTHONIOENCODING="ascii", LC_ALL="C", TERM="dumb", COLUMNS="0")
    assert found.returncode == 2
    assert "does not exist" in found.stderr


@pytest.mark.ray
def test_a_run_where_there_is_no_home_and_tmpdir_is_long(config_file: Path, tmp_path: Path) -> None:
    """As batch systems give them. The cluster is the run's own."""
    long = tmp_path / "a_folder_with_a_name_as_long_as_batch_systems_give_them" / "job.1234567890"
    long.mkdir(parents=True)
    surroundings = {"HOME": "/dev/null/nowhere", "TMPDIR": str(long), "TERM": "dumb", "COLUMNS": "0"}
    overrides = ["--set", "select.method=random", "--set", "ray.num_cpus=2"]
    code = "import os\nos.environ.pop('RAY_AUTH_MODE', None)"
    found = gotd("run", config_file, *overrides, code=code, **surroundings)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out" / "select" / "subset.parquet").exists()
