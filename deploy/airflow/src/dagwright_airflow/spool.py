"""Events on disk until the daemon has taken them: a bounded folder that the processes of one machine share.

An event is one file, put there whole by a rename. File names sort by time, and hold the size, so that one listing tells
order, count and bytes. Where the folder is full the oldest events go, and are counted: a byte each in the file
`dropped`, as appending needs no lock. Only who holds the lock file takes events out. Nothing is synced: a machine that
loses power may lose events, as it may lose the tasks they tell of. This module needs nothing of Airflow.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT_BYTES_MAX = 64 * 1024

# An hour of a busy Airflow, and what one listing goes through in milliseconds.
EVENTS_MAX = 10_000
BYTES_MAX = 64 * 1024 * 1024

# How many events a process adds before it looks again whether there is room.
_PUTS_UNTIL_LOOK_MAX = 64

# A pause is never longer, whatever the file says or the clock did.
PAUSE_SECONDS_MAX = 3600.0

# What a process that was killed between creating and renaming left.
_ABANDONED_SECONDS = 600.0

_NAME = re.compile(r"(?P<at>\d{20})-\d{1,10}-\d{1,10}-(?P<size>\d{1,10})\.json")
_DROPPED = re.compile(r"dropped-(?P<at>\d{1,20})")


@dataclass(frozen=True)
class Entry:
    """An event in the spool."""

    path: Path
    size: int


@dataclass(frozen=True)
class Pause:
    """Until when nobody tries the daemon."""

    # Seconds since the epoch: processes share it.
    until: float
    failures: int


class Spool:
    """The folder."""

    def __init__(self, folder: Path, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Use a folder; it is made, for its user alone, when the first event comes."""
        self.folder = folder
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._named = threading.Lock()
        self._last = 0
        self._sequence = 0
        self._puts_until_look = 0

    def put(self, event: bytes) -> None:
        """Add an event; the oldest ones go where there is no room.

        Raises:
            OSError: the folder cannot be written to.
            ValueError: the event is larger than any.

        """
        if len(event) > EVENT_BYTES_MAX:
            raise ValueError(f"an event of {len(event)} bytes")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = self._name(len(event))
        temporary = self.folder / f".{name}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(event)
            temporary.rename(self.folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._bound()

    def entries(self) -> list[Entry]:
        """Return the events, the oldest first."""
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names alone, as there may be thousands
        except FileNotFoundError:
            return []
        matches = (_NAME.fullmatch(name) for name in names)
        return [Entry(self.folder / named[0], int(named["size"])) for named in matches if named]

    def read(self, entry: Entry) -> bytes | None:
        """Return an event, or None where it went in the meantime."""
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            return file.read(EVENT_BYTES_MAX + 1)

    def remove(self, entry: Entry) -> None:
        """Forget an event that was taken."""
        entry.path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the right to take events out, for as long as the block lasts; tells whether it was to be had."""
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # No folder: nothing was ever put.
            yield False
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                self._remove_abandoned()
                yield True
        finally:
            # Ends the lock, unless a process was forked meanwhile: then it ends with the last of them.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    # === what was dropped ===

    def dropped(self) -> list[tuple[str, int]]:
        """Return what was dropped and not yet reported, as names and counts; needs the lock.

        A name stays with its count until `forget_dropped`, so that a report can be repeated.
        """
        with suppress(FileNotFoundError):
            (self.folder / "dropped").rename(self.folder / f"dropped-{time.time_ns()}")
        with suppress(FileNotFoundError):
            names = sorted(name for name in os.listdir(self.folder) if _DROPPED.fullmatch(name))  # noqa: PTH208
            sizes = [(name, (self.folder / name).stat().st_size) for name in names]
            return [(name, size) for name, size in sizes if size]
        return []

    def forget_dropped(self, name: str) -> None:
        """Forget a count that was reported."""
        (self.folder / name).unlink(missing_ok=True)

    # === pauses ===

    def pause(self) -> Pause:
        """Return until when nobody tries the daemon."""
        try:
            said = json.loads((self.folder / "pause").read_bytes()[:1000])
            until, failures = float(said["until"]), int(said["failures"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return Pause(0.0, 0)
        if not until <= time.time() + PAUSE_SECONDS_MAX:
            until = 0.0
        return Pause(until, max(0, min(failures, 1000)))

    def set_pause(self, pause: Pause | None) -> None:
        """Say until when nobody tries the daemon, or that everybody may; needs the lock."""
        path = self.folder / "pause"
        if pause is None:
            path.unlink(missing_ok=True)
            return
        temporary = self.folder / ".pause.tmp"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            json.dump({"until": pause.until, "failures": pause.failures}, file)
        temporary.rename(path)

    # === inside ===

    def _name(self, size: int) -> str:
        with self._named:
            # Later than the one before, even where the clock was set back or is coarse.
            self._last = max(self._last + 1, time.time_ns())
            self._sequence += 1
            return f"{self._last:020d}-{os.getpid()}-{self._sequence}-{size}.json"

    def _bound(self) -> None:
        """Drop what is too much, a twentieth of the room at a time.

        Not looked at each time, as a listing of a full spool takes milliseconds: so there may be a few more.
        """
        self._puts_until_look -= 1
        if self._puts_until_look > 0:
            return
        count, size = self._count()
        if count > self._events_max or size > self._bytes_max:
            count, size = self._drop(count, size)
        room = min(self._events_max - count, (self._bytes_max - size) // EVENT_BYTES_MAX)
        self._puts_until_look = min(room // 8, _PUTS_UNTIL_LOOK_MAX)

    def _count(self) -> tuple[int, int]:
        """Return how many events there are, and their bytes; from their names alone."""
        sizes = [
            int(name[:-5].rpartition("-")[2])
            for name in os.listdir(self.folder)  # noqa: PTH208
            if name.endswith(".json") and name[:20].isdecimal() and _NAME.fullmatch(name)
        ]
        return len(sizes), sum(sizes)

    def _drop(self, count: int, size: int) -> tuple[int, int]:
        """Drop the oldest events; returns how many there are then, and their bytes."""
        count_wanted = self._events_max - self._events_max // 20
        size_wanted = self._bytes_max - self._bytes_max // 20
        dropped = 0
        try:
            for entry in self.entries():
                if count <= count_wanted and size <= size_wanted:
                    break
                with suppress(FileNotFoundError):  # It was sent, or dropped by another process, which counted it.
                    entry.path.unlink()
                    dropped += 1
                count, size = count - 1, size - entry.size
        finally:
            if dropped:
                self._count_dropped(dropped)
        return count, size

    def _count_dropped(self, dropped: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self.folder / "dropped", flags, 0o600)
        try:
            os.write(descriptor, b"." * dropped)
        finally:
            os.close(descriptor)

    def _remove_abandoned(self) -> None:
        before = time.time() - _ABANDONED_SECONDS
        for name in os.listdir(self.folder):  # noqa: PTH208
            if name.startswith(".") and name.endswith(".tmp"):
                with suppress(FileNotFoundError):
                    path = self.folder / name
                    if path.lstat().st_mtime < before:
                        path.unlink()
