"""How often the files of some folders are opened, by whatever process: inotify, which Linux has.

A lower bound: of equal events that follow each other before one is read, the kernel keeps one.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

_OPEN, _CREATE = 0x20, 0x100
_FOLDER = 0x40000000
_HEAD = struct.Struct("iIII")


class Opened:
    """Counts while it is entered.

    Attributes:
        counts: by path. Folders that are made meanwhile are watched, too, from soon after on.
    """

    def __init__(self, *folders: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._folder, self._lock = folders[0], threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(0)
        self._watched: dict[int, Path] = {}
        for folder in folders:
            self._watch(folder)

    def _watch(self, folder: Path) -> None:
        number = self._libc.inotify_add_watch(self._queue, os.fsencode(folder), _OPEN | _CREATE)
        if number >= 0:
            self._watched[number] = folder
            for below in folder.iterdir():
                if below.is_dir():
                    self._watch(below)

    def _read(self) -> None:
        while data := os.read(self._queue, 1 << 20):
            start = 0
            while start < len(data):
                number, mask, _, length = _HEAD.unpack_from(data, start)
                name = data[start + _HEAD.size : start + _HEAD.size + length].rstrip(b"\0")
                start += _HEAD.size + length
                path = self._watched.get(number, Path()) / os.fsdecode(name)
                if mask & _FOLDER:
                    if mask & _CREATE:
                        self._watch(path)
                elif mask & _OPEN and name:
                    with self._lock:
                        self.counts[str(path)] += 1

    def settled(self) -> Counter[str]:
        """The counts of all that was opened before: they come in order, so that one of ours is waited for."""
        last = self._folder / f".{uuid.uuid4().hex}"
        last.touch()
        while str(last) not in self.counts:
            time.sleep(0.01)
        last.unlink()
        with self._lock:  # others may open something just now
            del self.counts[str(last)]
            return Counter(self.counts)

    def __enter__(self) -> Opened:
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """The thread waits for what never comes, and ends with the process."""
