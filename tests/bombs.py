"""Reads packed files of one endless line in a process of its own, and says by how many bytes it grew: its arguments are
files, and it prints a JSON object of their rows and growth."""

from __future__ import annotations

import json
import resource
import sys
import zlib
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

PIECE = b"x" * 1_000_000


def write(path: Path, megabytes: int) -> None:
    """Two texts, and between them one of so many megabytes; packed as the ending says."""
    begin, middle, end = {
        ".jsonl": (b'{"text": "before"}\n{"text": "', PIECE, b'"}\n{"text": "after"}\n'),
        ".json": (b'[{"text": "before"}, {"text": "', PIECE, b'"}, {"text": "after"}]'),
        ".txt": (b"", PIECE, b""),
    }[path.suffixes[0]]
    with path.open("wb") as file, _packer(path, file) as packer:
        packer.write(begin)
        for _ in range(megabytes):
            packer.write(middle)
        packer.write(end)


def _packer(path: Path, file: IO[bytes]) -> Any:
    return _Gzip(file) if path.suffix == ".gz" else pa.CompressedOutputStream(pa.PythonFile(file, mode="w"), "zstd")


class _Gzip:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._packer = file, zlib.compressobj(1, zlib.DEFLATED, 31)

    def __enter__(self) -> _Gzip:
        return self

    def write(self, data: bytes) -> None:
        self._file.write(self._packer.compress(data))

    def __exit__(self, *_: object) -> None:
        self._file.write(self._packer.flush())


def read(path: str) -> list[list[Any]]:
    """Number, and text or the reason why there is none, of each row."""
    from gotd_ray import config
    from gotd_ray.text.readers import read_rows

    text = config.Text(paths=[path], max_document_bytes=1_000_000)
    rows = read_rows(path, text, config.Storage())
    return [[row.number, row.content if isinstance(row.content, str) else row.content.reason] for row in rows]


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    found = {}
    for path in sys.argv[1:]:
        before = peak()
        found[path] = {"rows": read(path), "grew": peak() - before}
    print(json.dumps(found))
