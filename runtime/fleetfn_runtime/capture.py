"""Prints of handlers, line by line, each with the invocation that printed it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from fleetfn.context import Context, current

PATIENCE = 1.0
"""Seconds that a line without an end waits for the rest of it."""

UNFINISHED = 64
"""Lines without an end that are kept; beyond that the oldest is told as it is."""

LONGEST = 16 * 1024
"""Characters of a line; a longer one is told in pieces."""

Printed = Callable[[str, str, Context | None], None]
"""(stream, line, invocation)."""


class _Part(NamedTuple):
    text: str
    context: Context | None
    since: float


class Capture(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr. Threads and tasks may print at the same time: each fills its own line."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, stream: str, fd: int, printed: Printed, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._stream = stream
        self._fd = fd
        self._printed = printed
        self._clock = clock
        self._lock = threading.RLock()
        self._parts: dict[tuple[int, str | None], _Part] = {}
        self.buffer = io.FileIO(fd, "w", closefd=False)
        """Bytes written here go to the log as they are."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """So that a child process may inherit it; what that writes are raw lines."""
        return self._fd

    def write(self, text: str) -> int:
        context = current.get()
        who = (threading.get_ident(), None if context is None else context.invocation)
        with self._lock:
            part = self._parts.pop(who, None)
            *lines, rest = ((part.text if part is not None else "") + text).split("\n")
            while len(rest) > LONGEST:
                lines.append(rest[:LONGEST])
                rest = rest[LONGEST:]
            for line in lines:
                self._tell(line, context)
            if rest:
                self._parts[who] = _Part(rest, context, self._clock() if part is None or lines else part.since)
            if self._parts:
                self._tell_old()
        return len(text)

    def flush(self) -> None:
        """Tell what this thread or task has printed of a line; outside of invocations (at the end), what all have."""
        context = current.get()
        if context is None:
            self.finish()
            return
        with self._lock:
            part = self._parts.pop((threading.get_ident(), context.invocation), None)
            if part is not None:
                self._tell(part.text, part.context)

    def finish(self) -> None:
        """Tell all that is left."""
        with self._lock:
            while self._parts:
                self._tell_oldest()

    def _tell_old(self) -> None:
        limit = self._clock() - PATIENCE
        while self._parts and (len(self._parts) > UNFINISHED or next(iter(self._parts.values())).since < limit):
            self._tell_oldest()

    def _tell_oldest(self) -> None:
        part = self._parts.pop(next(iter(self._parts)))
        self._tell(part.text, part.context)

    def _tell(self, line: str, context: Context | None) -> None:
        if line.strip():
            self._printed(self._stream, line.rstrip("\r"), context)
