"""The node's log is set aside when it is large.

Everybody whom the node starts has it open, too, and appends to it. So it is copied and then emptied in place; what is
written in the moment between the two is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger("fleetfn.node")

SIZE = 10 * 1024 * 1024
"""Bytes at which `node.log` is set aside as `node.log.1`, and that one as `node.log.2`."""

KEPT = 2
"""Logs set aside."""


class NodeLog:
    """`descriptor`: where this process' own lines go. Where that is another file, somebody else looks after it."""

    def __init__(self, path: Path, *, descriptor: int = 2, size: int = SIZE) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = size

    def look(self) -> None:
        """To be called now and then, on any thread."""
        try:
            if self._is_large():
                self._set_aside()
        except OSError as error:
            log.warning("%s cannot be set aside: %s", self._path, error)

    def _is_large(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return there.st_size >= self._size and os.path.samestat(there, os.fstat(self._descriptor))

    def _set_aside(self) -> None:
        for number in range(KEPT, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                self._aside(number - 1).rename(self._aside(number))
        new = self._aside(0)
        with self._path.open("r+b") as old, open(new, "wb", opener=_private) as copy:
            shutil.copyfileobj(old, copy)
            old.truncate(0)
        new.rename(self._aside(1))

    def _aside(self, number: int) -> Path:
        """0: the copy while it is made."""
        return self._path.with_name(f"{self._path.name}.{number or 'new'}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
