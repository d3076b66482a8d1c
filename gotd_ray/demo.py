"""The demo's corpus and target: documentation that stands on every installation, so the demo downloads nothing.

The corpus is the documentation strings of the Python packages installed beside this one, one file per package. The
target is POT's documentation (optimal transport), split into train and test by modules, since the functions of one
module repeat each other. Some strings of every package are kept out of the corpus as general text, to see what a
training costs there. Files are parsed, never imported.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gotd_ray.errors import UserError
from gotd_ray.models import cache

# What our own dependencies bring. A package that is absent is left out.
PACKAGES = (
    "torch", "transformers", "ray", "scipy", "sklearn", "sympy", "pandas", "numpy", "networkx", "deepspeed",
    "sentence_transformers", "huggingface_hub", "accelerate", "pydantic", "aiohttp", "botocore", "fsspec", "mpmath",
    "pyarrow", "rich", "joblib",
)  # fmt: skip
TARGET = "ot"
HELD_OUT_CHARS = 600  # so that judging takes seconds
MIN_CHARS = 120  # characters; shorter strings are mostly "See the base class."

_DISTRIBUTION = {"sklearn": "scikit-learn", "ot": "POT"}  # where the name to install differs
_NOT_THEIRS = {  # tests, and copies of other projects
    "tests", "test", "testing", "_vendor", "vendor", "vendored", "thirdparty", "third_party", "thirdparty_files",
    "extern", "externals", "_externals",
}  # fmt: skip
_PARTS = ("corpus", "target", "general")

_log = logging.getLogger(__name__)

Row = tuple[str, str]  # text, where: package/module.py:line
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def folder() -> Path:
    """The demo's texts in this user's cache: written once for the packages that are installed, by one process.

    Raises:
        UserError: POT is not installed, or the cache cannot be written.
    """
    versions = json.dumps(_versions(PACKAGES), sort_keys=True)
    key = hashlib.blake2b(Path(__file__).read_bytes() + versions.encode(), digest_size=8).hexdigest()
    return cache.kept("the demo's texts", "demo", key, partial(build, packages=PACKAGES))


def build(folder: Path, *, packages: Sequence[str], max_per_package: int = 1000) -> None:
    """Write ``corpus/<package>.parquet``, ``target/{train,test}.parquet`` and ``general/test.parquet`` into ``folder``.

    Columns are text, source and where. Of what is held out, the first 600 characters of each text are kept.

    Equal text stands once, and no text of the target stands in the corpus. Of each package the ``max_per_package``
    strings with the smallest content hash are taken; one that is absent is left out.

    Raises:
        UserError: POT is not installed.
    """
    for part in _PARTS:
        (folder / part).mkdir(parents=True)
    _write_all(folder, [name for name in _versions(packages) if name != TARGET], max_per_package)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Of the packages that are installed, the target's among them."""
    versions = {name: version for name in (*packages, TARGET) if (version := _version(name))}
    if TARGET not in versions:
        raise UserError("The demo's target is the documentation of POT, which is not installed. Run: pip install POT")
    return versions


def _write_all(folder: Path, packages: Sequence[str], max_per_package: int) -> None:
    documentation = _documentation([TARGET, *packages])  # the target first: it keeps what others repeat
    target = documentation.pop(TARGET)
    _write(folder / "target" / "train.parquet", TARGET, [row for row in target if not _is_test(row)])
    _write(folder / "target" / "test.parquet", TARGET, [_beginning(row) for row in target if _is_test(row)])
    general = [_beginning(row) for rows in documentation.values() for row in rows if _is_general(row)]
    _write(folder / "general" / "test.parquet", "general", general)
    for package, rows in documentation.items():
        others = [row for row in rows if not _is_general(row)]
        taken = set(sorted(others, key=_content_hash)[:max_per_package])
        _write(folder / "corpus" / f"{package}.parquet", package, [row for row in others if row in taken])


def _documentation(packages: Sequence[str]) -> dict[str, list[Row]]:
    """The strings of each package by path and line; a text stands with the first package that has it, once."""
    names = [(package, name) for package in packages for name in _modules(package)]
    rows: dict[str, list[Row]] = {package: [] for package in packages}
    seen: set[str] = set()
    hands = os.cpu_count() or 1
    paths = [str(_root(package) / name) for package, name in names]
    with ThreadPoolExecutor(hands) as pool:
        found = list(pool.map(_in_a_process, [paths[i::hands] for i in range(hands)]))
    for number, (package, name) in enumerate(names):
        for line, text in found[number % hands][number // hands]:
            if text not in seen:
                seen.add(text)
                rows[package].append((text, f"{package}/{name}:{line}"))
    return rows


def _in_a_process(paths: list[str]) -> list[list[tuple[int, str]]]:
    """``_strings`` of some files, in a process of its own. Python's pools would run the caller's main script there,
    and one without a guard would wait for the lock that its parent holds."""
    code = "from gotd_ray.demo import _answer; _answer()"
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(paths),
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"a process that reads the demo's texts ended early: {said}. Run again.")
    return json.loads(done.stdout)


def _answer() -> None:
    gc.disable()  # syntax trees have no cycles
    json.dump([_strings(Path(path)) for path in json.load(sys.stdin)], sys.stdout)


def _strings(path: Path) -> list[tuple[int, str]]:
    """(line, text) of the documentation strings of a file, cleaned of their indentation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:  # templates, other Python versions
            _log.info("left out %s: %s", path, error)
            return []
    found = []
    for node in _definitions(tree):
        text = ast.get_docstring(node) or ""
        if len(text) >= MIN_CHARS:
            line = 1 if isinstance(node, ast.Module) else node.lineno
            found.append((line, text.encode("utf-8", "replace").decode()))  # an escape can name half a character
    return sorted(found)


def _definitions(node: ast.AST) -> Iterator[Documented]:
    """What can carry a documentation string. Expressions are not entered, which ``ast.walk`` would spend half on."""
    if isinstance(node, Documented):
        yield node
    for block in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, block, []):
            yield from _definitions(child)


def _modules(package: str) -> list[str]:
    root = _root(package)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    return [name for name in names if not _is_test_or_copy(name)]


def _is_test_or_copy(name: str) -> bool:
    *folders, stem = Path(name).with_suffix("").parts
    return stem.startswith(("test_", "conftest")) or stem.endswith("_test") or not _NOT_THEIRS.isdisjoint(folders)


def _root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _version(package: str) -> str | None:
    """The version of an installed package; None when it is absent."""
    try:
        return importlib.metadata.version(_DISTRIBUTION.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return None


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _content_hash(row: Row) -> str:
    return _hash(row[0])


def _beginning(row: Row) -> Row:
    return row[0][:HELD_OUT_CHARS], row[1]


def _is_test(row: Row) -> bool:
    """One module in five, by its path."""
    return int(_hash(row[1].rpartition(":")[0]), 16) % 5 == 0


def _is_general(row: Row) -> bool:
    """One text in 800, by its content."""
    return int(_content_hash(row), 16) % 800 == 0


def _write(path: Path, source: str, rows: Sequence[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    columns = {"text": [row[0] for row in rows], "source": [source] * len(rows), "where": [row[1] for row in rows]}
    schema = pa.schema({name: pa.string() for name in columns})
    pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")
