"""Two runs never work on one folder, the second says who holds it, and a run that is gone holds nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from gotd_ray import lock, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.config import Storage
from gotd_ray.errors import HeldError

PLAIN = Storage()
HOLD = """
import sys, time
from gotd_ray import lock
from gotd_ray.config import Storage
with lock.held([sys.argv[1]], Storage(endpoint=sys.argv[2] or None)):
    print("held", flush=True)
    sys.stdin.read()
"""
CONTEND = """
import sys, time
from pathlib import Path
from gotd_ray import lock
from gotd_ray.config import Storage
from gotd_ray.errors import HeldError
folder, marks, endpoint, begin = sys.argv[1], Path(sys.argv[2]), sys.argv[3] or None, float(sys.argv[4])
time.sleep(max(0, begin - time.time()))
try:
    with lock.held([folder], Storage(endpoint=endpoint)):
        mine = marks / str(time.time_ns())
        mine.touch()
        assert list(marks.iterdir()) == [mine], "two at once"
        time.sleep(0.2)
        assert list(marks.iterdir()) == [mine], "two at once"
        mine.unlink()
    print("held")
except HeldError:
    print("refused")
"""


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def claims(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{lock.PREFIX}*"))


def put(folder: Path, claim: lock.Claim, age: float = 0.0) -> None:
    """Args:
    age: seconds, as the storage knows it.
    """
    path = folder / f"{lock.PREFIX}other.json"
    path.write_text(json.dumps(asdict(claim)))
    written = path.stat().st_mtime
    os.utime(path, (written, written - age))


def far_away(**changes: Any) -> lock.Claim:
    """A claim of another machine."""
    theirs = {"machine": "far", "place": "far away", "pid": 1, "owner": "ann", "since": "2026-01-02T03:04:05+00:00"}
    return replace(lock._mine(), **theirs | changes)


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    other = process(HOLD, tmp_path, "")
    assert other.stdout and other.stdout.readline() == "held\n"
    with pytest.raises(HeldError) as caught, lock.held([str(tmp_path)], PLAIN):
        pass
    said = str(caught.value)
    assert said.startswith(f"{tmp_path} is in use: ") and f"(process {other.pid})" in said and "\n" not in said
    assert caught.value.exit_code == 75
    assert len(claims(tmp_path)) == 1, "the second left its claim"
    other.communicate("")
    with lock.held([str(tmp_path)], PLAIN):
        assert len(claims(tmp_path)) == 1
    assert not claims(tmp_path)


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    other = process(HOLD, tmp_path, "")
    assert other.stdout and other.stdout.readline() == "held\n"
    other.kill()
    other.wait()
    assert len(claims(tmp_path)) == 1
    with lock.held([str(tmp_path)], PLAIN):
        assert len(claims(tmp_path)) == 1


def test_a_number_that_another_process_has_now_is_not_the_run(tmp_path: Path) -> None:
    put(tmp_path, replace(lock._mine(), began="12345"))
    with lock.held([str(tmp_path)], PLAIN):
        pass


def test_a_claim_of_another_machine_counts_until_it_expires(tmp_path: Path) -> None:
    put(tmp_path, far_away())
    with pytest.raises(HeldError) as caught, lock.held([str(tmp_path)], PLAIN):
        pass
    assert "in use: ann on far (process 1) since 2026-01-02T03:04:05+00:00, renewed " in str(caught.value)
    put(tmp_path, far_away(), lock.EXPIRES + 1)
    with lock.held([str(tmp_path)], PLAIN):
        assert len(claims(tmp_path)) == 1, "what has expired is cleared away"


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_a_clock_that_is_an_hour_wrong_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float, whose: str
) -> None:
    """A run at work is left alone, and a dead one is taken over when it is time."""
    right = time.time()
    if whose == "ours":
        monkeypatch.setattr(lock.time, "time", lambda: right + wrong)
    theirs = far_away(renewed=right + (wrong if whose == "theirs" else 0.0))
    put(tmp_path, theirs, lock.EXPIRES / 2)
    with pytest.raises(HeldError) as caught, lock.held([str(tmp_path)], PLAIN):
        pass
    ago, until = re.findall(r"renewed (\d+) s ago and good until (\S+)\.", str(caught.value))[0]
    assert lock.EXPIRES / 2 <= int(ago) < lock.EXPIRES / 2 + 60
    left = datetime.fromisoformat(until).timestamp() - lock.time.time()
    assert 0 < left <= lock.EXPIRES / 2, "by the reader's own clock"
    put(tmp_path, theirs, lock.EXPIRES + 1)
    with lock.held([str(tmp_path)], PLAIN):
        assert len(claims(tmp_path)) == 1


def test_a_storage_that_tells_no_times_is_gone_by_the_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = storage.list_times
    monkeypatch.setattr(storage, "list_times", lambda *given: dict.fromkeys(times(*given)))
    put(tmp_path, far_away(), lock.EXPIRES + 1)
    with pytest.raises(HeldError), lock.held([str(tmp_path)], PLAIN):
        pass
    put(tmp_path, far_away(renewed=time.time() - lock.EXPIRES - 1))
    with lock.held([str(tmp_path)], PLAIN):
        pass


def test_who_slept_and_writes_his_claim_again_sees_who_has_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has cleared the claim away between the look whether it is there and the write."""
    slept = iter([0.0, lock.EXPIRES + 1])
    monkeypatch.setattr(lock, "RENEW", 0.02)
    monkeypatch.setattr(lock, "_awake", lambda: next(slept, lock.EXPIRES + 1))
    put(tmp_path, far_away(), lock.EXPIRES + 1)
    monkeypatch.setattr(lock.storage, "exists", lambda path, settings: put(tmp_path, far_away()) or True)
    with lock.held([str(tmp_path)], PLAIN):
        deadline = time.monotonic() + 600
        while not lock._lost:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        artifact = Artifact(str(tmp_path / "solve"), "key", PLAIN)
        for write in (artifact.begin, lambda: artifact.write("a", b""), lambda: artifact.commit({})):
            with pytest.raises(HeldError, match="was taken over by another run"):
                write()
    assert not (tmp_path / "solve").exists()


