"""Files on any filesystem, named by one string: a local path, ``s3://bucket/key``, or any scheme that fsspec knows.

Credentials come from the environment, a profile or a role, never from a path or the config.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.filesystems import InputFile, is_denied, join, reading, resolve, resolve_folder
from gotd_ray.listing import Listing, StoredFile, list_all, list_files

__all__ = [
    "InputFile", "Listing", "StoredFile", "check_writable", "create", "delete_tree", "exists", "is_denied", "join",
    "list_all", "list_files", "list_names", "list_times", "read_bytes", "read_if_there", "resolve", "resolve_folder",
    "write_bytes", "writing",
]  # fmt: skip


def read_bytes(uri: str, storage: config.Storage) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read; FileNotFoundError when it is not there.
    """
    with InputFile(uri, storage) as file:
        return file.readall()


def read_if_there(uri: str, storage: config.Storage) -> bytes | None:
    """All bytes of a file, or None where there is none.

    Raises:
        UserError: it is there, or may be, and cannot be read.
    """
    with suppress(FileNotFoundError, NotADirectoryError), reading(uri, absent=False):
        return read_bytes(uri, storage)
    return None


def write_bytes(uri: str, data: bytes, storage: config.Storage) -> None:
    """Write a whole file, so that a reader sees the old content or the new, never a part; parent folders are made.

    Raises:
        UserError: it cannot be written, and why.
    """
    with create(uri, storage) as file:
        file.write(data)


@contextmanager
def create(uri: str, storage: config.Storage) -> Iterator[Any]:
    """A new file to be written piece by piece; parent folders are made.

    On a local disk a reader sees the old content until all is written. An object store may keep what was written until
    a failure: who writes so tells with another file, written last, that this one is whole.

    Raises:
        UserError: it cannot be written, and why.
    """
    filesystem, path = resolve(uri, storage)
    with writing(uri):
        if not isinstance(filesystem, pafs.LocalFileSystem):
            with filesystem.open_output_stream(path, compression=None) as stream:
                yield stream
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid.uuid4().hex}")  # the name itself may be as long as is allowed
        try:
            with draft.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


_NOT_WRITTEN = {
    errno.ENOSPC: "the disk is full. Free some room, or name a folder elsewhere",
    errno.EDQUOT: "the quota is used up. Free some room, or name a folder elsewhere",
    errno.EROFS: "the file system is read-only. Name a folder elsewhere",
    errno.EACCES: "permission denied. Give this user the right to write there, or name a folder elsewhere",
    errno.EPERM: "permission denied. Give this user the right to write there, or name a folder elsewhere",
    errno.ENAMETOOLONG: "the name is too long for the file system. Shorten it",
    errno.ENOTDIR: "a file stands where a folder is needed. Remove it, or name a folder elsewhere",
    errno.EEXIST: "a file stands where a folder is needed. Remove it, or name a folder elsewhere",
    errno.EISDIR: "a folder stands where a file is needed. Remove it, or name a folder elsewhere",
    errno.ENOTEMPTY: "a folder stands where a file is needed. Remove it, or name a folder elsewhere",
}


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """Turn a failure of writing, or of deleting, into words for the user.

    Raises:
        UserError: with the path, the reason and what to do.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every client has exceptions of its own
        why = _NOT_WRITTEN.get(getattr(error, "errno", None) or 0)
        if why is None and is_denied(error):
            why = "permission denied. Give the credentials in the environment the right to write and delete there"
        if why is None and not isinstance(error, OSError):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        why = why or f"{said}. Check the path, the network and storage.endpoint"
        raise UserError(f"'{uri}' cannot be written: {why}.") from None


def check_writable(uri: str, storage: config.Storage) -> int | None:
    """Make sure that a folder can be written, and leave nothing behind.

    Returns:
        Bytes that are free where it lies; None where the storage does not say.

    Raises:
        UserError: it cannot be written, and why.
    """
    filesystem, path = resolve(uri, storage)
    if not isinstance(filesystem, pafs.LocalFileSystem):
        probe = join(uri, f".probe-{uuid.uuid4().hex}")
        write_bytes(probe, b"", storage)
        delete_tree(probe, storage)
        return None
    folder = Path(path)
    with writing(uri):
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            return shutil.disk_usage(folder).free


def exists(uri: str, storage: config.Storage) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = resolve(uri, storage)
    return filesystem.get_file_info(path).type != pafs.FileType.NotFound


def list_names(folder: str, storage: config.Storage) -> list[str]:
    """Names of the files in a folder, sorted; none where there is no folder."""
    return sorted(list_times(folder, storage))


def list_times(folder: str, storage: config.Storage) -> dict[str, int | None]:
    """By name of a file in a folder, when it was last written, in ns by the clock of the storage; None where it does
    not say."""
    filesystem, path = resolve(folder, storage)
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return {info.base_name: info.mtime_ns for info in infos if info.type == pafs.FileType.File}


def list_folders(folder: str, storage: config.Storage) -> list[str]:
    """Names of the folders in a folder, sorted; none where there is no folder."""
    filesystem, path = resolve(folder, storage)
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def delete_tree(uri: str, storage: config.Storage) -> None:
    """Delete a file, or a folder with all that is in it; no error when it is not there.

    Raises:
        UserError: it cannot be deleted, and why.
    """
    filesystem, path = resolve_folder(uri, storage)
    assert "/" in path.strip("/"), f"refusing to delete '{uri}', a root or a whole bucket"
    kind = filesystem.get_file_info(path).type
    with writing(uri), suppress(FileNotFoundError):  # another process may delete it at the same time
        if kind == pafs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind == pafs.FileType.File:
            filesystem.delete_file(path)
