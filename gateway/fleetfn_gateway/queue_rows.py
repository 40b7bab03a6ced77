"""Rows of the queue between Python and SQL: encoding, inserting and reading them back."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.invocation import Failure
from fleetfn.position import At, Named, Position
from fleetfn_plumbing.plain_text import plain, plain_all
from fleetfn_triggers.inbox import Arrival, Letter, Offer, Row

from fleetfn_gateway import queue_many as many
from fleetfn_gateway.queue_names import Names
from fleetfn_gateway.queue_schema import DEAD

NAMED = "named:"
ARRIVED = "arrived:"
"""What a row's `source` begins with: a caller's own id that is its position, or the source of an arrival."""


class New(NamedTuple):
    """A row to insert, in the order of its columns."""

    sequence: int
    trigger: int
    key: str | None
    state: int
    due: float | None
    attempts: int
    created: float
    place: int | None = None
    offset: int | None = None
    source: str | None = None
    raw: bool = False
    reason: str = ""
    letter: bytes | None = None


class _Letter(msgspec.Struct, frozen=True, array_like=True):
    """What a dead letter has beside its columns."""

    revision: str
    detail: str
    failure: Failure | None


_encode = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(Event[bytes | None]).decode
_decode_letter = msgspec.msgpack.Decoder(_Letter).decode
_NO_LETTER = _Letter("", "", None)

_COLUMNS = "sequence, trigger, key, state, due, attempts, created, place, offset, source, raw, reason, letter"


def encode_event(event: Event[bytes | None]) -> bytes:
    return _bytes(event)


def encode_letter(letter: Letter) -> bytes:
    return _bytes(_Letter(letter.revision, letter.detail, letter.failure))


def encode_problem(problem: str) -> bytes:
    """For what never became a run."""
    return _bytes(_Letter("", problem, None))


def plain_key(key: str | None) -> str | None:
    return None if key is None else plain(key)


Keyed = TypeVar("Keyed", Arrival, Offer, Letter)


def plain_keyed(item: Keyed) -> Keyed:
    """SQLite takes no lone surrogates."""
    if item.key is None or item.key.isascii():
        return item
    return msgspec.structs.replace(item, key=plain(item.key))


def _bytes(value: Any) -> bytes:
    """Nothing may be lost for a lone surrogate in some text."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(plain_all(msgspec.to_builtins(value, builtin_types=(bytes, datetime))))


def insert(connection: sqlite3.Connection, rows: Sequence[New], events: Sequence[bytes]) -> None:
    width = len(New._fields)
    for start in range(0, len(rows), many.CHUNK):
        part = rows[start : start + many.CHUNK]
        size = many.size(len(part))
        columns = itertools.chain(*part, itertools.repeat(None, width * (size - len(part))))
        connection.execute(_insert("row", _COLUMNS, size), tuple(columns))
        pairs = ((row.sequence, event) for row, event in zip(part, events[start : start + many.CHUNK], strict=True))
        bodies = itertools.chain(*pairs, itertools.repeat(None, 2 * (size - len(part))))
        connection.execute(_insert("body", "sequence, event", size), tuple(bodies))


@functools.cache
def _insert(table: str, columns: str, size: int) -> str:
    """Of `size` rows, a power of two, so that few statements are ever prepared; those beyond are NULL."""
    asked = many.placeholders(size, columns.count(",") + 1)
    return f"""
        INSERT INTO {table} ({columns}) WITH asked ({columns}) AS (VALUES {asked})
        SELECT {columns} FROM asked WHERE sequence IS NOT NULL
    """  # noqa: S608 - placeholders only


READ = f"""
    SELECT {", ".join(f"row.{name.strip()}" for name in _COLUMNS.split(","))}, event,
    CASE WHEN state = 3 THEN (
        SELECT count(*) FROM row AS later INDEXED BY row_lane WHERE later.trigger = row.trigger AND later.key = row.key
        AND later.sequence > row.sequence AND later.state != 2 AND later.state != 3
    ) ELSE 0 END
    FROM row JOIN body USING (sequence) WHERE sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence
"""  # noqa: S608 - fixed words


def fitting(connection: sqlite3.Connection, sequences: Sequence[int], size: int) -> int:
    """How many of the first of them have events of so many bytes together; at least one."""
    sizes = connection.execute(_SIZES, (many.as_json(sequences),)).fetchall()
    totals = itertools.accumulate(length for (length,) in sizes)
    return max(1, sum(1 for total in totals if total <= size))


_SIZES = """
    SELECT length(event) FROM body WHERE sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence
"""


def read(connection: sqlite3.Connection, names: Names, sequences: Iterable[int]) -> list[Row]:
    """Those of the rows that are there, in order of sequence. Raises StoreError for one that cannot be read."""
    rows = []
    for _, row in read_each(connection, names, sequences):
        if isinstance(row, StoreError):
            raise row
        rows.append(row)
    return rows


def waiting(connection: sqlite3.Connection, names: Names, triggers: Sequence[int], limit: int) -> list[Row]:
    """Rows of these triggers that are not dead, in order of sequence; without those that cannot be read."""
    query = """
        SELECT sequence FROM row WHERE trigger IN (SELECT value FROM json_each(?)) AND state < 2
        ORDER BY sequence LIMIT ?
    """
    found = connection.execute(query, (many.as_json(triggers), limit)).fetchall()
    rows = read_each(connection, names, [sequence for (sequence,) in found])
    return [row for _, row in rows if isinstance(row, Row)]


def read_each(
    connection: sqlite3.Connection, names: Names, sequences: Iterable[int]
) -> list[tuple[int, Row | StoreError]]:
    """The same, with the error in its place."""
    found = connection.execute(READ, (many.as_json(sequences),)).fetchall()
    return [(columns[0], _row(names, columns)) for columns in found]


def _row(names: Names, columns: Sequence[Any]) -> Row | StoreError:
    new, event, parked = New(*columns[:-2]), columns[-2], columns[-1]
    try:
        letter = _NO_LETTER if new.letter is None else _decode_letter(new.letter)
        decoded = _decode_event(event)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return StoreError(
            f"row {new.sequence} of the inbox cannot be read: {error}",
            hint="the file is damaged, or a newer FleetFn wrote it",
        )
    function, trigger = names.trigger(new.trigger)
    return Row(
        sequence=new.sequence,
        function=function,
        trigger=trigger,
        key=new.key,
        event=decoded,
        position=_position(names, new),
        attempts=new.attempts,
        due=new.due,
        status="dead" if new.state >= DEAD else "waiting",
        created=new.created,
        raw=bool(new.raw),
        revision=letter.revision,
        reason=new.reason,
        detail=letter.detail,
        failure=letter.failure,
        parked=parked,
    )


def _position(names: Names, row: New) -> Position:
    if row.place is not None and row.offset is not None:
        place = names.place(row.place)
        return At(place.stream, place.partition, row.offset)
    if row.source is not None and row.source.startswith(NAMED):
        return Named(row.source.removeprefix(NAMED))
    return At(names.stream, 0, row.sequence)
