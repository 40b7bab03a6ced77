"""Dead letters for people: which there are, redriving, discarding, retention."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any

import msgspec
from fleetfn_triggers.inbox import Rows, Which

from fleetfn_gateway import queue_many as many
from fleetfn_gateway import queue_rows
from fleetfn_gateway.queue_names import Names
from fleetfn_gateway.queue_rows import NAMED
from fleetfn_gateway.queue_transaction import Transaction

PAGE_BYTES = 32 * 1024 * 1024
"""Events of one page, but for a first letter."""

STEP = 1000
"""Rows of one commit, so that nobody else waits long."""

CREDIBLE = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""A letter that says it is older was buried before a machine without a battery knew the time: how old it is nobody can
tell, so it counts from when that is noticed.
"""


def page(connection: sqlite3.Connection, names: Names, which: Which, after: int | None, limit: int) -> Rows:
    """As many as were asked for, or fewer where their events are large."""
    found = matching(connection, names, which, after=after or 0, limit=limit + 1)
    fits = min(limit, queue_rows.fitting(connection, found, PAGE_BYTES))
    rows = queue_rows.read(connection, names, found[:fits])
    return Rows(tuple(rows), found[fits - 1] if len(found) > fits else None)


def count(connection: sqlite3.Connection, names: Names, which: Which) -> int:
    conditions, values = _conditions(names, which)
    query = f"""
        SELECT count(*) FROM row INDEXED BY row_dead
        WHERE state >= 2 {"".join(f" AND {condition}" for condition in conditions)}
    """  # noqa: S608 - fixed words
    (found,) = connection.execute(query, values).fetchone()
    return int(found)


def triggers(connection: sqlite3.Connection, names: Names, which: Which) -> set[tuple[str, str]]:
    """Functions and triggers that they are of."""
    conditions, values = _conditions(names, which)
    query = f"""
        SELECT DISTINCT trigger FROM row INDEXED BY row_dead
        WHERE state >= 2 {"".join(f" AND {condition}" for condition in conditions)}
    """  # noqa: S608 - fixed words
    return {names.trigger(number) for (number,) in connection.execute(query, values).fetchall()}


def matching(
    connection: sqlite3.Connection, names: Names, which: Which, *, after: int, limit: int, last: int | None = None
) -> list[int]:
    """Their sequences, in order. `last`: none beyond."""
    conditions, values = _conditions(names, which)
    if last is not None:
        conditions.append("sequence <= :last")
    query = f"""
        SELECT json_group_array(sequence) FROM (
            SELECT sequence FROM row INDEXED BY row_dead
            WHERE state >= 2 AND sequence > :after {"".join(f" AND {condition}" for condition in conditions)}
            ORDER BY sequence LIMIT :limit
        )
    """  # noqa: S608 - fixed words
    given = {**values, "after": after, "limit": limit, "last": last}
    (found,) = connection.execute(query, given).fetchone()
    return msgspec.json.decode(found, type=list[int])


def _conditions(names: Names, which: Which) -> tuple[list[str], dict[str, Any]]:
    conditions, values = [], dict[str, Any]()
    if which.function is not None or which.trigger is not None:
        conditions.append("trigger IN (SELECT value FROM json_each(:triggers))")
        values["triggers"] = many.as_json(names.matching(which.function, which.trigger))
    if which.key is not None:
        conditions.append("key = :key")
        values["key"] = queue_rows.plain_key(which.key)
    if which.reason is not None:
        conditions.append("reason = :reason")
        values["reason"] = which.reason
    if which.before is not None:
        conditions.append("created < :before")
        values["before"] = which.before
    if which.sequences:
        conditions.append("sequence IN (SELECT value FROM json_each(:sequences))")
        values["sequences"] = many.as_json(which.sequences)
    return conditions, values


def redrive(transaction: Transaction, which: Which, after: int, last: int, limit: int) -> list[int]:
    """One step: the sequences that the letters had."""
    connection = transaction.connection
    found = matching(connection, transaction.names, which, after=after, limit=limit, last=last)
    (parked,) = connection.execute(_WHICH_PARK, (many.as_json(found),)).fetchone()
    connection.execute(_RISE, (parked,))
    stays = set(msgspec.json.decode(parked, type=list[int]))
    moves = [[sequence, transaction.fresh()] for sequence in found if sequence not in stays]
    if moves:
        given = many.as_json(moves)
        connection.execute(_REMEMBER, (given,))
        connection.execute(_REMEMBER_NAMED, (given, f"{NAMED}*"))
        connection.execute(_MOVE, {"moves": given, "now": transaction.now, "named": f"{NAMED}*"})
        connection.execute(_MOVE_BODY, (given,))
    return found


_WHICH_PARK = """
    SELECT json_group_array(sequence) FROM row
    WHERE sequence IN (SELECT value FROM json_each(?)) AND state = 3
"""

# Triggers make it the head of its lane where it is the first.
_RISE = """
    UPDATE row SET state = 0, attempts = 0, due = NULL, reason = '', letter = NULL
    WHERE sequence IN (SELECT value FROM json_each(?)) AND state = 3
"""
_REMEMBER = """
    INSERT OR REPLACE INTO past (place, offset, sequence)
    SELECT place.id, offset, sequence FROM json_each(?)
    JOIN row ON sequence = json_extract(value, '$[0]') JOIN place ON place.id = row.place
    WHERE offset >= passed
"""
_REMEMBER_NAMED = """
    INSERT OR REPLACE INTO past_source (trigger, source, sequence, gone)
    SELECT trigger, source, sequence, now FROM json_each(?), file
    JOIN row ON sequence = json_extract(value, '$[0]') WHERE source GLOB ?
"""
_MOVE = """
    WITH moves (old, new) AS (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:moves))
    UPDATE row SET sequence = new, state = iif(key IS NULL, 1, 0), created = :now,
        offset = NULL, source = iif(source GLOB :named, NULL, source), attempts = 0, due = NULL, reason = '',
        letter = NULL
    FROM moves WHERE sequence = old AND state = 2
"""
_MOVE_BODY = """
    UPDATE body SET sequence = json_extract(value, '$[1]')
    FROM json_each(?) WHERE sequence = json_extract(value, '$[0]')
"""


def discard(transaction: Transaction, which: Which, after: int, last: int, limit: int) -> list[int]:
    """One step: the sequences that the letters had."""
    found = matching(transaction.connection, transaction.names, which, after=after, limit=limit, last=last)
    query = "DELETE FROM row WHERE sequence IN (SELECT value FROM json_each(?)) AND state >= 2"
    transaction.connection.execute(query, (many.as_json(found),))
    return found


def expire(transaction: Transaction, before: float) -> int:
    """One step: drop letters buried before that Unix time. Those that park wait for people."""
    connection = transaction.connection
    earliest = 0.0
    if transaction.now >= CREDIBLE:
        earliest = CREDIBLE
        connection.execute(_DATE_ANEW, (transaction.now, CREDIBLE, STEP))
    query = """
        DELETE FROM row WHERE sequence IN (
            SELECT sequence FROM row INDEXED BY row_dead_age WHERE state = 2 AND created >= ? AND created < ? LIMIT ?
        )
    """
    return connection.execute(query, (earliest, before, STEP)).rowcount


_DATE_ANEW = """
    UPDATE row SET created = ? WHERE sequence IN (
        SELECT sequence FROM row INDEXED BY row_dead_age WHERE state = 2 AND created < ? LIMIT ?
    )
"""
