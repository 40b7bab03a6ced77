"""Reads a function's log while it is written and rotated: what `fn logs` shows."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from fleetfn.errors import UsageError

from fleetfn_runtime.log_file import KEPT, aside
from fleetfn_runtime.logs import LEVELS, timestamp

POLL = 0.2
"""Seconds between looks at a log that is followed."""

CHUNK = 256 * 1024
"""Bytes read before the loop gets its turn."""


class _Head(msgspec.Struct):
    """What lines are chosen by."""

    time: str = ""
    level: str = "info"
    key_hash: str | None = None


_head = msgspec.json.Decoder(_Head).decode


class Choice:
    """Which lines are wanted. Raw lines (from C code, a child process) go with the JSON line before them."""

    def __init__(self, *, since: float | None = None, level: str | None = None, key_hash: str | None = None) -> None:
        """`since`: Unix seconds; `level`: this one and the graver ones; `key_hash`: as `logs.key_hash` makes it."""
        if level is not None and level.lower() not in LEVELS:
            raise UsageError(f"there is no log level {level!r}", hint=f"one of {', '.join(LEVELS)}")
        self._since = "" if since is None else timestamp(since)
        self._levels = None if level is None else frozenset(LEVELS[LEVELS.index(level.lower()) :])
        self._key_hash = key_hash
        self._before = since is None and level is None and key_hash is None
        self._all = self._before

    def wants(self, line: bytes) -> bool:
        if self._all:
            return True
        try:
            head = _head(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self._before
        self._before = (
            head.time >= self._since
            and (self._levels is None or head.level in self._levels)
            and (self._key_hash is None or head.key_hash == self._key_hash)
        )
        return self._before


async def read_log(
    path: Path,
    *,
    since: float | None = None,
    level: str | None = None,
    key_hash: str | None = None,
    follow: bool = False,
    wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncIterator[bytes]:
    """Lines without their ends, oldest first, files set aside included; with `follow` it never ends.

    A log that does not exist yet has no lines. Raises UsageError for an unknown level.
    """
    choice = Choice(since=since, level=level, key_hash=key_hash)
    tail = _Tail(path, since=since, patient=follow)
    try:
        while True:
            read = tail.read()
            for line in read or ():
                if choice.wants(line):
                    yield line
            if read is not None:
                await asyncio.sleep(0)
            elif follow:
                await wait(POLL)
            else:
                break
        if (line := tail.rest()) and choice.wants(line):
            yield line
    finally:
        tail.close()


class _Tail:
    """Whole lines of the files set aside, of the file written to, and of those that follow it.

    `patient`: a file that was set aside is looked at once more before the next one is read, since another process
    may just have been writing into it.
    """

    def __init__(self, path: Path, *, since: float | None, patient: bool) -> None:
        self._path = path
        self._patient = patient
        self._once_more = False
        self._part = b""
        self._inode = 0
        """Of the newest file opened."""
        self._fds: deque[int] = deque()
        self._open_new(since)

    def read(self) -> list[bytes] | None:
        """The next lines; None: there are none now."""
        while True:
            if self._fds and (data := os.read(self._fds[0], CHUNK)):
                *lines, self._part = (self._part + data).split(b"\n")
                return [line for line in lines if line]
            if len(self._fds) <= 1:
                first = not self._fds
                if not self._open_new(None):
                    return None
                if first:
                    continue
                self._once_more = self._patient
            if self._once_more:
                self._once_more = False
                return None
            os.close(self._fds.popleft())

    def rest(self) -> bytes:
        """A last line without an end."""
        return self._part

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _open_new(self, since: float | None) -> bool:
        """Open what is newer than the newest file opened, if anything is.

        From the newest back, so that a rotation meanwhile hides none.
        """
        found: dict[int, int] = {}
        for number in range(KEPT + 1):
            try:
                fd = os.open(aside(self._path, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            about = os.fstat(fd)
            if about.st_ino == self._inode:
                os.close(fd)
                break
            if about.st_ino in found or (since is not None and number and about.st_mtime < since):
                os.close(fd)
            else:
                found[about.st_ino] = fd
        if found:
            self._inode = next(iter(found))
            self._fds.extend(reversed(found.values()))
        return bool(found)
