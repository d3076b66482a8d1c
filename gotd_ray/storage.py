"""Files on any filesystem, named by one string: a local path, ``s3://bucket/key``, or any scheme that fsspec knows.

Credentials come from the environment, a profile or a role, never from a path or the config.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from gotd_ray import config
from gotd_ray.errors import UserError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
FORMATS = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson"),
    "text": (".txt", ".md"),
    "warc": (".warc", ".wet"),
}

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SECRET_IN_URI = re.compile(r"^[^/]*://([^/]*@|.*[?&][\w-]*(key|secret|token|password|signature|sig)=)", re.IGNORECASE)
_WILDCARD = re.compile(r"[*?]")
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class StoredFile:
    """A listed file.

    Attributes:
        uri: absolute local path, or the path with its scheme.
        size: bytes.
        modified: nanoseconds since the epoch, whole seconds where it is not a local file; 0 where it is not known.
    """

    uri: str
    size: int
    modified: int


class _Handler(pafs.FSSpecHandler):
    """fsspec for Arrow, with the time of the last change, and with "denied" told from "not there" on opening."""

    @staticmethod
    def _create_file_info(path: str, info: dict[str, Any]) -> pafs.FileInfo:
        # as s3fs, most others, and the memory filesystem call it
        changed = info.get("mtime") or info.get("LastModified") or info.get("created")
        return pafs.FSSpecHandler._create_file_info(path, {**info, "mtime": changed})

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")


class InputFile(io.RawIOBase):
    """A file opened for reading that remembers whether the storage failed.

    Above it stand decoders (gzip, Parquet, ...) whose errors look like any ``OSError``. ``failure`` tells a network
    error, which may pass, from broken content, which will not.

    Raises:
        OSError: the file cannot be opened or read; ``failure`` is then set.
    """

    def __init__(self, uri: str, storage: config.Storage) -> None:
        self.uri = uri
        self.failure: Exception | None = None
        self._file: Any = None
        filesystem, path = resolve(uri, storage)
        with self._watched():
            self._file = filesystem.open_input_file(path)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every client has exceptions of its own
            self.failure = error
            if isinstance(error, OSError):
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._watched():
            return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._watched():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if self._file is not None and not self.closed:
            self._file.close()
        super().close()


def resolve(uri: str, storage: config.Storage) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path and the path on it; filesystems are made once per process.

    Raises:
        UserError: unknown scheme, a client that is not installed, settings that do not fit, credentials in the path.
    """
    _refuse_secrets(uri)
    scheme = _scheme(uri)
    if scheme == "file":
        return pafs.LocalFileSystem(), os.path.abspath(uri.removeprefix("file://"))  # noqa: PTH100 - links stay links
    filesystem = _filesystem(scheme, storage.model_dump_json())
    if scheme == "s3":
        return filesystem, uri[len("s3://") :].strip("/")
    return filesystem, filesystem.handler.fs._strip_protocol(uri)


def resolve_folder(uri: str, storage: config.Storage) -> tuple[pafs.FileSystem, str]:
    """The same, for whole folders: Arrow's S3 client leaves empty objects, `name/`, which some servers refuse."""
    found = resolve(uri, storage)
    s3 = isinstance(found[0], pafs.S3FileSystem)
    return resolve(uri, storage.model_copy(update={"library": "s3fs"})) if s3 else found


def _scheme(uri: str) -> str:
    match = _SCHEME.match(uri)
    return match[1].lower() if match else "file"


def _refuse_secrets(uri: str) -> None:
    if _SECRET_IN_URI.search(uri):
        scheme = uri.partition("://")[0]
        raise UserError(
            f"a {scheme}:// path holds credentials (not shown here), which logs and manifests would copy. Remedy: take "
            "them out of the path and export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile or a role"
        )


