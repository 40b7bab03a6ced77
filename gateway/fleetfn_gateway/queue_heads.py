"""Which rows may be delivered: heads of lanes that are due, and neither in flight nor put off; and with them rows that
are next in their lanes.

What is in flight is kept in memory alone: after a restart nothing is.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from fleetfn.errors import StoreError
from fleetfn_triggers.inbox import Row

from fleetfn_gateway import queue_many as many
from fleetfn_gateway import queue_rows
from fleetfn_gateway.queue_names import Names
from fleetfn_gateway.queue_schema import BEHIND

log = logging.getLogger("fleetfn.gateway")

COUNT_LIMIT = 1000
"""Rows that `ready` counts to: nobody asks for more of them at once."""

LANE = 32
"""Rows of one lane that are taken together: so many run in a row at a worker, and are saved together."""

LANE_BYTES = 256 * 1024
"""Bytes of their events, but for the first one's."""


class _Flight(NamedTuple):
    trigger: int
    key: str | None


class _Later(NamedTuple):
    """`after`: seconds, told at `until - after`. A clock that jumps back must not make them longer."""

    trigger: int
    until: float
    after: float


class _Head(NamedTuple):
    sequence: int
    key: str | None
    since: float
    size: int


class _Next(NamedTuple):
    """A row in the lane of a head, behind it."""

    head: int
    sequence: int
    state: int
    due: float | None
    size: int


UNREADABLE = 60.0
"""Seconds before a row is looked at again that could not be read: the file is damaged, the other rows go on."""


