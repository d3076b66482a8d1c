"""Which storage the index of vectors should use: Lance, Delta, sorted Parquet runs, or the parts of version 3.

Run: python benchmarks/bench_index.py [--rows 1000000] [--folder a-local-disk] [--formats lance delta runs parts]

Rows are random: an id of 32 hex digits, tokens, a half-float vector of length 1. They come in batches. What is not
installed is skipped (benchmarks/peers.txt names it). Every step is a process of its own, on a warm page cache. Opens
are counted by strace (open and openat of files under the storage's folder, in any thread); bytes are those of the
process's reads and writes (rchar and wchar of /proc/self/io). Seconds are of the clock, in brackets those of the CPU in
all threads. A load is one of eight equal ranges of ids, ids and vectors as numpy.

With rclone installed, several writers append at once on its S3 server, which ignores If-None-Match: what a store
without conditional writes does to each. Then the same through a proxy that answers 501 to such a put, as others do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from index_encodings import encodings
from index_formats import FORMATS, Format, Runs
from index_readers import tries
from index_steps import BEFORE_MERGE, Measured, Size, batch, command, on_disk, result, run
from machine import facts
from measure import heading, row

STATES: dict[str, list[tuple[str, str]]] = {
    "lance": [
        ("build", "appended"),
        ("index", "the same, B-tree on doc_id"),
        ("compact", "compacted, B-tree"),
        ("by_ranges", "rewritten by ranges of ids, B-tree"),
    ],
    "delta": [("build", "appended"), ("compact", "compacted")],
    "runs": [("build", "appended (16 runs merged at a time)"), ("compact", "one run")],
    "runs-bytes": [("build", "appended (16 runs merged at a time)"), ("compact", "one run")],
    "parts": [("build", "appended")],
}
"""Of each storage the steps that are measured after, and the state they leave."""


def mega(number: float) -> str:
    return f"{number / 1e6:,.1f}"


def count(number: int | None) -> str:
    return "not counted" if number is None else f"{number:,}"


def took(found: Measured) -> list[str]:
    return [count(found.opens), mega(found.read), spent(found.seconds, found.cpu)]


def spent(seconds: float, cpu: float) -> str:
    return f"{seconds:.2f} ({cpu:.2f})"


def timed(kind: str, name: str, place: Format, size: Size, repeats: int) -> Measured:
    """Counts of one run under strace, median seconds of others without it."""
    counted = run(kind, name, place, size)
    others = [run(kind, name, place, size, counted=False) for _ in range(repeats)]
    medians = {what: statistics.median(getattr(one, what) for one in others) for what in ("seconds", "cpu")}
    return Measured(**{**vars(counted), **medians})


def states(places: dict[str, Format], size: Size, repeats: int) -> None:
    """Each storage as it is built, and compacted: what a load and a look-up take."""
    loads = ("range: opens", "range: MB read", "range, s (CPU)")
    heading(
        "storage", "made in, s (CPU)", "MB written", "files", "MB", *loads, "ids: opens", "ids: MB read", "ids, s (CPU)"
    )
    for name, place in places.items():
        for kind, words in STATES[name]:
            made = run(kind, name, place, size)
            files, held = on_disk(place.folder)
            loaded = timed("load", name, place, size, repeats)
            found = timed("look_up", name, place, size, repeats)
            expected = min(size.wanted, size.rows)
            assert found.rows == expected, f"{name}: {found.rows} of {expected} ids found"
            assert abs(loaded.rows - size.rows / 8) < size.rows / 32, f"{name}: {loaded.rows} rows in an eighth"
            cells = [spent(made.seconds, made.cpu), mega(made.written), f"{files:,}", mega(held)]
            row(f"{name}, {words}", *cells, *took(loaded), *took(found))


def changes(places: dict[str, Format], size: Size) -> None:
    """1% of new rows, the compaction after sixteen such, 1% deleted."""
    print()
    columns = (
        "1% added: opens",
        "added: MB written",
        "added, s (CPU)",
        "compaction: MB written",
        "compaction, s (CPU)",
    )
    heading(
        "storage", *columns, "per 1%, both: MB written", "1% deleted: opens", "deleted: MB written", "deleted, s (CPU)"
    )
    for name, place in places.items():
        first = run("add", name, place, size, 10_000)
        rest = run("add_more", name, place, size, 10_001).written
        last = run("add", name, place, size, 20_000)
        if name.startswith("runs"):  # the sixteenth addition merges by itself
            written, taken = last.written - first.written, spent(last.seconds - first.seconds, last.cpu - first.cpu)
        elif name == "parts":
            written, taken = 0, ""
        else:
            compacted = run("compact", name, place, size)
            written, taken = compacted.written, spent(compacted.seconds, compacted.cpu)
        merged = mega(written) if written else "never"
        both = (first.written + rest) / (BEFORE_MERGE - 1) + written / BEFORE_MERGE
        gone = ["not possible", "", ""]
        if name != "parts":
            deleted = run("delete", name, place, size)
            gone = [count(deleted.opens), mega(deleted.written), spent(deleted.seconds, deleted.cpu)]
        added = [count(first.opens), mega(first.written), spent(first.seconds, first.cpu)]
        row(name, *added, merged, taken, mega(both), *gone)


def writers(name: str, place: Format, number: int) -> str:
    """What several processes lose that append ten batches of ten rows each, at once."""
    size = Size(10, 1, 8, 1)
    first = run("write", name, place, size, seed=99, counted=False)
    if first.error:
        return f"cannot be written: {short(first.error)}"
    words = [command("write", name, place, size, seed) for seed in range(number)]
    started = [subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for one in words]
    ended = [process.communicate() for process in started]
    failed = [said.strip()[-160:] for process, (_, said) in zip(started, ended, strict=True) if process.returncode]
    done = [result(printed) for printed, _ in ended if printed.strip()]
    errors = failed + [found.error for found in done if found.error]
    kept = run("count", name, place, size, counted=False).rows
    lost = first.rows + sum(found.rows for found in done) - kept
    total = (number + 1) * 100
    return f"{lost} of {total} rows lost in silence, {total - kept - lost} refused" + (
        f" ({short(errors[0])})" if errors else ""
    )


def short(error: str) -> str:
    """A message without colours and addresses, that fits in a cell."""
    return re.sub(r"\x1b\[\d+m|↳|\|", "", re.sub(r"http\S+", "...", error))[:160]


@contextmanager
def refusing(endpoint: str) -> Iterator[str]:
    """A proxy to an S3 server that answers 501 to every conditional put."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, data = 501, [], b"<Error><Code>NotImplemented</Code></Error>"
            if self.command != "PUT" or "If-None-Match" not in self.headers:
                server = HTTPConnection(urlsplit(endpoint).netloc)
                server.request(self.command, self.path, body, dict(self.headers.items()))
                answer = server.getresponse()
                status, headers, data = answer.status, answer.getheaders(), answer.read()
                server.close()
            self.send_response_only(status)
            for key, value in headers:
                if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(key, value)
            length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(data)

    for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Proxy, f"do_{method}", Proxy.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def at_once(names: Sequence[str], folder: Path, number: int) -> None:
    """Writers at once on the local disk and on two kinds of S3 without conditional writes."""
    print()
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    served = importlib.import_module("s3_server")
    kinds = [f"{number} writers, local disk", f"{number} writers, S3 that ignores conditions", "S3 that refuses them"]
    heading("storage", *kinds)
    for name in names:
        cells = [writers(name, FORMATS[name](str(folder / f"{name}-writers")), number)]
        if served.find_rclone() is None:
            row(name, *cells, *["skipped: rclone is not installed"] * 2)
            continue
        bucket = folder / "s3" / "bucket"
        bucket.mkdir(parents=True, exist_ok=True)
        with served.s3_server(bucket.parent) as server:
            os.environ.update(server.environment)
            cells.append(writers(name, FORMATS[name](f"s3://bucket/{name}", server.endpoint), number))
            with refusing(server.endpoint) as endpoint:
                cells.append(writers(name, FORMATS[name](f"s3://bucket/{name}-refused", endpoint), number))
        row(name, *cells)


