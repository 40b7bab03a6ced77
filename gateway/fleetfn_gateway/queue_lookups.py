"""What the file knows of lanes, positions and sources, asked for many at once (queue_many.py)."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from fleetfn_triggers.inbox import REMEMBER

from fleetfn_gateway import queue_many as many


class Known(NamedTuple):
    """What has a position or a source. `state` None: the row is gone."""

    sequence: int
    state: int | None


_OCCUPIED = """
    WITH asked (n, t, k) AS (VALUES {asked})
    SELECT json_group_array(n) FROM asked
    WHERE EXISTS (SELECT 1 FROM row INDEXED BY row_lane WHERE trigger = t AND key = k AND state != 2)
"""
_PLACES = """
    WITH asked (n, p, o) AS (VALUES {asked})
    SELECT json_group_array(json_array(n, sequence, state)) FROM (
        SELECT n, sequence, state FROM asked JOIN row INDEXED BY row_place
        ON place = p AND offset = o AND place IS NOT NULL
        UNION ALL SELECT n, sequence, NULL FROM asked JOIN past ON past.place = p AND past.offset = o
        JOIN place ON place.id = p AND o >= passed
    )
"""
_SOURCES = """
    WITH asked (n, t, s) AS (VALUES {asked})
    SELECT json_group_array(json_array(n, sequence, state)) FROM (
        SELECT n, sequence, state FROM asked JOIN row INDEXED BY row_source
        ON trigger = t AND source = s AND source IS NOT NULL
        UNION ALL SELECT n, sequence, NULL FROM asked JOIN past_source ON trigger = t AND source = s
        WHERE gone >= (SELECT now FROM file) - {remember}
    )
"""
_SEQUENCES = """
    SELECT json_group_array(json_array(sequence, trigger, state))
    FROM row WHERE sequence IN (SELECT value FROM json_each(?))
"""


def occupied(connection: sqlite3.Connection, lanes: Collection[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those lanes (trigger, key) in which anything waits, or a dead letter parks."""
    places = list(lanes)
    return {places[n] for n in _ask(connection, _OCCUPIED, places)}


def known_places(connection: sqlite3.Connection, places: Collection[tuple[int, int]]) -> dict[tuple[int, int], Known]:
    """By (place, offset)."""
    asked = list(places)
    return {asked[n]: Known(sequence, state) for n, sequence, state in _ask(connection, _PLACES, asked)}


def known_sources(connection: sqlite3.Connection, sources: Collection[tuple[int, str]]) -> dict[tuple[int, str], Known]:
    """By (trigger, source)."""
    asked = list(sources)
    return {asked[n]: Known(sequence, state) for n, sequence, state in _ask(connection, _SOURCES, asked)}


def known_sequences(connection: sqlite3.Connection, asked: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Known]:
    """By (trigger, sequence): rows that are there."""
    pairs = set(asked)
    (found,) = connection.execute(_SEQUENCES, (many.as_json([sequence for _, sequence in pairs]),)).fetchone()
    rows = msgspec.json.decode(found)
    return {(trigger, sequence): Known(sequence, state) for sequence, trigger, state in rows}


def _ask(connection: sqlite3.Connection, query: str, asked: Sequence[tuple[int, Any]]) -> list[Any]:
    found: list[Any] = []
    for start in range(0, len(asked), many.CHUNK):
        part = asked[start : start + many.CHUNK]
        size = many.size(len(part))
        numbered = itertools.chain(*((start + n, *pair) for n, pair in enumerate(part)))
        padding = itertools.repeat(None, 3 * (size - len(part)))
        (text,) = connection.execute(_filled(query, size), (*numbered, *padding)).fetchone()
        found += msgspec.json.decode(text)
    return found


@functools.cache
def _filled(query: str, size: int) -> str:
    return query.format(asked=many.placeholders(size, 3), remember=REMEMBER)
