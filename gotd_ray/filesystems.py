"""Filesystems, local or of any scheme, and files opened for reading on them.

Credentials come from the environment, a profile or a role, never from a path or the config.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from gotd_ray import config
from gotd_ray.config.base import refuse_credentials
from gotd_ray.errors import UserError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_CONNECT_SECONDS = 10
_ATTEMPTS = 6
"""Of a call to S3, with growing pauses, some 10 s in all. With Arrow's own three, of a server that fails one call in
twenty, one in 8,000 calls would fail for good, and a file with it."""

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
"""Endings of files that are compressed as a whole."""

_XZ_BYTES = 256 << 20
"""A file of xz says what its reader must set aside: 65 MiB by ``xz -9``, up to 4 GiB by one who means harm."""

REQUEST_BYTES = 4 << 20
"""Read at a time: one request to an object store."""

_UNPACKED_BYTES = 1 << 16  # decoded ahead of what is read, and lost with it when a stream breaks


class _Handler(pafs.FSSpecHandler):
    """fsspec for Arrow, with the time of the last change, and with "denied" told from "not there" on opening."""

    @staticmethod
    def _create_file_info(path: str, info: dict[str, Any]) -> pafs.FileInfo:
        # as s3fs, most others, and the memory filesystem call it
        changed = info.get("mtime") or info.get("LastModified") or info.get("created")
        changed = changed or getattr(info.get("last_commit"), "date", None)  # of the Hugging Face hub
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

    def readall(self) -> bytes:
        """All that is left in one request: as io has it, it is one for every 8 KiB."""
        with self._watched():
            return self._file.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._watched():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if self._file is not None and not self.closed:
            self._file.close()
        super().close()


def unpacked(file: InputFile) -> io.BufferedReader:
    """The bytes of a file, without the compression that its ending tells; several members are one stream.

    Raises:
        EOFError: the file should be compressed, and is empty.
    """
    raw: io.BufferedReader = io.BufferedReader(file, REQUEST_BYTES)
    packed = split_name(file.uri)[2]
    if not packed:
        return raw
    if not raw.peek(1):
        raise EOFError("the file is empty, and not even the beginning of a compressed one")
    if packed in _Members.MAKE:
        return io.BufferedReader(_Members(raw, packed), _UNPACKED_BYTES)
    stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), {".gz": "gzip", ".zst": "zstd"}[packed])
    return io.BufferedReader(stream, _UNPACKED_BYTES)


class _Members(io.RawIOBase):
    """What is in a file of bzip2 or xz, member after member, with no more unpacked at a time than is asked for."""

    MAKE: ClassVar[dict[str, Callable[[], Any]]] = {
        ".bz2": bz2.BZ2Decompressor,
        ".xz": lambda: lzma.LZMADecompressor(memlimit=_XZ_BYTES),
    }

    def __init__(self, raw: io.BufferedReader, packed: str) -> None:
        self._raw, self._make = raw, self.MAKE[packed]
        self._padded = packed == ".xz"  # zeros may stand between members
        self._member: Any = self._make()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises:
        EOFError: the file is cut.
        OSError: it is damaged.
        """
        while True:
            data = b""
            if self._member.eof:
                data = self._member.unused_data or self._raw.read(_UNPACKED_BYTES)
                if self._padded:
                    data = data.lstrip(b"\0")
                if not data and not self._raw.peek(1):
                    return 0
                self._member = self._make()
            elif self._member.needs_input and not (data := self._raw.read(_UNPACKED_BYTES)):
                raise EOFError("the compressed file is cut")
            try:
                found = self._member.decompress(data, len(buffer))
            except lzma.LZMAError as error:
                raise OSError(str(error)) from None
            if found:
                buffer[: len(found)] = found
                return len(found)


