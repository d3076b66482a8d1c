"""Runs over a faulty S3 in which something is killed again and again: do they end in the ids of an undisturbed one?

Run: python benchmarks/bench_chaos.py FOLDER [--documents 3000] [--share 0.05] [--every 20] [--cases faults kills ...]

Before rclone's S3 server stands a proxy that spoils a share of the calls (benchmarks/faulty.py). The documents are made
up, encoder: static. Every few seconds one thing is killed with SIGKILL, in turn: an encoder, a shard, another worker of
Ray, the driver with its cluster, which is then started again by the same command. Besides: a disk that is full (tmpfs,
which needs root), and keys that expire in the middle. Each case is one line of a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml
from faulty import Proxy, faulty
from machine import facts
from measure import heading, row

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from s3_server import S3Server, s3_server  # type: ignore[import-not-found]

TARGETS = {"encoder": "MapWorker(MapBatches(Encode", "shard": "ray::Work", "worker": "ray::"}
"""By what dies, what the title of its process holds; the first that is found of those in turn."""

GIVE_UP = 20
"""Starts of one run."""


def write_texts(folder: Path, files: int, each: int, seed: int) -> None:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = (json.dumps({"text": " ".join(rng.choices(words, k=40)) + "."}) for _ in range(each))
        (folder / f"{number:03d}.jsonl").write_text("\n".join(lines) + "\n")


def run_of(base: str, given: argparse.Namespace, out: str, endpoint: str | None, index: str = "") -> dict[str, Any]:
    return {
        "out": out,
        "index": index or f"{out}-index",
        "corpus": {"paths": f"{base}/corpus"},
        "target": {"paths": f"{base}/target"},
        "encoder": {"kind": "static", "actors": 2} | ({"model": given.encoder} if given.encoder else {}),
        "solve": {"tolerance": 1e-12, "max_passes": 60, "epsilon": 0.05, "kept_memory": 0, "shards": 2},
        "select": {"budget": 200},
        "ray": {"num_cpus": 2},
        "storage": {"endpoint": endpoint} if endpoint else {},
    }


class Command:
    """`gotd run` in a process group of its own, started again as often as it takes."""

    def __init__(self, folder: Path, run: dict[str, Any], environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self._file, self._environment = folder / "log", folder / "run.yaml", environment
        self._file.write_text(yaml.safe_dump(run))
        self.starts, self.said = 0, ""
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from gotd_ray.cli import main; main()", "run", str(self._file)],
            stdout=subprocess.DEVNULL, stderr=self.log.open("wb"), start_new_session=True, env=self._environment,
        )  # fmt: skip
        return self.process

    def kill(self) -> None:
        """Driver and cluster."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self) -> str:
        """The line of a stopped run."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("gotd:")]
        return lines[-1] if lines else f"exit {self.process.returncode} without a word"

    def stage(self) -> str:
        """That it is in, by what it has said last."""
        names = ("embed", "solve", "select", "report")
        said = self.log.read_text(errors="replace").splitlines()
        return next((name for line in reversed(said) for name in names if line.startswith(name)), "start")


def kill_one(command: Command, what: str) -> bool:
    if what == "driver":
        command.kill()
        return True
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(command.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if TARGETS[what] in title and "IDLE" not in title and "ray::" in title:
                    process.kill()
                    return True
    return False


def with_kills(command: Command, every: float, kinds: Sequence[str]) -> Counter[str]:
    """Until the run is done; what was killed, and in which stage."""
    killed: Counter[str] = Counter()
    turn, next_kill = 0, time.monotonic() + every
    while command.starts <= GIVE_UP:
        time.sleep(0.05)
        if command.process.poll() is not None:
            if command.process.returncode == 0:
                return killed
            if command.process.returncode > 0:  # it ended by itself
                command.said = command.last_words()
            command.start()
        if kinds and time.monotonic() >= next_kill:
            order = [*kinds[turn % len(kinds) :], *kinds[: turn % len(kinds)]]
            stage = command.stage()
            what = next((what for what in order if kill_one(command, what)), None)
            if what:
                killed[f"{what} in {stage}"] += 1
                turn = list(kinds).index(what) + 1
                next_kill = time.monotonic() + every
    return killed


def ids_of(out: Path) -> list[str]:
    return pq.read_table(out / "select" / "subset.parquet")["doc_id"].to_pylist()


def tell(what: str, command: Command, killed: Counter[str], spoiled: Counter[str], same: bool, seconds: float) -> None:
    """A line of the table."""
    row(
        what,
        ", ".join(f"{count} {name}" for name, count in sorted(spoiled.items()) if name != "fine") or "none",
        ", ".join(f"{count} {name}" for name, count in sorted(killed.items())) or "none",
        command.starts, command.said or "nothing", "yes" if same else "NO", f"{seconds:.0f}",
    )  # fmt: skip


class Place:
    """An S3 server with the corpus in it, and the ids of an undisturbed run."""

    def __init__(self, folder: Path, server: S3Server, given: argparse.Namespace) -> None:
        self.folder, self.server, self.given = folder, server, given
        self.bucket = server.folder / "bucket"
        self.environment = os.environ | server.environment | {"RAY_AUTH_MODE": "disabled"}
        write_texts(self.bucket / "corpus", given.files, given.documents // given.files, 1)
        write_texts(self.bucket / "target", 1, 300, 2)

    def case(
        self, name: str, work: Callable[[Command], Counter[str]], proxy: Proxy | None = None, out: str = ""
    ) -> None:
        begun = time.monotonic()
        before = Counter(proxy.done) if proxy else Counter()
        out = out or f"s3://bucket/{name}"
        run = run_of("s3://bucket", self.given, out, proxy.endpoint if proxy else self.server.endpoint)
        command = Command(self.folder / name, run, self.environment)
        try:
            killed = work(command)
        finally:
            command.kill()
        path = Path(out) if out.startswith("/") else self.bucket / name
        done = command.process.returncode == 0
        found = ids_of(path) if done else []
        if name == "undisturbed":
            self.expected = found
            assert found, command.last_words()
        spoiled = proxy.done - before if proxy else Counter()
        tell(name, command, killed, spoiled, found == self.expected, time.monotonic() - begun)

    def full_disk(self) -> None:
        """`out` and the index on a small tmpfs, which is made larger when the run has stopped."""
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.given.disk}k", "tmpfs", str(disk)], check=True)

        def work(command: Command) -> Counter[str]:
            command.process.wait()
            command.said = command.last_words()
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            command.start()
            command.process.wait()
            return Counter()

        try:
            self.case("full-disk", work, out=f"{disk}/out")
        finally:
            subprocess.run(["umount", str(disk)], check=False)

    def expired_keys(self) -> None:
        """The server answers 403 to all from the middle of embed on, and is itself again for the second start."""
        with faulty(self.server.endpoint, 0.0, ("403",)) as proxy:

            def work(command: Command) -> Counter[str]:
                deadline = time.monotonic() + 600
                while not list(self.bucket.glob("expired-index/*/corpus/*/parts/*")) and time.monotonic() < deadline:
                    time.sleep(0.05)
                proxy.share = 1.0
                command.process.wait()
                command.said = command.last_words()
                proxy.share = 0.0
                command.start()
                command.process.wait()
                return Counter()

            self.case("expired", work, proxy)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.05, help="of calls that are spoiled")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between kills")
    parser.add_argument("--disk", type=int, default=1500, help="KB of the disk that gets full")
    parser.add_argument("--encoder", help="folder of the transformer that the static encoder is made from")
    cases = ["faults", "kills", "disk", "keys"]
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    given = parser.parse_args(argv)
    folder = given.folder.resolve()
    shutil.rmtree(folder / "s3", ignore_errors=True)
    (folder / "s3" / "bucket").mkdir(parents=True)
    print(facts(), "\n")
    heading("case", "calls spoiled", "killed", "starts", "said when it stopped", "the same ids", "seconds")
    with s3_server(folder / "s3") as server:
        place = Place(folder, server, given)
        place.case("undisturbed", lambda command: with_kills(command, 0, ()))
        with faulty(server.endpoint, given.share) as proxy:
            if "faults" in given.cases:
                place.case("faults", lambda command: with_kills(command, 0, ()), proxy)
            if "kills" in given.cases:
                kinds = [*TARGETS, "driver"]
                place.case("kills", lambda command: with_kills(command, given.every, kinds), proxy)
        if "disk" in given.cases:
            place.full_disk()
        if "keys" in given.cases:
            place.expired_keys()


if __name__ == "__main__":
    main()