def test_a_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW", 0.05)
    with lock.held([str(tmp_path)], PLAIN):
        (path,) = claims(tmp_path)
        first = json.loads(path.read_text())["renewed"]
        deadline = time.monotonic() + 600
        while json.loads(path.read_text())["renewed"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_run_whose_claim_was_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW", 0.02)
    with lock.held([str(tmp_path)], PLAIN):
        lock.check()
        claims(tmp_path)[0].unlink()
        deadline = time.monotonic() + 600
        while not lock._lost:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(HeldError, match="was taken over by another run"):
            lock.check()
    lock.check()


def test_one_process_may_hold_a_folder_twice(tmp_path: Path) -> None:
    with lock.held([str(tmp_path), str(tmp_path / "b")], PLAIN):
        with lock.held([str(tmp_path)], PLAIN):
            pass
        assert claims(tmp_path), "the inner one let go of what the outer holds"
    assert not claims(tmp_path)


def test_what_is_no_claim_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"{lock.PREFIX}odd.json").write_text("{cut")
    with lock.held([str(tmp_path)], PLAIN):
        pass
    assert [path.name for path in claims(tmp_path)] == [f"{lock.PREFIX}odd.json"]


def contend(folder: object, marks: Path, endpoint: str) -> list[str]:
    marks.mkdir()
    begin = time.time() + 3
    others = [process(CONTEND, folder, marks, endpoint, begin) for _ in range(4)]
    found = []
    for other in others:
        out, problem = other.communicate(timeout=1000)
        assert other.returncode == 0, problem
        found.append(out.strip())
    return found


def test_of_contenders_at_one_moment_never_two_go_on(tmp_path: Path) -> None:
    assert set(contend(tmp_path / "out", tmp_path / "marks", "")) <= {"held", "refused"}


def test_on_s3_as_well(tmp_path: Path, s3: S3Server) -> None:
    """A server that ignores conditional writes."""
    assert set(contend("s3://bucket/locked", tmp_path / "marks", s3.endpoint)) <= {"held", "refused"}
    assert not claims(s3.folder / "bucket" / "locked")


def test_a_user_without_a_name_may_hold_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    assert lock._mine().owner == f"user {os.getuid()}"