def read_up_to(stream: io.BufferedIOBase, size: int) -> bytes:
    """So many bytes, fewer at the end only. They are not set aside before they are there."""
    parts = []
    while size > 0 and (part := stream.read(min(size, REQUEST_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def resolve(uri: str, storage: config.Storage) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path and the path on it; filesystems are made once per process.

    Raises:
        UserError: unknown scheme, a client that is not installed, settings that do not fit, credentials in the path.
    """
    refuse_credentials(uri)
    scheme = scheme_of(uri)
    if scheme == "file":
        return pafs.LocalFileSystem(), os.path.abspath(uri.removeprefix("file://"))  # noqa: PTH100 - links stay links
    filesystem = client(scheme, storage.model_dump_json())
    if scheme == "s3":
        return filesystem, uri[len("s3://") :].strip("/")
    return filesystem, filesystem.handler.fs._strip_protocol(uri)


def resolve_folder(uri: str, storage: config.Storage) -> tuple[pafs.FileSystem, str]:
    """The same, for whole folders: Arrow's S3 client leaves empty objects, `name/`, which some servers refuse."""
    found = resolve(uri, storage)
    s3 = isinstance(found[0], pafs.S3FileSystem)
    return resolve(uri, storage.model_copy(update={"library": "s3fs"})) if s3 else found


def scheme_of(uri: str) -> str:
    match = _SCHEME.match(uri)
    return match[1].lower() if match else "file"


@lru_cache(maxsize=32)
def client(scheme: str, settings: str) -> pafs.FileSystem:
    storage = config.Storage.model_validate_json(settings)
    if storage.endpoint:
        refuse_credentials(storage.endpoint)
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
    retries = pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)
    options: dict[str, Any] = {
        "anonymous": storage.anonymous, "connect_timeout": _CONNECT_SECONDS, "retry_strategy": retries
    }  # fmt: skip
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
    if scheme == "hf":  # else nothing tells when a file has changed
        options = {"expand_info": True, **options}
    try:
        return pafs.PyFileSystem(_Handler(fsspec.filesystem(scheme, skip_instance_cache=scheme == "s3", **options)))
    except ImportError as error:
        raise UserError(f"'{scheme}://' needs a package that is not installed: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"storage.options do not fit {scheme}://: {error}") from None


@contextmanager
def reading(path: str, *, absent: bool = True) -> Iterator[None]:
    """Turn a failure of reading into words for the user.

    Args:
        absent: whether a file that is not there is such a failure.

    Raises:
        UserError: with the path, the reason and what to do.
        FileNotFoundError, NotADirectoryError: it is not there, and that is no failure.
    """
    try:
        yield
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        if not absent:
            raise
        raise UserError(f"'{shown(path)}' does not exist. Correct the path, or create it") from None
    except Exception as error:  # every client has exceptions of its own
        if is_denied(error):
            raise UserError(
                f"'{shown(path)}' may not be read: permission denied. Give this user, or the credentials in the "
                "environment, the right to list and read it"
            ) from None
        raise UserError(
            f"'{shown(path)}' cannot be read: {shown(f'{type(error).__name__}: {error}')}. Check the path, the network "
            "and storage.endpoint"
        ) from error


def shown(words: str) -> str:
    """A name, or what a library said, in a message: on one line, and without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in words
    )


def is_denied(error: Exception) -> bool:
    """Whether the storage refused for want of permission; Arrow's S3 client says so in words only."""
    words = r"ACCESS_DENIED|SIGNATURE_DOES_NOT_MATCH|INVALID_ACCESS_KEY|HTTP status 40[13]|Forbidden"
    return isinstance(error, PermissionError) or bool(re.search(words, str(error)))


def split_name(path: str) -> tuple[str, str, str]:
    """``folder/part-1.jsonl.gz`` to ``("part-1", ".jsonl", ".gz")``: stem, ending, compression ending ('' if none)."""
    name = path.rpartition("/")[2]
    packed = next((e for e in COMPRESSIONS if name.lower().endswith(e)), "")
    stem, dot, ending = name[: len(name) - len(packed)].rpartition(".")
    return (stem, dot + ending.lower(), packed) if stem else (dot + ending, "", packed)


def join(uri: str, *parts: str) -> str:
    """The path of something inside a folder."""
    return "/".join([uri.rstrip("/"), *parts])
