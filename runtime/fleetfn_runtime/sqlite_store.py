"""The Store on one SQLite file, which several processes may share.

A batch of conditional writes is one statement: it does all its work, fsync included, in one call that lets go of the
interpreter's lock. Row by row the writer thread would have to win the lock back from a busy event loop for each row
(measured: 64 rows 123 ms so, 7 ms in one statement). The statement writes all rows or, when a single etag does not
hold, none; only then the batch is looked at key by key.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from fleetfn.errors import RecordError, StoreError
from fleetfn.invocation import Emit
from fleetfn.position import Marks
from fleetfn.store import Conflict, Loaded, Page, Record, Saved, Write
from fleetfn_plumbing.group_commit import BATCH, GroupCommit
from fleetfn_plumbing.sqlite_file import Schema, SqliteFile

_T = TypeVar("_T")

# A table with rowids: as fast as WITHOUT ROWID for values of 250 bytes, half the cost for 2 KB (measured), and the
# sweep walks rowids instead of paying for an index on `expires` with every write.
SCHEMA = Schema(
    what="the state file",
    mark=0x466E5374,
    version=1,
    script="""
    CREATE TABLE record (
        key TEXT NOT NULL PRIMARY KEY,
        etag INTEGER NOT NULL,
        value BLOB,
        expires REAL,
        rest BLOB,
        unsent INTEGER NOT NULL
    );
    CREATE INDEX record_unsent ON record (key) WHERE unsent = 1
    """,
)

CHUNK = 500
"""Placeholders of one read."""

SWEEP_ROWS = 1000
"""Rows that one step of the sweep looks at, and no more often than every `SWEEP_PAUSE` seconds."""

SWEEP_PAUSE = 1.0

EMPTY_KEPT = 3600.0
"""Seconds that a row which holds nothing any more stays, for those who still know its etag."""


class _Rest(msgspec.Struct, frozen=True, array_like=True):
    """What a record holds beside its value."""

    marks: Marks
    unsent: tuple[Emit, ...]


class _Row(NamedTuple):
    """The columns of one write, in the statement's order; `old`: the etag that must be stored, None: no record."""

    key: str
    etag: int
    old: int | None
    value: bytes | None
    expires: float | None
    rest: bytes | None
    unsent: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Rest).decode

_NO_MARKS = Marks()
_UNKNOWN = -1
"""An etag that no row has."""


