"""owner.lock: who owns the sources of a function. The kernel frees the lock even on kill -9.

The only worker of a function has it for itself. Several workers share it, and each has its slot for itself (a place in
slots.lock): so those that share and one that does not never own at the same time, whatever revision says how many.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path

from fleetfn_runtime.places import Places

log = logging.getLogger("fleetfn.worker")

LOOK = 0.01
"""Seconds between tries: a redeploy's pause is as long as this."""

PATIENCE = 10.0
"""Seconds after which waiting is worth a line in the log, each time."""


class Ownership:
    def __init__(self, path: Path, slot: int | None = None) -> None:
        """`path`: of owner.lock. `slot`: which of several workers it is; None: it is the only one."""
        self._path = path
        self._slot = slot
        self._fd: int | None = None
        self.places: Places | None = None
        """Those of the function's workers, once it owns one; None for the only worker."""

    async def take(self) -> None:
        """Returns once no other worker owns the function, or the slot. Cancel it to stop waiting."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        places = None
        try:
            await self._until(lambda: _lock(fd, fcntl.LOCK_EX if self._slot is None else fcntl.LOCK_SH))
            if self._slot is not None:
                places = await self._take_slot(self._slot)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self.places = fd, places

    async def _take_slot(self, slot: int) -> Places:
        places = Places(self._path.with_name("slots.lock"))
        try:
            await self._until(lambda: places.take(slot))
        except BaseException:
            places.close()
            raise
        return places

    async def _until(self, taken: Callable[[], bool]) -> None:
        waited = 0.0
        while not taken():
            await asyncio.sleep(LOOK)
            if int((waited + LOOK) / PATIENCE) > int(waited / PATIENCE):
                log.warning("another worker has owned the function for %d s (%s)", waited, self._path)
            waited += LOOK

    def release(self) -> None:
        if self.places is not None:
            self.places.close()
            self.places = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
