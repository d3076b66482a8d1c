"""One run at a time over a folder, on any storage: a claim with its owner, its machine and its expiry.

Who wants a folder writes a claim of its own beside the others' and then lists all of them. A storage that lists what
was written before the listing began (local disks do, and S3) shows at least one of two contenders the claim of the
other, so that never both go on. No conditional write is needed, which some S3 servers ignore without a word. A claim is
renewed while its run lives. It ends with the run, when its process is gone from the machine that made it, or by its
expiry.

How old a claim is tells the storage, which has written down when it got it and when it got the contender's own: the
machines' clocks may be wrong.
"""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.errors import HeldError, UserError

PREFIX = ".lock-"
"""How the names of the claims to a folder begin, which lie in it."""

EXPIRES = 180.0
"""Seconds after its last renewal, by the storage's clock, from which a claim counts no more."""

RENEW = 20.0
"""Seconds between renewals."""

ATTEMPTS = 5
"""Of contenders that came at the same moment, and all stepped back."""

_held: dict[str, int] = {}
"""Folders that this process holds, and how often: a comparison holds what its cells ask for again."""

_lost: set[str] = set()
"""Folders of these that another run took for abandoned."""


@dataclass(frozen=True)
class Claim:
    """Who works on a folder."""

    owner: str
    machine: str
    place: str
    """Machine, its boot and its process namespace: within one place a process number tells whether a run lives."""

    pid: int
    began: str
    """When the process started, in the machine's own units: process numbers are used again."""

    since: str
    renewed: float
    """Seconds since the epoch, by the clock of its machine."""

    def alive(self, age: float) -> bool:
        """Whether its run may still be at work.

        Args:
            age: seconds since it was renewed.
        """
        if self.place == _place():
            return _began(self.pid) == self.began
        return age < EXPIRES

    def words(self, age: float) -> str:
        """Who it is, for a message; until when it is good by the clock of the reader."""
        until = datetime.fromtimestamp(time.time() - age + EXPIRES, UTC).isoformat(timespec="seconds")
        who = f"{self.owner} on {self.machine} (process {self.pid}) since {self.since}"
        return f"{who}, renewed {max(0.0, age):.0f} s ago and good until {until}"


def mine() -> tuple[list[str], str]:
    """The folders that this process holds, and how it is named where it holds them."""
    claim = _mine()
    return sorted(folder for folder, many in _held.items() if many), f"{claim.owner} on {claim.machine}"


def _mine() -> Claim:
    pid, now = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        owner = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as containers have
        owner = f"user {os.getuid()}"
    return Claim(owner, socket.gethostname(), _place(), pid, _began(pid) or "", now, time.time())


def _place() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _began(pid: int) -> str | None:
    """When a process of this machine started; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except OSError:
        return None
    else:
        return None if fields[0] == "Z" else fields[19]  # a zombie works no more
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


@contextmanager
def held(folders: list[str], settings: Storage) -> Iterator[None]:
    """Hold some folders for as long as the body runs.

    Args:
        folders: as the run names them, resolved.
        settings: how they are opened.

    Raises:
        HeldError: another run works on one of them, and who that is.
        UserError: one of them cannot be written.
    """
    with ExitStack() as stack:
        for folder in sorted(set(folders)):
            if not _held.get(folder):
                stack.enter_context(_claimed(folder, settings))
            _held[folder] = _held.get(folder, 0) + 1
            stack.callback(_let_go, folder)
        yield


def _let_go(folder: str) -> None:
    _held[folder] -= 1


@contextmanager
def _claimed(folder: str, settings: Storage) -> Iterator[None]:
    path = storage.join(folder, f"{PREFIX}{uuid.uuid4().hex}.json")
    claim = _claim(folder, path, settings)
    end = threading.Event()

    def renew() -> None:
        last = _awake()
        while not end.wait(RENEW):
            with suppress(UserError, OSError):  # the next one may go through
                begun = _awake()
                late = begun - last > EXPIRES - RENEW
                there = storage.exists(path, settings)
                if there:
                    _write(path, claim, settings)
                    last = begun
                # Who took a late one over may have cleared it away before it was written again.
                if not there or (late and _others(folder, path, settings)):
                    _lost.add(folder)
                    return

    thread = threading.Thread(target=renew, daemon=True, name=f"lock of {folder}")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        _lost.discard(folder)
        _withdraw(path, settings)


def check() -> None:
    """Make sure that what this process holds is still its own: a laptop may have slept until its claims expired.

    Raises:
        HeldError: another run has taken a folder over.
    """
    for folder in sorted(_lost):
        raise HeldError(
            f"{folder} was taken over by another run, since this one was not heard of for {EXPIRES:.0f} s. What is "
            "done is kept: wait for the other run, then run again."
        )


def _awake() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _claim(folder: str, path: str, settings: Storage) -> Claim:
    """Claim a folder.

    Raises:
        HeldError: it is held.
    """
    mine = _mine()
    for left in reversed(range(ATTEMPTS)):
        _write(path, mine, settings)
        others = _others(folder, path, settings)
        if not others:
            return mine
        _withdraw(path, settings)
        if not left or min(other.since for other, _ in others) < mine.since:
            oldest, age = others[0]
            raise HeldError(
                f"{folder} is in use: {oldest.words(age)}. Wait for it to end, or give this run another `out` (and "
                f"`selection`, where it has one). A claim whose machine is gone ends {EXPIRES:.0f} s after its renewal."
            )
        time.sleep(random.uniform(0.05, 0.5))  # both came at once, and both step back
    raise AssertionError("unreachable")


def _others(folder: str, path: str, settings: Storage) -> list[tuple[Claim, float]]:
    """Claims of other runs that count, the oldest first, and the seconds since each was renewed; those that do not
    count are cleared away.

    Args:
        path: the claim of this run, just written.
    """
    found = []
    times = storage.list_times(folder, settings)
    now = times.get(path.rpartition("/")[2])
    for name, written in sorted(times.items()):
        other = storage.join(folder, name)
        if other == path or not name.startswith(PREFIX):
            continue
        try:
            claim = Claim(**json.loads(storage.read_bytes(other, settings)))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError):  # not ours, or of another version
            continue
        age = time.time() - claim.renewed
        if now is not None and written is not None:
            age = (now - written) / 1e9
        if claim.alive(age):
            found.append((claim, age))
        else:
            storage.delete_tree(other, settings)
    return sorted(found, key=lambda one: one[0].since)


def _write(path: str, claim: Claim, settings: Storage) -> None:
    fresh = asdict(claim) | {"renewed": time.time()}
    storage.write_bytes(path, json.dumps(fresh, indent=1).encode(), settings)


def _withdraw(path: str, settings: Storage) -> None:
    with suppress(UserError, OSError):
        storage.delete_tree(path, settings)
