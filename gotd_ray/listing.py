"""Which files a set is made of: folders, globs and lists of paths, and what is passed over on the way.

A file counts once, whatever names lead to it; what is not taken is counted by its reason, and some of it is named.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import pyarrow.fs as pafs

from gotd_ray import config
from gotd_ray.config.places import base_of, inside
from gotd_ray.errors import UserError
from gotd_ray.filesystems import InputFile, join, reading, resolve, scheme_of, shown, split_name
from gotd_ray.text.formats import FORMATS, Format, format_of

REASONS = {
    "ending": "an ending that is not read",
    **{one.aside.reason: one.aside.words for one in FORMATS if one.aside},
    "hidden": "a name that begins with a dot or an underscore",
    "folder": "a folder, where the glob asks for files",
    "twice": "another name of what is taken",
    "broken_link": "a link to nothing",
    "special": "neither file nor folder",
    "name": "a name that is not UTF-8",
}
"""Why something is passed over."""

_WILDCARD = re.compile(r"[*?]")
_EXAMPLES = 3


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


@dataclass(frozen=True)
class Listing:
    """The files that some paths name, and what they passed over.

    Attributes:
        files: sorted by uri, each once.
        passed_over: the first three (uri, reason) of each reason; a hidden folder is one.
        counts: how many were passed over, by reason, see ``REASONS``.
        elsewhere: local files to which a link leads out of the folder that was named.
    """

    files: list[StoredFile]
    passed_over: tuple[tuple[str, str], ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """What was passed over, a sentence for each reason."""
        told = []
        for reason, count in self.counts.items():
            named = [shown(uri) for uri, why in self.passed_over if why == reason]
            more = ", ..." if count > len(named) else ""
            told.append(f"{count:,} passed over, {REASONS[reason]}: {', '.join(named)}{more}")
        if self.elsewhere:
            named = [shown(uri) for uri in self.elsewhere[:_EXAMPLES]]
            more = ", ..." if len(self.elsewhere) > _EXAMPLES else ""
            many = len(self.elsewhere)
            told.append(f"{many:,} read from outside the folder, where a link leads: {', '.join(named)}{more}")
        return told


@dataclass(frozen=True)
class _Entry:
    """Something on the storage: a file, or with a reason what is none that can be taken."""

    path: str
    size: int = 0
    modified: int = 0
    identity: tuple[int, ...] | None = None
    """Of a local file or folder, under any name; None where the file system numbers none."""

    links: int = 0
    """How many symbolic links lead to it."""

    reason: str = ""


def list_files(text: config.Text, storage: config.Storage) -> list[StoredFile]:
    """The files of ``list_all``."""
    return list_all(text, storage).files


def list_all(text: config.Text, storage: config.Storage) -> Listing:
    """The files that ``text.paths`` names.

    A folder gives all files in it, at any depth, whose ending fits ``text.format``. A glob knows ``*``, ``**`` and
    ``?``. ``@list.txt`` is a file of paths, one per line, relative to its own folder; lines that start with ``#``
    are comments. What is hidden (a dot or an underscore comes first), and what tells about the data (README, LICENSE),
    is passed over unless a path names the very file. Links are followed. Of a file with several names that is kept to
    which the fewest links lead, of several such the first in order.

    Raises:
        UserError: a path is missing, cannot be read, or gives no file.
    """
    taken: dict[str, _Entry] = {}
    passed: dict[str, str] = {}
    roots: dict[str, str] = {}
    for path in expand_lists(text.paths, storage):
        entries = list(_expand(path, text.format, storage))
        if all(entry.reason for entry in entries):
            raise _nothing(path, text.format, entries)
        for entry in entries:
            uri = _uri(scheme_of(path), entry.path)
            if entry.reason:
                passed[uri] = entry.reason
            else:
                taken[uri], roots[uri] = entry, path
    names: dict[object, str] = {}
    for uri in sorted(taken, key=lambda uri: (taken[uri].links, uri)):
        first = names.setdefault(taken[uri].identity or uri, uri)
        if first != uri:
            passed[uri] = "twice"
    files = [StoredFile(uri, taken[uri].size, taken[uri].modified) for uri in sorted(names.values())]
    elsewhere = tuple(uri for uri in sorted(names.values()) if taken[uri].links and _leads_out(uri, roots[uri]))
    listing = _listing(files, {uri: why for uri, why in passed.items() if why == "twice" or uri not in taken})
    return replace(listing, elsewhere=elsewhere)


def _leads_out(file: str, named: str) -> bool:
    """Whether a local file lies outside the folder or the glob's folder through which it was found."""
    base = os.path.realpath(base_of(named.removeprefix("file://")))
    return not inside(os.path.realpath(file), base)