def installed(name: str) -> list[str]:
    """What a storage's libraries take once installed."""
    found = []
    for package in FORMATS[name].needs:
        files = distribution(package).files or []
        held = sum(Path(str(file.locate())).stat().st_size for file in files if Path(str(file.locate())).exists())
        found.append(f"{package} {version(package)}: {mega(held)} MB")
    return found


def usable(names: Sequence[str]) -> list[str]:
    """Those whose libraries are installed."""
    found = []
    for name in names:
        try:
            needed = installed(name)
        except PackageNotFoundError as error:
            print(f"skipped: {name} needs {error.name}, which is not installed (benchmarks/peers.txt)")
            continue
        print(f"- {name}: {', '.join(needed) or 'nothing to install'}")
        found.append(name)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder at first")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--ids", type=int, default=10_000, help="ids to look up")
    parser.add_argument("--writers", type=int, default=4, help="processes that append at once; 0 leaves that out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    given = parser.parse_args(argv)
    print(f"- {facts(('numpy', 'pyarrow'))}; load of the machine {os.getloadavg()[0]:.1f}")
    names = usable(given.formats)
    if shutil.which("strace") is None:
        print("strace is not installed: opens are not counted")
    print()
    size = Size(given.rows, given.batches, given.width, given.ids)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        places = {name: FORMATS[name](str(Path(folder) / name)) for name in names}
        states(places, size, given.repeats)
        changes(places, size)
        if given.writers:
            at_once(names, Path(folder), given.writers)
        encodings(batch(min(size.rows, Runs.size), size.width, 0), given.repeats)
        tries({name: place.folder for name, place in places.items()})


if __name__ == "__main__":
    main()