@lru_cache(maxsize=32)
def _filesystem(scheme: str, settings: str) -> pafs.FileSystem:
    storage = config.Storage.model_validate_json(settings)
    if storage.endpoint:
        _refuse_secrets(storage.endpoint)
    if scheme != "s3":
        return _fsspec(scheme, storage.options)
    if storage.library == "pyarrow" and storage.options:
        raise UserError(
            f"storage.options ({', '.join(storage.options)}) are options of s3fs, but storage.library is pyarrow. "
            "Set storage.library to s3fs, or drop the options"
        )
    if storage.library == "s3fs" or storage.options:
        client = ({"region_name": storage.region} if storage.region else {}) | storage.options.get("client_kwargs", {})
        options = {"anon": storage.anonymous, "endpoint_url": storage.endpoint, **storage.options}
        # Other processes write the same folders, so no listing is kept.
        return _fsspec("s3", {"use_listings_cache": False, **options, "client_kwargs": client})
    return _arrow_s3(storage)


def _arrow_s3(storage: config.Storage) -> pafs.FileSystem:
    options: dict[str, Any] = {"anonymous": storage.anonymous, "connect_timeout": _CONNECT_SECONDS}
    if storage.region:
        options["region"] = storage.region
    if storage.endpoint:
        url = urlsplit(storage.endpoint)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise UserError(
                f"storage.endpoint is '{storage.endpoint}', not a URL. Write it as http://host:port or https://host"
            )
        options |= {"scheme": url.scheme, "endpoint_override": url.netloc + url.path.rstrip("/")}
    # A delayed open makes a small object one PUT, so that a reader never sees half of it.
    return pafs.S3FileSystem(allow_delayed_open=True, **options)


