"""What is done to processes, and whose they were."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence

import psutil

from soak.pace import Pace

STOPPED = 1.0
"""Seconds that a stopped process stands still."""


def kill(processes: Sequence[psutil.Process]) -> str:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    return _names(processes)


def stand_still(processes: Sequence[psutil.Process], pace: Pace, seconds: float = STOPPED) -> str:
    for each in processes:
        each.send_signal(signal.SIGSTOP)
    pace.rest(seconds)
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGCONT)
    return _names(processes)


def _names(processes: Sequence[psutil.Process]) -> str:
    return ", ".join(str(each.pid) for each in processes) or "nobody was there"


def await_(what: str, seconds: float, is_so: Callable[[], bool]) -> None:
    """Raises RuntimeError."""
    limit = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > limit:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
