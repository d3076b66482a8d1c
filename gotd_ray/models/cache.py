"""Models on this machine's disk: copied or unpacked once, by one process; whole or not there, whoever is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import pyarrow.fs as pafs

from gotd_ray import config, storage
from gotd_ray.errors import UserError, said_by

_UNUSED = 24 * 3600.0
"""Seconds without use after which an older state of a copied model is deleted."""


def root() -> Path:
    """The folder of all that is kept.

    Raises:
        UserError: there is no place for it.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gotd_ray"
    except RuntimeError:
        raise UserError(
            "this user has no home folder in which models could be kept. Set XDG_CACHE_HOME to one that can be written."
        ) from None


def once(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder of ``key``, filled by ``make`` where it is not there; other processes of the machine wait for it.

    Args:
        kind: folder that keys of one sort share.
        key: names the content, which never changes.
        make: fills the folder that it is given.

    Raises:
        OSError: the cache cannot be written; or whatever ``make`` raises: nothing is left of it.
    """
    folder = root() / kind / key
    if not folder.is_dir():
        locks = root() / "locks"
        for needed in (folder.parent, locks):
            needed.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (locks / f"{kind}-{key}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _make(folder, make)
    with suppress(OSError):
        os.utime(folder)  # the time of its last use
    return folder


def kept(what: str, kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """``once``, for what only ``make`` and the disk can refuse, and takes long enough that its making is said.

    Args:
        what: the content in words.

    Raises:
        UserError: the cache cannot be written; or whatever ``make`` raises.
    """

    def said(folder: Path) -> None:
        print(f"making {what}, once on this machine", file=sys.stderr, flush=True)
        make(folder)

    try:
        return once(kind, key, said)
    except OSError as error:
        raise UserError(
            f"{what} cannot be written to {root()}: {error.strerror}. Set XDG_CACHE_HOME to a folder that can be "
            "written."
        ) from None


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    """Under a name of its own first; what a killed process left of it goes."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    try:
        make(part)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def fetch(uri: str, options: config.Storage) -> Path:
    """A local folder with the files of a folder anywhere, as they are now, under its own name.

    One that is local is itself the answer; others are copied once a machine. States of it that were copied earlier and
    have not been used for a day are deleted.

    Raises:
        UserError: it cannot be listed or copied, or the copy cannot be written.
    """
    filesystem, path = storage.resolve(uri, options)
    if isinstance(filesystem, pafs.LocalFileSystem):
        return Path(path)
    address, name = _digest(uri.rstrip("/")), path.rstrip("/").rpartition("/")[2]
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
        files = sorted((info.path, info.size, info.mtime_ns) for info in found if info.type == pafs.FileType.File)
        if not files:
            raise UserError(f"the model {uri} does not exist. Correct the path.")

        def copy(folder: Path) -> None:
            target, local = folder / name, pafs.LocalFileSystem()
            target.mkdir()
            pafs.copy_files(path, str(target), source_filesystem=filesystem, destination_filesystem=local)
            came = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
            if came != sum(size for _, size, _ in files):
                raise OSError(f"it changed meanwhile, {came:,} bytes came")

        folder = once("models", f"{address}-{_digest(repr(files))}", copy)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - every client has exceptions of its own
        raise UserError(
            f"the model {uri} cannot be copied to {root()}: {said_by(error)}. Try again when the storage "
            "answers, or set XDG_CACHE_HOME to a folder that can be written and has room for it."
        ) from None
    _forget(address, folder)
    return folder / name


def _forget(address: str, used: Path) -> None:
    for other in used.parent.glob(f"{address}-*"):
        with suppress(OSError):
            if other != used and time.time() - other.stat().st_mtime > _UNUSED:
                shutil.rmtree(other)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