def _fsspec(scheme: str, options: dict[str, Any]) -> pafs.FileSystem:
    import fsspec

    if scheme not in fsspec.available_protocols():
        raise UserError(
            f"'{scheme}://' is no storage that we know. Use a local path, s3://, or a scheme of fsspec such as gs:// "
            "or hf://"
        )
    try:
        return pafs.PyFileSystem(_Handler(fsspec.filesystem(scheme, skip_instance_cache=scheme == "s3", **options)))
    except ImportError as error:
        raise UserError(f"'{scheme}://' needs a package that is not installed: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"storage.options do not fit {scheme}://: {error}") from None


def list_files(text: config.Text, storage: config.Storage) -> list[StoredFile]:
    """The files that ``text.paths`` names, sorted by uri, each once.

    A folder gives all files in it, at any depth, whose ending fits ``text.format``. A glob knows ``*``, ``**`` and
    ``?``. ``@list.txt`` is a file of paths, one per line, relative to its own folder; lines that start with ``#``
    are comments. Names that start with a dot or an underscore are left out unless a path names the very file.

    Raises:
        UserError: a path is missing, cannot be read, or gives no file.
    """
    found: dict[str, StoredFile] = {}
    for path in _expand_lists(text.paths, storage):
        files = _expand(path, text.format, storage)
        if not files:
            formats = FORMATS if text.format == "auto" else [text.format]
            endings = ", ".join(ending for name in formats for ending in FORMATS[name])
            raise UserError(
                f"'{path}' holds no file that ends in {endings} (also with .gz or .zst, but "
                "for .parquet). Correct the path, or name the format of other endings, as in format: jsonl, with a "
                "glob such as data/*.json.gz"
            )
        found |= {file.uri: file for file in files}
    return [found[uri] for uri in sorted(found)]


def _expand_lists(paths: list[str], storage: config.Storage) -> Iterator[str]:
    for path in paths:
        if not path.startswith("@"):
            yield path
            continue
        name = path[1:]
        with _as_user_error(name):
            lines = read_bytes(name, storage).decode("utf-8-sig").splitlines()
        folder = name.rpartition("/")[0]
        for line in filter(None, (line.strip() for line in lines if not line.startswith("#"))):
            anchored = _SCHEME.match(line) or line.startswith("/") or not folder
            yield line if anchored else join(folder, line)


def _expand(path: str, text_format: str, storage: config.Storage) -> list[StoredFile]:
    filesystem, inner = resolve(path, storage)
    with _as_user_error(path):
        info = filesystem.get_file_info(inner)
        if info.type == pafs.FileType.File:
            filesystem.open_input_file(inner).close()
            listed = [info]
        elif info.type == pafs.FileType.Directory:
            listed = _below(filesystem, inner, recursive=True)
        elif _WILDCARD.search(inner):
            listed = _glob(filesystem, inner)
        else:
            raise FileNotFoundError(path)
    # A file, and the ending in a glob, were written by the user: with a named format they are taken at their word.
    literal = text_format != "auto" and info.type != pafs.FileType.Directory and not path.endswith("*")
    formats = FORMATS if text_format == "auto" else (text_format,)
    return [_stored(_scheme(path), one) for one in listed if literal or format_of(one.path) in formats]


def _stored(scheme: str, info: pafs.FileInfo) -> StoredFile:
    modified = info.mtime_ns or 0
    if scheme != "file":  # object stores give milliseconds in a listing, seconds for a single object
        modified -= modified % 1_000_000_000
    return StoredFile(_uri(scheme, info.path), info.size or 0, modified)


def _below(filesystem: pafs.FileSystem, folder: str, *, recursive: bool) -> list[pafs.FileInfo]:
    """The files under a folder whose way from it holds no hidden name."""
    start = len(folder.rstrip("/"))
    return [
        info
        for info in filesystem.get_file_info(pafs.FileSelector(folder, recursive=recursive))
        if info.type == pafs.FileType.File
        and not any(name.startswith((".", "_")) for name in info.path[start:].split("/"))
    ]


def _glob(filesystem: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    first = _WILDCARD.search(pattern)
    assert first is not None
    folder = pattern[: first.start()].rpartition("/")[0]
    rest = pattern[len(folder) :].strip("/")
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    regex = re.compile(
        "".join(parts.get(token) or re.escape(token) for token in re.split(r"(\*\*/|\*\*|\*|\?)", rest)), re.DOTALL
    )
    listed = _below(filesystem, folder or "/", recursive="/" in rest or "**" in rest)
    return [info for info in listed if regex.fullmatch(info.path[len(folder) :].strip("/"))]


@contextmanager
def _as_user_error(path: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist. Correct the path, or create it") from None
    except Exception as error:  # every client has exceptions of its own
        if is_denied(error):
            raise UserError(
                f"'{path}' may not be read: permission denied. Give this user, or the credentials in the environment, "
                "the right to list and read it"
            ) from None
        raise UserError(
            f"'{path}' cannot be read: {type(error).__name__}: {error}. Check the path, the network and "
            "storage.endpoint"
        ) from error


def is_denied(error: Exception) -> bool:
    """Whether the storage refused for want of permission; Arrow's S3 client says so in words only."""
    words = r"ACCESS_DENIED|SIGNATURE_DOES_NOT_MATCH|INVALID_ACCESS_KEY|HTTP status 40[13]|Forbidden"
    return isinstance(error, PermissionError) or bool(re.search(words, str(error)))


def _uri(scheme: str, path: str) -> str:
    if scheme == "file" or "://" in path:
        return path
    return f"{scheme}://{path.lstrip('/')}"


def split_name(path: str) -> tuple[str, str, str]:
    """``folder/part-1.jsonl.gz`` to ``("part-1", ".jsonl", ".gz")``: stem, ending, compression ending ('' if none)."""
    name = path.rpartition("/")[2]
    packed = next((e for e in COMPRESSIONS if name.lower().endswith(e)), "")
    stem, dot, ending = name[: len(name) - len(packed)].rpartition(".")
    return (stem, dot + ending.lower(), packed) if stem else (dot + ending, "", packed)


def format_of(path: str) -> str | None:
    """The format that a file's ending stands for, or None."""
    _, ending, packed = split_name(path)
    name = next((name for name, endings in FORMATS.items() if ending in endings), None)
    return None if name == "parquet" and packed else name


def read_bytes(uri: str, storage: config.Storage) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read; FileNotFoundError when it is not there.
    """
    with InputFile(uri, storage) as file:
        return file.readall()


def write_bytes(uri: str, data: bytes, storage: config.Storage) -> None:
    """Write a whole file, so that a reader sees the old content or the new, never a part; parent folders are made.

    Raises:
        UserError: it cannot be written, and why.
    """
    filesystem, path = resolve(uri, storage)
    with writing(uri):
        if not isinstance(filesystem, pafs.LocalFileSystem):
            with filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(
            f".{uuid.uuid4().hex}"
        )  # of a length of its own: the name's may be the longest allowed
        try:
            with draft.open("wb") as file:
                file.write(data)
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
    filesystem, path = resolve(folder, storage)
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.File)


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


def join(uri: str, *parts: str) -> str:
    """The path of something inside a folder."""
    return "/".join([uri.rstrip("/"), *parts])
