"""Places: locks by number, all in one file, by which the workers of a function share what only one may have at a time.

A worker's slot is one, a partition of a trigger's topic another. The kernel frees all that a process has, in one step,
when it ends by whatever means: whoever gets a dead worker's partition can get its slot, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

_FLOCK = struct.Struct("hhqqi4x")
"""The kernel's struct flock: type, whence, start, length, pid."""

_PARTITIONS = 2**20
"""Numbers that a trigger has for its partitions; those below the first trigger's are slots, and the one for `alone`."""

_ALONE = _PARTITIONS - 1


def of_partition(trigger: str, partition: int) -> int:
    return (zlib.crc32(trigger.encode()) + 1) * _PARTITIONS + partition


class Places:
    """From any thread. Locks belong to this object: a second one in the same process has none of them."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._one_thread = threading.Lock()

    def take(self, place: int) -> bool:
        """False: somebody else has it. Taking what one has is no change."""
        try:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, place)
        except BlockingIOError:
            return False
        return True

    def is_taken(self, place: int) -> bool:
        """By somebody else."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        answer = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def free(self, place: int) -> None:
        self._lock(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, place)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other worker of the function does anything in here meanwhile: for what takes milliseconds."""
        with self._one_thread:
            self._lock(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, _ALONE)
            try:
                yield
            finally:
                self.free(_ALONE)

    def close(self) -> None:
        os.close(self._file)

    def _lock(self, command: int, kind: int, place: int) -> None:
        fcntl.fcntl(self._file, command, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))