class Heads:
    """Used on the loop; reads what is committed by a connection of its own."""

    def __init__(self, reader: sqlite3.Connection, names: Names, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._names = names
        self._clock = clock
        self._flying: dict[int, _Flight] = {}
        self._lanes: dict[_Flight, int] = {}
        """Rows in flight of each lane."""
        self._in_flight: dict[int, int] = {}
        self._later: dict[int, _Later] = {}
        self._turn = 0

    def in_flight(self, trigger: int) -> int:
        return self._in_flight.get(trigger, 0)

    def owner(self, sequence: int) -> str | None:
        """The function of a row in flight."""
        flight = self._flying.get(sequence)
        return None if flight is None else self._names.trigger(flight.trigger)[0]

    def count(self, triggers: Iterable[int]) -> int:
        """How many rows may be taken now, as far as `COUNT_LIMIT`."""
        found = 0
        for trigger in triggers:
            found += len(self._free(trigger, COUNT_LIMIT - found))
            if found >= COUNT_LIMIT:
                break
        return found

    def take(self, triggers: Collection[int], rows: int, size: int, behind: int = 0) -> list[Row]:
        """Up to `rows` heads, each followed by rows that are next in its lane, `behind` of them in all. In flight from
        now on. `size`: bytes of events at most, but for a first row.
        """
        picked = self._pick(triggers, rows)
        nexts = self._next([head.sequence for _, head in picked], behind // len(picked)) if picked and behind else {}
        taken: list[int] = []
        for trigger, head in picked:
            for sequence, bytes_ in ((head.sequence, head.size), *nexts.get(head.sequence, ())):
                size -= bytes_
                if taken and size < 0:
                    break
                taken.append(sequence)
                self._begin(sequence, _Flight(trigger, head.key))
        try:
            return self._read(taken)
        except BaseException:
            for sequence in taken:
                self.end(sequence)  # nobody has got them
            raise

    def _read(self, taken: Sequence[int]) -> list[Row]:
        found = dict(queue_rows.read_each(self._reader, self._names, taken))
        rows: list[Row] = []
        gaps: set[_Flight] = set()
        for sequence in taken:
            row, flight = found.get(sequence), self._flying[sequence]
            if isinstance(row, Row) and row.status == "waiting" and flight not in gaps:
                rows.append(row)
                continue
            if flight.key is not None:
                gaps.add(flight)  # what is behind it is not its lane's next
            if isinstance(row, StoreError):
                log.error("%s; %s", row.message, row.hint)
                self.end(sequence, UNREADABLE)
            else:
                self.end(sequence)  # discarded or buried this very moment, or behind one that was not taken
        return rows

    def _begin(self, sequence: int, flight: _Flight) -> None:
        self._flying[sequence] = flight
        self._later.pop(sequence, None)
        self._in_flight[flight.trigger] = self.in_flight(flight.trigger) + 1
        if flight.key is not None:
            self._lanes[flight] = self._lanes.get(flight, 0) + 1

    def end(self, sequence: int, after: float = 0.0) -> None:
        """No longer in flight; not to be taken again before `after` seconds."""
        flight = self._flying.pop(sequence, None)
        if flight is None:
            return
        self._in_flight[flight.trigger] -= 1
        if flight.key is not None:
            self._lanes[flight] -= 1
            if not self._lanes[flight]:
                del self._lanes[flight]
        if after > 0:
            self._later[sequence] = _Later(flight.trigger, self._clock() + after, after)

    def land(self, triggers: Collection[int]) -> None:
        """Nothing of these triggers is in flight, or put off, any more."""
        for sequence in [sequence for sequence, flight in self._flying.items() if flight.trigger in triggers]:
            self.end(sequence)
        for sequence in [sequence for sequence, later in self._later.items() if later.trigger in triggers]:
            del self._later[sequence]

    def next_due(self, triggers: Collection[int]) -> float | None:
        """Seconds until a row may be taken that may not now."""
        self._forget_later()
        now = self._clock()
        waits = [later.until - now for later in self._later.values() if later.trigger in triggers]
        for trigger in triggers:
            found = self._reader.execute(_NEXT_DUE, (trigger, now)).fetchone()
            if found is not None:
                waits.append(found[0] - now)
        return max(0.0, min(waits)) if waits else None

    def next_time(self, trigger: int) -> float | None:
        """Unix seconds: when the next head of that trigger is due that is not now."""
        found = self._reader.execute(_NEXT_DUE, (trigger, self._clock())).fetchone()
        return None if found is None else float(found[0])

    def _pick(self, triggers: Iterable[int], rows: int) -> list[tuple[int, _Head]]:
        """By turns from each trigger, the oldest first; who begins changes."""
        queues = [(trigger, heads) for trigger in triggers if (heads := self._oldest(trigger, rows))]
        self._turn += 1
        start = self._turn % len(queues) if queues else 0
        queues = queues[start:] + queues[:start]
        longest = max((len(heads) for _, heads in queues), default=0)
        picked = [(trigger, heads[n]) for n in range(longest) for trigger, heads in queues if n < len(heads)]
        return picked[:rows]

    def _oldest(self, trigger: int, limit: int) -> list[_Head]:
        sequences = self._free(trigger, limit)
        if not sequences:
            return []
        heads = [_Head(*head) for head in self._reader.execute(_LOOK, (many.as_json(sequences),)).fetchall()]
        heads.sort(key=lambda head: head.since)
        return heads[:limit]

    def _next(self, heads: Sequence[int], limit: int) -> dict[int, list[tuple[int, int]]]:
        """(sequence, bytes) of up to `limit` rows behind each head, as far as nothing among them has to wait."""
        found: dict[int, list[tuple[int, int]]] = {}
        left: dict[int, int] = {}
        now = self._clock()
        asked = (many.as_json(heads), min(limit, LANE - 1))
        for row in itertools.starmap(_Next, self._reader.execute(_NEXT, asked).fetchall() if limit else ()):
            waits = row.state != BEHIND or (row.due is not None and row.due > now)
            waits = waits or row.sequence in self._flying or row.sequence in self._later
            left[row.head] = left.get(row.head, LANE_BYTES) - row.size if not waits else -1
            if left[row.head] >= 0:
                found.setdefault(row.head, []).append((row.sequence, row.size))
        return found

    def _free(self, trigger: int, limit: int) -> list[int]:
        """Up to `limit` heads that are to be run at once, and as many whose time has come."""
        self._forget_later()
        beyond = limit + self.in_flight(trigger) + len(self._later)
        found = self._reader.execute(_AT_ONCE, (trigger, beyond)).fetchall()
        due = self._reader.execute(_DUE, (trigger, self._clock(), beyond)).fetchall()
        return [*self._unless_taken(trigger, found, limit), *self._unless_taken(trigger, due, limit)]

    def _unless_taken(self, trigger: int, found: Iterable[tuple[int, str | None]], limit: int) -> list[int]:
        free = [
            sequence
            for sequence, key in found
            if sequence not in self._flying and sequence not in self._later and (trigger, key) not in self._lanes
        ]
        return free[:limit]

    def _forget_later(self) -> None:
        if self._later:
            now = self._clock()
            over = [each for each, later in self._later.items() if not later.until - later.after <= now < later.until]
            for sequence in over:
                del self._later[sequence]


_AT_ONCE = """
    SELECT sequence, key FROM row INDEXED BY row_head WHERE trigger = ? AND state = 1 AND due IS NULL
    ORDER BY sequence LIMIT ?
"""
_DUE = """
    SELECT sequence, key FROM row INDEXED BY row_head WHERE trigger = ? AND state = 1 AND due <= ?
    ORDER BY due, sequence LIMIT ?
"""
_NEXT = """
    SELECT head.sequence, later.sequence, later.state, later.due, ifnull(length(event), 0)
    FROM json_each(?1) JOIN row AS head ON head.sequence = value
    JOIN row AS later ON later.sequence IN (
        SELECT sequence FROM row AS lane INDEXED BY row_lane
        WHERE lane.trigger = head.trigger AND lane.key = head.key AND lane.state != 2
        AND lane.sequence > head.sequence ORDER BY lane.sequence LIMIT ?2
    )
    LEFT JOIN body ON body.sequence = later.sequence ORDER BY head.sequence, later.sequence
"""
_NEXT_DUE = """
    SELECT due FROM row INDEXED BY row_head WHERE trigger = ? AND state = 1 AND due > ? ORDER BY due LIMIT 1
"""
_LOOK = """
    SELECT sequence, key, ifnull(due, created), length(event) FROM row JOIN body USING (sequence)
    WHERE sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence
"""
