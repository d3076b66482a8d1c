"""Killed in the middle and started again: the same subset. Processes are killed for real, with SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_run
from corpora import whole_library, write_parquet
from s3_server import S3Server

from gotd_ray import config, pipeline
from gotd_ray.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CHUNKS = {"max_chars": 100, "min_chars": 40}
"""Short candidates: many of them, so that embed has several parts, and quick ones."""

LONG_SOLVE = {"tolerance": 1e-12, "max_passes": 120, "epsilon": 0.05, "kept_memory": 0}
"""A solve that makes all its passes: it runs for some seconds, and ends after the same number of them."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """A folder with a corpus of several parts and the library's target."""
    folder = tmp_path_factory.mktemp("large")
    rows = whole_library()[::4]
    for i in range(4):
        write_parquet(folder / "corpus" / f"{i}.parquet", rows[i::4])
    (folder / "target").symlink_to(library / "target")
    return folder


def settings(large: Path, out: Path, index: Path, **solve: object) -> config.Run:
    run = make_run(
        out, large, chunks=CHUNKS, encoder={"max_tokens": 16, "actors": None}, solve=solve, select={"budget": 200}
    )
    return run.model_copy(update={"index": str(index)})


def ids(out: Path) -> list[str]:
    return pq.read_table(out / "select" / "subset.parquet")["doc_id"].to_pylist()


@pytest.fixture(scope="module")
def reference(large: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """An undisturbed run with the long solve; its index is in ``index``."""
    folder = tmp_path_factory.mktemp("undisturbed")
    pipeline.execute(settings(large, folder / "out", folder / "index", **LONG_SOLVE), Progress())
    return folder


def start(run: config.Run, folder: Path) -> subprocess.Popen[bytes]:
    """The command line on a private cluster, in a process group of its own."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run.model_dump()))
    return subprocess.Popen(
        [sys.executable, "-c", "from gotd_ray.cli import main; main()", "run", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("ab"),
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to the point in time"
        time.sleep(0.02)


def encoded(folder: Path) -> int:
    """Documents whose vectors are in the index."""
    parts = folder.glob("index/*/corpus/vectors/parts/*.parquet")
    return sum(pq.read_metadata(part).num_rows for part in parts)


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_and_kill(run: config.Run, folder: Path, place: Path, sign: str) -> None:
    """Kill a run, its cluster with it, as soon as there is such a file under ``place``."""
    process = start(run, folder)
    wait_for(lambda: list(place.glob(sign)) or process.poll() is not None)
    kill(process)
    assert list(place.glob(sign)), (folder / "log").read_text()


def test_driver_killed_in_embed_and_again_in_solve(large: Path, tmp_path: Path, reference: Path) -> None:
    """The second run finds the parts of the first, the third goes on from the second's checkpoint: the same bits."""
    run = settings(large, tmp_path / "out", tmp_path / "index", **LONG_SOLVE)
    start_and_kill(run, tmp_path, tmp_path, "index/*/corpus/vectors/parts/*.parquet")
    before = encoded(tmp_path)
    assert not (tmp_path / "out" / "embed" / "manifest.json").exists()
    start_and_kill(run, tmp_path, tmp_path, "out/solve/checkpoint-*")
    now = json.loads((tmp_path / "out" / "embed" / "manifest.json").read_text())["corpus"]["embedded_now"]
    assert before + now == encoded(tmp_path) == encoded(reference), "a text was encoded again"
    assert start(run, tmp_path).wait(timeout=1000) == 0, (tmp_path / "log").read_text()
    potentials = [folder / "out" / "solve" / "potentials.safetensors" for folder in (tmp_path, reference)]
    assert potentials[0].read_bytes() == potentials[1].read_bytes()
    assert ids(tmp_path / "out") == ids(reference / "out")


class Killer(threading.Thread):
    """Kills the first process of this user whose title begins so, once it works."""

    def __init__(self, title: str, after: float = 0.0):
        super().__init__(daemon=True)
        self.title, self.after, self.killed = title, after, 0

    def run(self) -> None:
        deadline = time.monotonic() + 600
        while not self.killed and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                try:
                    title = " ".join(process.cmdline())
                except psutil.Error:
                    continue
                if title.startswith(self.title):
                    time.sleep(self.after)
                    process.kill()
                    self.killed = process.pid
                    break
            time.sleep(0.01)


@pytest.fixture
def killer() -> Iterator[Callable[..., Killer]]:
    threads: list[Killer] = []

    def begin(title: str, after: float = 0.0) -> Killer:
        threads.append(Killer(title, after))
        threads[-1].start()
        return threads[-1]

    yield begin
    for thread in threads:
        thread.join(timeout=5)


def test_encoder_actor_killed(large: Path, tmp_path: Path, reference: Path, killer: Callable[..., Killer]) -> None:
    thread = killer("ray::MapWorker(MapBatches(EncodeParts))", after=2.0)
    pipeline.execute(settings(large, tmp_path / "out", tmp_path / "index", **LONG_SOLVE), Progress())
    assert thread.killed
    assert ids(tmp_path / "out") == ids(reference / "out")


def test_shard_actor_killed(large: Path, tmp_path: Path, reference: Path, killer: Callable[..., Killer]) -> None:
    thread = killer("ray::Work.columns", after=0.5)
    pipeline.execute(settings(large, tmp_path / "out", reference / "index", shards=3, **LONG_SOLVE), Progress())
    assert thread.killed
    assert ids(tmp_path / "out") == ids(reference / "out")


def test_driver_killed_in_training_and_again_in_evaluate_with_its_files_on_s3(
    library: Path, llama: Path, tmp_path: Path, s3: S3Server, ray_cluster: None
) -> None:
    """The second run goes on from the first's checkpoint, the third judges what is left: the same bits."""
    training = {"max_tokens": 64, "batch_size": 8, "steps": 30, "checkpoint_every": 2, "learning_rate": 1e-3}
    held_out = {name: str(library / "target") for name in ("again", "once", "twice")}  # as YAML has them

    def run(folder: object, **sections: Any) -> config.Run:
        return make_run(
            str(folder), library, select={"method": "random"}, model={"base": str(llama), "precision": "float32"},
            pretune=training, evaluate={"perplexity": held_out}, **sections,
        )  # fmt: skip

    pipeline.execute(run(tmp_path / "unbroken"), Progress())
    unbroken, out = tmp_path / "unbroken", s3.folder / "bucket" / "killed"
    on_s3 = run("s3://bucket/killed", storage={"endpoint": s3.endpoint})
    start_and_kill(on_s3, tmp_path, out, "pretune/checkpoint-*/latest.json")
    assert not (out / "pretune" / "manifest.json").exists()
    start_and_kill(on_s3, tmp_path, out, "evaluate/units/*")
    assert not (out / "evaluate" / "manifest.json").exists()
    judged = {unit: unit.stat().st_mtime_ns for unit in out.glob("evaluate/units/*")}
    assert start(on_s3, tmp_path).wait(timeout=1000) == 0, (tmp_path / "log").read_text()
    assert {unit: unit.stat().st_mtime_ns for unit in judged} == judged, "what was judged was judged again"
    for name in ("pretune/model/model.safetensors", "evaluate/examples.parquet"):
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name
