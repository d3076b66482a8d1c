"""What there is to say of a file format."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gotd_ray.filesystems import InputFile
from gotd_ray.text.rows import BadFile, Columns, Row

Read = Callable[[InputFile, Columns, int, Container[int]], Iterator[Row]]

_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


class Aside(NamedTuple):
    """Files with a format's ending that hold no documents: passed over where a folder or a glob leads to them."""

    reason: str
    words: str
    """The reason in a message: 3 passed over, ..."""

    stem: re.Pattern[str]
    """What their whole names are, without the ending."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: in the config.
        endings: of its files, in lower case, without that of a compression.
        read: gives the rows of an open file, in order, streamed. It takes the file, the columns to read, the largest
            text in bytes, and the numbers of the rows that are wanted; others may be given too. A row without a text
            says why (``Problem``), and the next is read. A file that breaks raises BadFile, OSError, EOFError,
            UnicodeDecodeError or pyarrow.ArrowException, see ``readers``.
        packed: whether its files may be compressed as a whole, see ``filesystems.COMPRESSIONS``.
        faults: its own reasons for which a row is bad, see ``tally.BAD_ROWS``.
        bytes_per_character: stored bytes per character of text where the file is not compressed as a whole, roughly:
            ``check`` says "about".
        aside: files that are passed over.
    """

    name: str
    endings: tuple[str, ...]
    read: Read
    packed: bool = True
    faults: frozenset[str] = frozenset()
    bytes_per_character: float = 1.05
    aside: Aside | None = None


def refuse_pointer(beginning: bytes) -> None:
    """What stands in a clone for a large file that was not fetched.

    Raises:
        BadFile: it is one.
    """
    if beginning.startswith(_LFS_POINTER):
        raise BadFile("unreadable", "a pointer of Git LFS, not the text: get it by git lfs pull", transient=False)
