"""The function's log file: whole lines appended by several processes, rotated by size.

Each line is one write with O_APPEND, so lines of different processes never mix. File descriptors 1 and 2 lead here,
too: what C code writes to them becomes raw lines between the JSON ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

LINE_LIMIT = 64 * 1024
"""Bytes of one line, its end included."""

SIZE = 16 * 1024 * 1024
"""Bytes at which the file is set aside as `<name>.1`, and that one as `<name>.2`."""

KEPT = 2
"""Files set aside."""


class LogFile:
    """Never raises once it is open: a full disk must not stop a handler. Lines lost are counted and told later."""

    def __init__(self, path: Path, *, size: int = SIZE, take_over: tuple[int, ...] = ()) -> None:
        """`take_over`: descriptors that shall lead to the file. Raises OSError."""
        self._path = path
        self._size = size
        self._take_over = take_over
        self._lock = threading.Lock()
        self._fd = -1
        self._inode = 0
        self._torn = False
        self.lost = 0
        """Lines that could not be written."""
        self._open()

    def write(self, line: bytes) -> None:
        """`line` without its end, at most `LINE_LIMIT` - 1 bytes."""
        with self._lock:
            try:
                self._look()
                start = b"\n" if self._torn else b""
                written = os.write(self._fd, start + line + b"\n")
                self._torn = written < len(start) + len(line) + 1
            except OSError:
                self.lost += 1

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            os.close(self._fd)

    def _open(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for taken in self._take_over:
            os.dup2(fd, taken)
        old, self._fd = self._fd, fd
        self._inode = os.fstat(fd).st_ino
        if old >= 0:
            os.close(old)

    def _look(self) -> None:
        """Follow a rotation by another process; rotate when it is time."""
        try:
            now = os.stat(self._path)  # noqa: PTH116 - Path.stat costs twice as much, and this runs per line
        except FileNotFoundError:
            self._open()
            return
        if now.st_ino != self._inode:
            self._open()
        elif now.st_size >= self._size:
            self._rotate()

    def _rotate(self) -> None:
        """Under a lock of the folder, so that two processes do not both set the file aside."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if self._path.stat().st_ino == self._inode:
                for number in range(KEPT, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        aside(self._path, number - 1).rename(aside(self._path, number))
            self._open()
        finally:
            os.close(folder)


def aside(path: Path, number: int) -> Path:
    """`log.jsonl` (0, the one written to), `log.jsonl.1`, `log.jsonl.2`, the oldest."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")
