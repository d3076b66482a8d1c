"""Paths as text: one spelling for each place, and which places lie in one another. No file is read."""

from __future__ import annotations

import os
import re
from pathlib import Path

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_PARENT = re.compile(r"/\.\.(?=/|$)")
_WILDCARD = re.compile(r"[*?]")


def is_url(path: str) -> bool:
    """Whether the path lies elsewhere than on this machine's file system."""
    match = _URL.match(path)
    return match is not None and match[1].lower() != "file"


def normal(path: str, base: Path, *, links: bool = False) -> str:
    """The one spelling of a path: absolute, without ``.``, ``..``, doubled slashes or one at the end.

    Args:
        path: local, ``file://...`` or a URL.
        base: what relative paths are relative to.
        links: also follow symbolic links.

    Raises:
        ValueError: a ``file://`` path names another machine; a URL holds ``..``, which object stores take literally.
    """
    match = _URL.match(path)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", path)
    if scheme not in ("", "file"):
        if any(part in (".", "..") for part in rest.split("/")):
            raise ValueError(f"'{path}' holds '.' or '..', which is a name like any other there. Write the path out")
        rest = rest.lstrip("/") if scheme == "s3" else rest  # a bucket comes first
        return f"{scheme}://" + re.sub("//+", "/", rest).rstrip("/")
    if scheme == "file":
        if rest.startswith("localhost/"):
            rest = rest.removeprefix("localhost")
        if not rest.startswith("/"):
            raise ValueError(f"'{path}' is no absolute path. Write file:/// and the path, or the path alone")
    whole = os.path.join(base, rest)  # noqa: PTH118 - Path would drop what normpath must see
    if links:
        return os.path.realpath(whole)
    # Behind a link, `..` is the parent of what it leads to: what stands before the last one is followed.
    if last := max(_PARENT.finditer(whole), key=re.Match.start, default=None):
        whole = os.path.realpath(whole[: last.end()]) + whole[last.end() :]
    return os.path.normpath(whole).replace("//", "/", 1)


def inside(path: str, folder: str) -> bool:
    """Whether a place is a folder or lies in it; both in their one spelling."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def base_of(path: str) -> str:
    """The folder in which a glob begins; another path is its own."""
    first = _WILDCARD.search(path)
    return path[: first.start()].rpartition("/")[0] if first else path


def meet(path: str, place: str) -> bool:
    """Whether a path to be read (a file, a folder or a glob) and a file or folder have files in common.

    Of a glob with ``**`` the folder before its first wildcard counts.
    """
    folder = base_of(path)
    if path in (folder, place):
        return inside(path, place) or inside(place, path)
    if "**" in path:
        return inside(place, folder) or inside(folder, place)
    parts, others = path.split("/"), place.split("/")
    return len(parts) >= len(others) and all(map(_fits, parts, others))


def _fits(pattern: str, name: str) -> bool:
    tokens = {"*": ".*", "?": "."}
    return re.fullmatch("".join(tokens.get(sign) or re.escape(sign) for sign in pattern), name, re.DOTALL) is not None