class SqliteStore:
    """See the port, `fleetfn.store.Store`. The constructor opens the file (milliseconds; an fsync for a new one)."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = SqliteFile(path, SCHEMA)
        # Reads stay on the loop's thread: 64 rows take 180 us, a hop to a thread and back alone 50 us and more when
        # the interpreter's lock is wanted elsewhere.
        self._reader = self._file.connect(reading=True)
        self._etags = itertools.count(secrets.randbits(62))  # two processes never meet on the same numbers
        self._swept_to = 0
        self._next_sweep = 0.0
        self.commits: GroupCommit[_Row, bool] = GroupCommit(self._commit, name=f"commits of {path.name}")

    @classmethod
    async def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> SqliteStore:
        """Open without holding up the loop."""
        return await asyncio.to_thread(cls, path, clock=clock)

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        found: dict[str, Loaded] = {}
        with self._file.errors("read"):
            self._file.check()
            for chunk in _chunks(_checked(keys), CHUNK):
                for row in self._reader.execute(_select(_size(len(chunk))), _filled(chunk)):
                    found[row[0]] = self._loaded(*row)
        return [found.get(key, _ABSENT) for key in keys]

    def _loaded(self, key: str, etag: int, value: bytes | None, expires: float | None, rest: bytes | None) -> Loaded:
        if value is None or (expires is not None and expires <= self._clock()):
            value = expires = None
        if rest is None:
            return Loaded(Record(value, _NO_MARKS, (), expires), str(etag))
        try:
            held = _decode(rest)
        except msgspec.MsgspecError as error:
            raise RecordError(
                f"the record of key {key!r} in {str(self._file.path)!r} cannot be read: {error}",
                key=key,
                hint="the file is damaged, or a newer FleetFn wrote it: put it back from a backup",
            ) from error
        return Loaded(Record(value, held.marks, held.unsent, expires), str(etag))

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        if not writes:
            return []
        rows = [self._row(write) for write in writes]
        done = await self.commits.submit(rows)
        return [Saved(str(row.etag)) if ok else _CONFLICT for row, ok in zip(rows, done, strict=True)]

    def _row(self, write: Write) -> _Row:
        record = write.record
        old = None
        if write.etag is not None:
            old = int(write.etag) if write.etag.isdecimal() else _UNKNOWN
        try:
            rest = None
            if record.unsent or record.marks != _NO_MARKS:
                rest = _encode(_Rest(record.marks, record.unsent))
            if not write.key.isascii():
                write.key.encode()
        except UnicodeEncodeError as error:
            raise RecordError(
                f"the record of key {write.key!r} cannot be written: {error}",
                key=write.key,
                hint="keys and the attributes of emitted events must be Unicode text, without lone surrogates",
            ) from error
        expires = record.expires
        if record.value is None:
            expires = self._clock() + EMPTY_KEPT if rest is None else None
        return _Row(write.key, next(self._etags), old, record.value, expires, rest, 1 if record.unsent else 0)

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:
        live = "value IS NOT NULL AND (expires IS NULL OR expires > ?)"
        return await asyncio.to_thread(self._page, live, (self._clock(),), after, limit)

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return await asyncio.to_thread(self._page, "unsent = 1", (), after, limit)

    def _page(self, which: str, values: tuple[object, ...], after: str | None, limit: int) -> Page:
        beyond = "" if after is None else "AND key > ?"
        query = f"SELECT key FROM record WHERE {which} {beyond} ORDER BY key LIMIT ?"  # noqa: S608 - fixed words
        place = () if after is None else (after,)
        with self._file.scan() as connection:
            found = tuple(key for (key,) in connection.execute(query, (*values, *place, limit + 1)))
        keys = found[:limit]
        return Page(keys, keys[-1] if len(found) > limit else None)

    async def close(self) -> None:
        """Commit what was submitted, then close the file."""
        await self.commits.close()
        self._reader.close()
        self._file.close()

    # What follows runs on the writer's thread.

    def _commit(self, rows: Sequence[_Row]) -> list[bool]:
        with self._file.errors("written"):
            self._file.check()
            if len(rows) <= BATCH and _differ(rows) and _write(self._file.writer, rows):
                done = [True] * len(rows)
            else:
                with self._file.transaction() as connection:
                    done = _write_what_holds(connection, rows)
            self._file.check()
        self._sweep()
        return done

    def _sweep(self) -> None:
        """Drop expired values, a bounded step now and then; reads take them for absent long before."""
        now = self._clock()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_PAUSE
        with contextlib.suppress(sqlite3.Error):  # the batch is saved, and a step that failed is tried again next round
            end = self._swept_to + SWEEP_ROWS
            step = {"start": self._swept_to, "end": end, "now": now}
            if self._file.writer.execute(_DUE, step).fetchone() != (0,):
                with self._file.transaction() as connection:
                    connection.execute(_DROP_EMPTY, step)
                    connection.execute(_EXPIRE, step)
            (last,) = self._file.writer.execute("SELECT ifnull(max(rowid), 0) FROM record").fetchone()
            self._swept_to = 0 if end >= last else end


_ABSENT = Loaded(Record(), None)
_CONFLICT = Conflict()
_PADDING = (None,) * len(_Row._fields)

_RANGE = "rowid > :start AND rowid <= :end"
_DUE = f"SELECT count(*) FROM record WHERE {_RANGE} AND expires <= :now"  # noqa: S608 - fixed words
_DROP_EMPTY = f"DELETE FROM record WHERE {_RANGE} AND expires <= :now AND value IS NULL"  # noqa: S608 - fixed words
_EXPIRE = f"""
    UPDATE record SET value = NULL, expires = CASE WHEN rest IS NULL THEN :now + {EMPTY_KEPT} END
    WHERE {_RANGE} AND expires <= :now