def _listing(files: list[StoredFile], passed: dict[str, str]) -> Listing:
    by_reason = {reason: sorted(uri for uri, why in passed.items() if why == reason) for reason in REASONS}
    examples = tuple((uri, reason) for reason, uris in by_reason.items() for uri in uris[:_EXAMPLES])
    return Listing(files, examples, {reason: len(uris) for reason, uris in by_reason.items() if uris})


def _formats(name: str) -> tuple[Format, ...]:
    return tuple(one for one in FORMATS if name in ("auto", one.name))


def _nothing(path: str, text_format: str, entries: list[_Entry]) -> UserError:
    formats = _formats(text_format)
    endings = ", ".join(ending for one in formats for ending in one.endings)
    unpacked = [ending for one in FORMATS if not one.packed for ending in one.endings]
    there = _listing([], {entry.path: entry.reason for entry in entries}).words()
    return UserError(
        f"'{shown(path)}' holds no file that ends in {endings} (also with .gz, .zst, .bz2 or .xz, but for "
        f"{', '.join(unpacked)}). Correct the path (a glob knows *, ** and ? only), or name the format of other "
        "endings, as in format: jsonl, with a glob such as data/*.log.gz"
        f"{'. There: ' if there else ''}{'; '.join(there)}"
    )


def expand_lists(paths: list[str], storage: config.Storage) -> Iterator[str]:
    """Paths as they are, and of ``@list.txt`` those that it names.

    Raises:
        UserError: a list cannot be read, or names none.
    """
    for path in paths:
        if not path.startswith("@"):
            yield path
            continue
        name = path[1:]
        with reading(name), InputFile(name, storage) as file:
            lines = file.readall().decode("utf-8-sig").split("\n")
        folder = name.rpartition("/")[0]
        named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not named:
            raise UserError(f"'{path}' names no path. Write one on each line, or name the files themselves.")
        for line in named:
            anchored = "://" in line or line.startswith("/") or not folder
            yield line if anchored else join(folder, line)


def _expand(path: str, text_format: str, storage: config.Storage) -> Iterator[_Entry]:
    """All that a path names."""
    filesystem, inner = resolve(path, storage)
    formats = _formats(text_format)
    with reading(path):
        there = _look(filesystem, inner)
        if there is None and not _WILDCARD.search(inner):
            raise FileNotFoundError(path)
        if there and there.reason == "special":
            raise UserError(f"'{shown(path)}' is neither file nor folder. Name a file or a folder.")
        if there and not there.reason:
            filesystem.open_input_file(inner).close()
            # The user wrote it: with a named format it is taken at its word.
            fits = text_format != "auto" or format_of(inner) in formats
            yield there if fits else _Entry(inner, reason="ending")
            return
        entries = _all_below(filesystem, inner) if there else _glob(filesystem, inner)
    literal = text_format != "auto" and not there and not path.endswith("*")
    for entry in entries:
        ending_fits = literal or format_of(entry.path) in formats
        reason = entry.reason or (_aside(entry.path) if ending_fits else "ending")
        yield _Entry(entry.path, reason=reason) if reason else entry


def _aside(path: str) -> str:
    """Why a file with the ending of a format holds no documents; empty if it may."""
    known = format_of(path)
    aside = known.aside if known else None
    return aside.reason if aside and aside.stem.fullmatch(split_name(path)[0]) else ""


