"""Two refreshes never at once, and one that is killed at work is taken over; without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from refreshing import Corpus, Stages
from test_lock import HOLD

from gotd_ray import lock
from gotd_ray.errors import HeldError


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


@pytest.fixture
def corpus(tmp_path: Path, stages: Stages) -> Corpus:
    return Corpus(tmp_path)


REFRESH = """
import sys, time
from pathlib import Path
import pytest
from refreshing import Corpus, Stages
from gotd_ray import lock, refresh
from gotd_ray.config import Run
from gotd_ray.progress import Progress
lock._place = lambda: "another machine"
patch = pytest.MonkeyPatch()
stages = Stages(patch)
stages.at_the_report = lambda: (print("here", flush=True), sys.stdin.read())
refresh.refresh(Run.model_validate_json(sys.argv[1]), Progress())
"""


def test_a_holder_that_is_killed_in_the_middle_is_taken_over_after_its_expiry(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on another machine, so that nobody can see it is dead."""
    corpus.refresh()
    before = corpus.published()
    corpus.write("f0", 50)
    out = corpus.folder / "out"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", REFRESH, corpus.run().model_dump_json()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as other:  # fmt: skip
        assert other.stdout and "here\n" in iter(other.stdout.readline, "")
        other.kill()
    assert corpus.versions() == ["0001", "0002"] and corpus.published() == before
    with pytest.raises(HeldError) as caught:
        corpus.refresh()
    said = str(caught.value)
    assert said.startswith(f"{out} is in use: ") and f"(process {other.pid})" in said and " and good until 20" in said
    assert corpus.published() == before
    monkeypatch.setattr(lock, "EXPIRES", 0.0)
    found = corpus.refresh()
    assert found.facts["version"] == 2 and list(found.skipped) == ["embed", "solve", "select"], "it was gone on with"
    assert corpus.published() == (2, sorted(corpus.ids())[:5]) and before[1] != corpus.published()[1]
    assert not list(out.glob(f"{lock.PREFIX}*"))


def test_two_at_once_one_runs_and_the_other_says_who_and_until_when(corpus: Corpus) -> None:
    corpus.refresh()
    out = corpus.folder / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out), ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(HeldError) as caught:
            corpus.refresh()
        other.communicate("")
    said = str(caught.value)
    assert caught.value.exit_code == 75
    assert said.startswith(f"{out} is in use: ") and f"(process {other.pid})" in said and " and good until 20" in said
    assert corpus.refresh().words[0].startswith("nothing new"), "the holder has gone"


@pytest.mark.late("it is taken over in the middle")
def test_a_refresh_that_another_took_over_publishes_nothing(
    corpus: Corpus, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.refresh()
    corpus.write("f0", 50)
    out = str(corpus.folder / "out")
    monkeypatch.setattr(stages, "at_the_report", lambda: lock._lost.add(out))
    with pytest.raises(HeldError, match="was taken over by another run"):
        corpus.refresh()
    assert corpus.published()[0] == 1
