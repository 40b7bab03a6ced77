"""A process watched by pidfd: a worker (whose parent is a warm parent) or a warm parent.

So a worker's end is noticed also when its warm parent died before it and nobody tells the exit status.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

_STATUS_WAIT = 5.0
"""Seconds to wait, after a process is gone, for whoever reaps it to tell its exit status, while that one lives."""


class Process:
    """`exited` ends with the exit code (minus the signal's number), or None where nobody knows it."""

    def __init__(self, pid: int, reap: Callable[[], int | None] | None = None) -> None:
        """`reap`: asks a child of the node for its status; None where another process reaps it and reports."""
        self.pid = pid
        self._reap = reap
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._gone()
        else:
            self._loop.add_reader(self._descriptor, self._gone)

    def report(self, status: int | None) -> None:
        """By whoever reaped it."""
        if not self.exited.done():
            self.exited.set_result(status)
        self._close()

    def forsake(self) -> None:
        """Whoever was to reap it is gone: nobody will tell."""
        if self._reap is None:
            self._reap = _unknown
            if self._descriptor is None:
                self.report(None)

    def kill(self) -> None:
        """Kill -9, of this very process: a pidfd never means another one that took the number."""
        if self._descriptor is not None:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def rss(self) -> int:
        """Bytes it holds in memory; 0 when it is gone."""
        return rss(self.pid)

    def cpu(self) -> float:
        """Processor seconds it has used; 0.0 when it is gone."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError):
            return 0.0

    def _gone(self) -> None:
        self._close()
        if self._reap is not None:
            self.report(self._reap())
        else:
            self._loop.call_later(_STATUS_WAIT, self.report, None)

    def _close(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def _unknown() -> None:
    return None


def rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError):
        return 0