def _look(filesystem: pafs.FileSystem, path: str) -> _Entry | None:
    """What is at a path: with the reason ``folder`` or ``special``, a file, or None."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        try:
            return _at(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    info = filesystem.get_file_info(path)
    return None if info.type == pafs.FileType.NotFound else _remote(info)


def _remote(info: pafs.FileInfo) -> _Entry:
    if info.type == pafs.FileType.File:
        modified = info.mtime_ns or 0  # object stores give milliseconds in a listing, seconds for a single object
        return _Entry(info.path, info.size or 0, modified - modified % 1_000_000_000)
    return _Entry(info.path, reason="folder" if info.type == pafs.FileType.Directory else "special")


def _at(path: str) -> _Entry:
    """What is at a local path that was named."""
    return _local(path, os.stat(path), os.path.realpath(path) != path.rstrip("/"))  # noqa: PTH116


def _local(path: str, status: os.stat_result, links: int) -> _Entry:
    number = (status.st_dev, status.st_ino) if status.st_ino else None
    if stat.S_ISDIR(status.st_mode):
        return _Entry(path, identity=number, links=links, reason="folder")
    if not stat.S_ISREG(status.st_mode):
        return _Entry(path, reason="special")
    size, modified = status.st_size, status.st_mtime_ns
    return _Entry(path, size, modified, (*number, size, modified) if number else None, links)


def _all_below(filesystem: pafs.FileSystem, folder: str) -> list[_Entry]:
    """What lies below a folder at any depth, but for folders; a hidden one is an entry."""
    local = isinstance(filesystem, pafs.LocalFileSystem)
    found = _walk(folder) if local else _selected(filesystem, folder, recursive=True)
    return [entry for entry in found if entry.reason != "folder"]


def _selected(filesystem: pafs.FileSystem, folder: str, *, recursive: bool) -> Iterator[_Entry]:
    """What lies in a folder of another storage, and with ``recursive`` below it."""
    start = len(folder.rstrip("/"))
    hidden: set[str] = set()
    for info in filesystem.get_file_info(pafs.FileSelector(folder, recursive=recursive)):
        names = info.path[start:].strip("/").split("/")
        place = next((place for place, name in enumerate(names) if _is_hidden(name)), None)
        if place is None:
            yield _remote(info)
        else:
            hidden.add(info.path[: start + 1] + "/".join(names[: place + 1]))
    yield from (_Entry(path, reason="hidden") for path in hidden)


def _walk(folder: str) -> Iterator[_Entry]:
    """What lies below a local folder. Links to folders are followed last, and none to one that was seen: loops end."""
    seen: set[object] = set()
    linked: list[_Entry] = []
    waiting = [_at(folder)]
    while waiting or linked:
        if not waiting:
            linked.sort(key=lambda entry: (entry.links, entry.path), reverse=True)
            waiting.append(linked.pop())
        here = waiting.pop()
        place = here.identity or os.path.realpath(here.path)
        if place in seen:
            yield _Entry(here.path, reason="twice")
            continue
        seen.add(place)
        for entry in _inside(here):
            yield entry
            if entry.reason == "folder":
                (linked if entry.links > here.links else waiting).append(entry)


def _inside(folder: _Entry) -> Iterator[_Entry]:
    """What lies in one local folder; what a link leads to is itself led to by a link."""
    with os.scandir(folder.path) as found:
        for one in found:
            path = join(folder.path, one.name)
            if not _is_utf8(one.name):
                yield _Entry(path, reason="name")
            elif _is_hidden(one.name):
                yield _Entry(path, reason="hidden")
            else:
                try:
                    yield _local(path, one.stat(), folder.links + one.is_symlink())
                except OSError as error:
                    if one.is_symlink() and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        yield _Entry(path, reason="broken_link")
                    elif error.errno != errno.ENOENT:  # else it went while we looked
                        raise


def _glob(filesystem: pafs.FileSystem, pattern: str) -> list[_Entry]:
    """What a glob matches. A folder that is called like a file, as Spark writes them, gives what lies below it."""
    first = _WILDCARD.search(pattern)
    assert first is not None
    folder = pattern[: first.start()].rpartition("/")[0] or "/"
    rest = pattern[len(folder) :].strip("/")
    if isinstance(filesystem, pafs.LocalFileSystem):
        found = _matching(_at(folder), rest.split("/"))
    else:
        below = _selected(filesystem, folder, recursive="/" in rest or "**" in rest)
        found = (entry for entry in below if _fits(entry, folder, rest))
    entries: list[_Entry] = []
    for entry in found:
        if entry.reason == "folder" and format_of(entry.path):
            entries += _all_below(filesystem, entry.path)
        elif entry.reason != "folder" or "**" not in rest:
            entries.append(entry)
    return entries


def _matching(folder: _Entry, parts: list[str]) -> Iterator[_Entry]:
    """What a glob matches below a local folder: level by level, so that nothing else is looked at; all from ** on."""
    if "**" in parts[0]:
        yield from (entry for entry in _walk(folder.path) if _fits(entry, folder.path, "/".join(parts)))
        return
    for entry in _inside(folder):
        if _fits(entry, folder.path, parts[0]):
            if len(parts) == 1:
                yield entry
            elif entry.reason == "folder":
                yield from _matching(entry, parts[1:])


def _fits(entry: _Entry, folder: str, pattern: str) -> bool:
    return bool(_regex(pattern).fullmatch(entry.path[len(folder) :].strip("/")))


@lru_cache(maxsize=256)
def _regex(pattern: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(parts.get(token) or re.escape(token) for token in tokens), re.DOTALL)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _is_utf8(name: str) -> bool:
    """Python keeps other bytes as lone surrogates, which no log and no table takes."""
    return name.encode(errors="ignore").decode() == name


def _uri(scheme: str, path: str) -> str:
    if scheme == "file" or "://" in path:
        return path
    return f"{scheme}://{path.lstrip('/')}"
