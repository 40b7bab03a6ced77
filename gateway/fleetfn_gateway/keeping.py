"""One gateway per data folder: a lock that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from fleetfn.errors import UsageError

WAIT = 10.0
"""Seconds for a gateway that is just ending: longer than it gives its last pushes (gateway.GRACE)."""

_LOOK = 0.02


class TakenError(UsageError):
    """Another gateway holds the data folder."""


class Keeping:
    """Holds the folder, made where it is missing, until it is left or the process ends."""

    def __init__(self, data: Path, *, wait: float = WAIT) -> None:
        """Raises TakenError, which names who holds it, after `wait` seconds."""
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + wait
        while not _locked(self._descriptor):
            if time.monotonic() >= end:
                pid = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(self._descriptor)
                raise TakenError(
                    f"a gateway runs on the data folder {str(data)!r} already (pid {pid})",
                    hint="stop it first, or choose another data folder",
                )
            time.sleep(_LOOK)  # nothing else runs yet, and nobody tells when a lock is free
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
