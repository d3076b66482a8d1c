"""Small real corpora for tests: the documentation strings of Python's own library, which every machine has."""

from __future__ import annotations

import ast
import gzip
import json
import sysconfig
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from indexed import indexed

from gotd_ray.index import Embedded
from gotd_ray.storage import StoredFile
from gotd_ray.text.tally import Tally

Row = tuple[str, str]  # text, source

_TARGET = ("statistics", "random", "fractions", "decimal")  # modules about numbers
_CORPUS = (
    "argparse", "ast", "asyncio/tasks", "calendar", "codecs", "configparser", "csv", "dataclasses", "datetime",
    "difflib", "email/message", "ftplib", "functools", "heapq", "http/client", "imaplib", "inspect", "json/decoder",
    "logging/__init__", "mailbox", "numbers", "optparse", "pathlib", "pickle", "plistlib", "poplib", "shutil",
    "smtplib", "socketserver", "string", "subprocess", "tarfile", "telnetlib", "textwrap", "threading", "tokenize",
    "typing", "unittest/case", "urllib/request", "uuid", "wave", "zipfile", "bisect", "cmd", "copy", "enum",
)  # fmt: skip


@lru_cache(maxsize=1)
def documents() -> tuple[list[Row], list[Row]]:
    """Corpus (some hundreds of texts) and target (some dozens), of at least 60 characters."""
    return _of(_CORPUS), _of(_TARGET)


def _of(modules: tuple[str, ...]) -> list[Row]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    rows: dict[str, str] = {}
    for name in modules:
        path = folder / f"{name}.py"
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= 60:
                    rows.setdefault(text, name.replace("/", "."))
    return list(rows.items())


def write_parquet(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": [t for t, _ in rows], "source": [s for _, s in rows]}), path, row_group_size=64)


def write_jsonl_gz(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text, "source": source}) + "\n" for text, source in rows)


def write_corpus(folder: Path, rows: list[Row], files: int = 6) -> None:
    """The rows over several files, every other one Parquet and gzipped JSON lines."""
    for i in range(files):
        part = rows[i::files]
        if i % 2:
            write_jsonl_gz(folder / f"part-{i}.jsonl.gz", part)
        else:
            write_parquet(folder / f"part-{i}.parquet", part)


def whole_library() -> list[Row]:
    """All of the library's texts: several thousands."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*.py"))
    packages = ("asyncio", "concurrent", "email", "http", "importlib", "json", "logging", "unittest", "urllib", "xml")
    names += sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for name in packages
        for path in (folder / name).rglob("*.py")
    )
    return _of(tuple(name for name in names if name not in _TARGET))


def write_index(folder: Path, corpus: np.ndarray, target: np.ndarray) -> Embedded:
    """An index of these vectors (n, d) and (m, d), as if they were documents' of one file each; ids are random."""
    rng = np.random.default_rng(0)
    found = []
    for name, vectors in (("corpus", corpus), ("target", target)):
        ids = [rng.bytes(16).hex() for _ in vectors]
        file = StoredFile(f"{name}.parquet", 1, 0)
        tallies = {file.uri: Tally(documents=len(ids)).to_dict()}
        found.append(indexed(folder / name, [file], tallies, {"doc_id": ids}, vectors))
    return Embedded(found[0], found[1], corpus.shape[1])
