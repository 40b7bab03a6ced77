"""How many rows of each trigger wait, are held or dead. Counters are kept with the rows, in the same commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from fleetfn_spec.gateway import TriggerRows

from fleetfn_gateway.queue_heads import Heads
from fleetfn_gateway.queue_names import Names


def counts(
    reader: sqlite3.Connection, names: Names, heads: Heads, clock: Callable[[], float]
) -> dict[str, dict[str, TriggerRows]]:
    """By function, by trigger; those without any row are left out."""
    found: dict[str, dict[str, TriggerRows]] = {}
    for number, waiting, dead, parks in reader.execute(_COUNTERS).fetchall():
        function, trigger = names.trigger(number)
        parked = _count(reader, _PARKED, number, clock()) if parks else 0
        found.setdefault(function, {})[trigger] = TriggerRows(
            waiting=waiting,
            held=(_count(reader, _LATER, number, clock()) if waiting else 0) + parked,
            parked=parked,
            in_flight=heads.in_flight(number),
            dead=dead,
            oldest=_oldest(reader, number) if waiting else None,
            next_due=heads.next_time(number) if waiting else None,
        )
    return found


def _count(reader: sqlite3.Connection, query: str, trigger: int, now: float) -> int:
    (count,) = reader.execute(query, {"trigger": trigger, "now": now}).fetchone()
    return int(count)


def _oldest(reader: sqlite3.Connection, trigger: int) -> float | None:
    (oldest,) = reader.execute(_OLDEST, {"trigger": trigger}).fetchone()
    return None if oldest is None else float(oldest)


_COUNTERS = "SELECT id, waiting, dead, parked FROM trigger_rows WHERE waiting > 0 OR dead > 0"

# Keys whose lane waits for a time to come, and behind a dead letter.
_LATER = """
    SELECT count(*) FROM row INDEXED BY row_head
    WHERE trigger = :trigger AND state = 1 AND due > :now AND key IS NOT NULL
"""
_PARKED = "SELECT count(DISTINCT key) FROM row INDEXED BY row_parked WHERE trigger = :trigger AND state = 3"

# The oldest is first in its lane: at once, at a time, or behind a letter that parks.
_OLDEST = """
    SELECT min(created) FROM row WHERE sequence IN (
        (SELECT sequence FROM row INDEXED BY row_head WHERE trigger = :trigger AND state = 1 AND due IS NULL
         ORDER BY sequence LIMIT 1),
        (SELECT min(sequence) FROM row INDEXED BY row_head WHERE trigger = :trigger AND state = 1 AND due IS NOT NULL),
        (SELECT min((SELECT min(sequence) FROM row AS behind INDEXED BY row_lane WHERE behind.trigger = :trigger
                     AND behind.key = letter.key AND behind.sequence > letter.sequence
                     AND behind.state != 2 AND behind.state != 3))
         FROM row AS letter INDEXED BY row_parked WHERE letter.trigger = :trigger AND letter.state = 3)
    )
"""
