"""One step on one storage, in a process of its own, so that its bytes and its opens are its own.

``run`` starts it; with strace, the opens of files under the folder are counted between two marks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from index_formats import FORMATS, Format, Lance, bounds

MARK = "/nowhere/step"
"""A path that is opened, in vain, where the measured part of a step begins and ends."""

BEFORE_MERGE = 16
"""Additions between two compactions."""


@dataclass(frozen=True)
class Size:
    """How much there is to store."""

    rows: int
    batches: int
    width: int
    wanted: int
    """Ids to look up."""


@dataclass(frozen=True)
class Measured:
    """What a step took. Opens are None where they are not counted."""

    seconds: float
    cpu: float
    read: int
    written: int
    rows: int
    opens: int | None = None
    files: int | None = None
    error: str = ""


def batch(rows: int, width: int, seed: int) -> pa.Table:
    """Rows with random ids and random vectors of length 1, in half precision."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.astype(np.float16).ravel()), width)
    tokens = pa.array(rng.integers(1, 256, rows), pa.int32())
    return pa.table({"doc_id": ids_of(rows, seed), "tokens": tokens, "vector": vectors})


def ids_of(rows: int, seed: int) -> list[str]:
    """The ids of a batch."""
    data = np.random.default_rng([seed, 1]).bytes(16 * rows).hex()
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def some_ids(size: Size, number: int, seed: int) -> list[str]:
    """Ids of stored rows, as many of each batch."""
    rng, each = np.random.default_rng(seed), size.rows // size.batches
    share = -(-number // size.batches)
    found: list[str] = []
    for seed_of_batch in range(size.batches):
        ids = ids_of(each, seed_of_batch)
        found += [ids[at] for at in rng.choice(each, share, replace=False)]
    return found[:number]


def _io() -> tuple[int, int]:
    """Bytes this process has read and written so far, those from the page cache included."""
    found = dict(re.findall(r"(\w+): (\d+)", Path("/proc/self/io").read_text()))
    return int(found["rchar"]), int(found["wchar"])


def _mark() -> None:
    with suppress(FileNotFoundError):
        os.open(MARK, os.O_RDONLY)


def work(kind: str, format: Format, size: Size, seed: int) -> Measured:
    """Do a step; only the storage's own work is measured, not the making of rows."""
    for name in format.needs[:1]:
        __import__({"pylance": "lance"}.get(name, name))
    each = size.rows // size.batches
    tables: Iterator[pa.Table] = iter(())
    ids: list[str] = []
    if kind == "build":
        tables = (batch(each, size.width, number) for number in range(size.batches))
    elif kind == "add":
        tables = iter([batch(max(1, size.rows // 100), size.width, seed)])
    elif kind == "add_more":  # as often as a merge of runs leaves room for
        tables = (batch(max(1, size.rows // 100), size.width, seed + number) for number in range(BEFORE_MERGE - 2))
    elif kind == "write":  # one of several writers
        tables = (batch(10, size.width, seed * 1000 + number) for number in range(10))
    elif kind in ("look_up", "delete"):
        ids = some_ids(size, size.wanted if kind == "look_up" else size.rows // 100, seed)
    seconds, cpu, rows, error = 0.0, 0.0, 0, ""
    before = _io()
    _mark()
    for table in tables:
        started, worked = time.perf_counter(), time.process_time()
        try:
            format.append(table)
        except Exception as failed:
            if kind != "write":
                raise
            error = " ".join(f"{type(failed).__name__}: {failed}".split())[:300]
        else:
            rows += len(table)
        seconds += time.perf_counter() - started
        cpu += time.process_time() - worked
    started, worked = time.perf_counter(), time.process_time()
    if kind == "load":
        rows = len(format.read(*bounds(3, 8))[0])
    elif kind == "look_up":
        rows = len(set(format.look_up(ids)[0]))
    elif kind == "count":
        rows = format.count()
    elif kind == "delete":
        format.delete(ids)
    elif kind == "compact":
        format.compact()
    elif isinstance(format, Lance) and kind in ("index", "by_ranges"):
        getattr(format, kind)()
    seconds += time.perf_counter() - started
    cpu += time.process_time() - worked
    _mark()
    after = _io()
    return Measured(seconds, cpu, after[0] - before[0], after[1] - before[1], rows, error=error)


def command(kind: str, name: str, place: Format, size: Size, seed: int = 0) -> list[str]:
    numbers = [str(number) for number in (size.rows, size.batches, size.width, size.wanted, seed)]
    return [sys.executable, __file__, kind, name, place.folder, *numbers, *([place.endpoint] if place.endpoint else [])]


def result(printed: str) -> Measured:
    return Measured(**json.loads(printed.splitlines()[-1]))


def run(kind: str, name: str, place: Format, size: Size, seed: int = 0, counted: bool = True) -> Measured:
    """A step in a process of its own.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "4096", "-e", "trace=open,openat", "-o", str(log)]
        traced = counted and shutil.which("strace") is not None
        words = [*(strace if traced else []), *command(kind, name, place, size, seed)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{kind} of {name}: {done.stderr.strip()[-1000:]}")
        found = result(done.stdout)
        if not traced:
            return found
        opened = opens(log.read_text(errors="replace").splitlines(), place.folder)
        return Measured(**{**vars(found), "opens": len(opened), "files": len(set(opened))})


def opens(lines: Sequence[str], folder: str) -> list[str]:
    """Paths of files under the folder that were opened between the marks, each as often as it was."""
    marks = [number for number, line in enumerate(lines) if f'"{MARK}"' in line]
    waiting: dict[str, str] = {}
    found = []
    for line in lines[marks[0] : marks[-1]]:
        pid = line.split()[0]
        path = re.search(r'open(?:at)?\((?:AT_FDCWD, )?"([^"]+)", (\S+)', line)
        if path and path[1].startswith(folder) and "O_DIRECTORY" not in line:
            waiting[pid] = path[1]
        if "<unfinished" not in line and pid in waiting:
            done = waiting.pop(pid)
            if re.search(r"= \d+", line):
                found.append(done)
    return found


def on_disk(folder: str) -> tuple[int, int]:
    """Files and bytes under a folder."""
    sizes = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind")
    parser.add_argument("format", choices=list(FORMATS))
    parser.add_argument("folder")
    for name in ("rows", "batches", "width", "wanted", "seed"):
        parser.add_argument(name, type=int)
    parser.add_argument("endpoint", nargs="?")
    given = parser.parse_args(argv)
    place = FORMATS[given.format](given.folder, given.endpoint)
    size = Size(given.rows, given.batches, given.width, given.wanted)
    print(json.dumps(vars(work(given.kind, place, size, given.seed))), flush=True)
    os._exit(0)  # threads of deltalake's file handler that still run at the end abort Python


if __name__ == "__main__":
    main()
