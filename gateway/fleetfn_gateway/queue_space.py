"""How much the inbox may hold: its quota, and what must stay free on the disk."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from fleetfn.errors import StoreError

MARGIN = 64 * 1024 * 1024
"""Bytes that stay free on the disk, or within the file, so that what is in the inbox can still be worked off."""

LOG = 24 * 1024 * 1024
"""Of these, bytes that stay free on the disk itself: SQLite's log, which is emptied every 16 MiB (sqlite_file.py)."""

_PAGES = """
    SELECT (page_count - freelist_count) * page_size, freelist_count * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""


class FullError(StoreError):
    """The inbox takes no new rows now; what it has is worked off all the same."""


def free_on_disk(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Space:
    """`used`: bytes of the file without its freed pages, which SQLite fills again, and of its log."""

    def __init__(self, path: Path, quota: int, free: Callable[[Path], int] = free_on_disk) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._free = free
        self.quota = quota
        self.used = 0
        self._spare = 0
        """Bytes of freed pages: the file does not shrink, so the disk does not get them back."""

    def measure(self, connection: sqlite3.Connection) -> None:
        """On the writer's thread, outside of a transaction."""
        with contextlib.suppress(sqlite3.Error):  # what was committed is safe; the next commit measures again
            pages, self._spare = connection.execute(_PAGES).fetchone()
            if pages <= self.quota < pages + self._log_size():
                # The log stays as long as it ever was until it is emptied.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.used = pages + self._log_size()

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def refusal(self) -> FullError | None:
        """Why there may be no new rows now."""
        if self.used > self.quota:
            return FullError(
                f"the inbox {str(self._path)!r} holds {_size(self.used)}, over its quota of {_size(self.quota)}",
                hint="let its functions work off what waits, discard dead letters, or raise the quota",
            )
        free = self._free(self._path.parent)
        if free < LOG or free + self._spare < MARGIN:
            return FullError(
                f"the disk of the inbox {str(self._path)!r} has {_size(free)} free, less than {_size(MARGIN)}",
                hint=f"free some space on the disk of {str(self._path.parent)!r}: the inbox goes on by itself then",
            )
        return None


def _size(count: int) -> str:
    return f"{count / 1024 / 1024:.1f} MiB"