"""  # noqa: S608 - fixed words


def _differ(rows: Sequence[_Row]) -> bool:
    return len({row.key for row in rows}) == len(rows)


def _write(connection: sqlite3.Connection, rows: Sequence[_Row]) -> bool:
    """Write all rows, whose keys differ, or none: whether it was all."""
    size = _size(len(rows))
    values = itertools.chain(*rows, *itertools.repeat(_PADDING, size - len(rows)), (len(rows),))
    return connection.execute(_upsert(size), tuple(values)).rowcount == len(rows)


def _write_what_holds(connection: sqlite3.Connection, rows: Sequence[_Row]) -> list[bool]:
    """Write the rows whose etag holds, in one transaction of the caller's; which ones they were."""
    done = [False] * len(rows)
    for places in _rounds(rows):
        chunk = [rows[place] for place in places]
        query = _select(_size(len(chunk)), "key, etag")
        etags: dict[str, int] = dict(connection.execute(query, _filled([row.key for row in chunk])).fetchall())
        held = [place for place in places if etags.get(rows[place].key) == rows[place].old]
        if held and not _write(connection, [rows[place] for place in held]):
            raise StoreError("the state file changed within a transaction", hint="check the file system's locking")
        for place in held:
            done[place] = True
    return done


def _rounds(rows: Sequence[_Row]) -> Iterator[list[int]]:
    """Places of rows, in rounds of at most `CHUNK` different keys."""
    left = list(range(len(rows)))
    while left:
        taken: dict[str, int] = {}
        later = []
        for place in left:
            key = rows[place].key
            if len(taken) < CHUNK and key not in taken:
                taken[key] = place
            else:
                later.append(place)
        yield list(taken.values())
        left = later


@functools.cache
def _upsert(size: int) -> str:
    """The one statement: all rows if every stored etag is the old one (NULL: no record), else none."""
    rows = ",".join(["(?,?,?,?,?,?,?)"] * size)
    return f"""
        INSERT INTO record (key, etag, value, expires, rest, unsent)
        WITH asked (key, etag, old, value, expires, rest, unsent) AS MATERIALIZED (VALUES {rows})
        SELECT key, etag, value, expires, rest, unsent FROM asked
        WHERE key IS NOT NULL AND ? = (
            SELECT count(*) FROM asked LEFT JOIN record ON record.key = asked.key
            WHERE asked.key IS NOT NULL AND record.etag IS asked.old
        )
        ON CONFLICT (key) DO UPDATE SET
            etag = excluded.etag, value = excluded.value, expires = excluded.expires,
            rest = excluded.rest, unsent = excluded.unsent
    """  # noqa: S608 - placeholders only


@functools.cache
def _select(size: int, columns: str = "key, etag, value, expires, rest") -> str:
    return f"SELECT {columns} FROM record WHERE key IN ({','.join('?' * size)})"  # noqa: S608 - placeholders only


def _checked(keys: Sequence[str]) -> Sequence[str]:
    """Raises RecordError for one that SQLite cannot take."""
    for key in keys:
        if not key.isascii():
            try:
                key.encode()
            except UnicodeEncodeError as error:
                raise RecordError(
                    f"there is no record of key {key!r}: {error}",
                    key=key,
                    hint="keys must be Unicode text, without lone surrogates",
                ) from error
    return keys


def _size(count: int) -> int:
    """The next power of two, so that few statements are ever prepared."""
    return 1 << (count - 1).bit_length()


def _filled(keys: Sequence[str]) -> list[str]:
    """Keys up to the statement's size; repeats in an IN list find nothing new."""
    return [*keys, *itertools.repeat(keys[0], _size(len(keys)) - len(keys))]


def _chunks(items: Sequence[_T], size: int) -> Iterable[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
