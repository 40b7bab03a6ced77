"""Opening SQLite files that must survive kill -9 and power loss, and what their errors mean to people.

WAL with synchronous=FULL: a commit returns after the log is fsynced. Several processes may share a file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetfn.errors import StoreError

BUSY = 10.0
"""Seconds to wait for another process' commit; a commit is milliseconds."""

BUSY_READING = 1.0
"""Seconds for a reader, which stands on the loop's thread; it waits only while another process recovers the log."""

CHECKPOINT_PAGES = 4000
"""The log is copied into the file every 16 MiB (SQLite's default of 4 MiB costs a sixth of the throughput)."""


CACHE = 16 * 1024
"""KiB of pages that a writer keeps, as far as it needs them: reading them back costs a tenth of the throughput.
A reader gains nothing, since each commit of the writer empties its cache.
"""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a file holds: `mark` is its application_id, so that files are not taken for one another."""

    what: str
    mark: int
    version: int
    script: str


class SqliteFile:
    """One open SQLite file of ours: makes connections, and knows whether the file is still where it was."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self._what = schema.what
        new = not path.exists()
        if new:
            _make(path)
        self.writer = self.connect()
        try:
            with self.errors("opened"):
                _prepare(self.writer, schema, path)
                self._inode = path.stat().st_ino
                if new:
                    _sync_folder(path.parent)
        except BaseException:
            self.writer.close()
            raise

    def connect(self, *, reading: bool = False) -> sqlite3.Connection:
        pragmas = ["synchronous=FULL", f"wal_autocheckpoint={CHECKPOINT_PAGES}"]
        pragmas.append("query_only=1" if reading else f"cache_size={-CACHE}")
        with self.errors("opened"):
            connection = sqlite3.connect(
                self.path,
                timeout=BUSY_READING if reading else BUSY,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=64,
            )
            try:
                for pragma in pragmas:
                    connection.execute(f"PRAGMA {pragma}")
            except BaseException:
                connection.close()
                raise
        return connection

    @contextlib.contextmanager
    def scan(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for a long read in another thread."""
        with self.errors("read"), contextlib.closing(self.connect(reading=True)) as connection:
            self.check()
            yield connection

    def check(self) -> None:
        """SQLite goes on writing into a file that was removed or replaced: nobody would find that again."""
        try:
            inode = os.stat(self.path).st_ino  # noqa: PTH116 - Path.stat costs twice as much, and this runs per commit
        except OSError:
            inode = -1
        if inode != self._inode:
            raise StoreError(
                f"{self._what} {str(self.path)!r} was removed or replaced while in use",
                hint="put the file back from a backup or accept the loss, then restart the node",
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction on the writer's connection; whatever goes wrong, nothing of it stays."""
        self.writer.execute("BEGIN IMMEDIATE")
        try:
            yield self.writer
            self.writer.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        if self.writer.in_transaction:  # SQLite has rolled back by itself after some errors
            self.writer.execute("ROLLBACK")

    @contextlib.contextmanager
    def errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self.error(error, verb) from error

    def error(self, error: sqlite3.Error, verb: str) -> StoreError:
        return StoreError(
            f"{self._what} {str(self.path)!r} cannot be {verb}: {error}",
            hint=_hint(getattr(error, "sqlite_errorcode", 0) & 0xFF, self.path),
        )

    def close(self) -> None:
        with self.errors("closed"):
            self.writer.close()


def _make(path: Path) -> None:
    """Empty, and this user's alone, as SQLite's own files beside it will be. Not by opening it: closing it would let go
    of the locks that another thread has on it.
    """
    with contextlib.suppress(OSError):  # there by now, or impossible: then SQLite says why, with a code
        os.mknod(path, 0o600 | stat.S_IFREG)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Two processes that open a new file at once may refuse each other the switch: no busy handler runs for it."""
    limit = time.monotonic() + BUSY
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > limit:
                raise
            time.sleep(0.005)
        else:
            if mode != "wal":
                raise sqlite3.OperationalError(f"the file system does not allow journal_mode=WAL (it stays {mode!r})")
            return


def _prepare(connection: sqlite3.Connection, schema: Schema, path: Path) -> None:
    fits = _fits(connection, schema, path)
    _use_wal(connection)
    if fits:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _fits(connection, schema, path):  # another process may have been first
            for statement in _statements(schema.script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={schema.mark}")
            connection.execute(f"PRAGMA user_version={schema.version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """Not by `executescript`, which commits; a trigger has semicolons within."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


_ABOUT = """
    SELECT (SELECT application_id FROM pragma_application_id),
           (SELECT user_version FROM pragma_user_version),
           (SELECT count(*) FROM sqlite_schema)
"""


def _fits(connection: sqlite3.Connection, schema: Schema, path: Path) -> bool:
    """Whether the file holds the schema already; False: it is empty. Raises StoreError if it is something else."""
    # One statement sees one moment: another process may be creating the file.
    mark, version, tables = connection.execute(_ABOUT).fetchone()
    if mark == 0 and version == 0 and tables == 0:
        return False
    if mark != schema.mark:
        raise StoreError(f"{str(path)!r} is not {schema.what} of FleetFn", hint="name another file, or move it away")
    if version > schema.version:
        raise StoreError(
            f"{schema.what} {str(path)!r} has version {version}, and this FleetFn knows up to {schema.version}",
            hint="run the FleetFn that wrote it, or a newer one",
        )
    return True


def _hint(code: int, path: Path) -> str:
    match code:
        case sqlite3.SQLITE_FULL:
            return f"free some space on the disk of {str(path.parent)!r}: work goes on by itself then"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"make the folder {str(path.parent)!r} and the file writable for this user"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return "the file is damaged: move it away or put it back from a backup"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another process has held the file locked for too long: find it with `fuser`"
        case sqlite3.SQLITE_IOERR:
            return "look at the disk's health and free space"
        case _:
            return "see the worker's log"


def _sync_folder(folder: Path) -> None:
    """The new file's name must survive power loss, too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
