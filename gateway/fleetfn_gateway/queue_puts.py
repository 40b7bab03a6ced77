"""Arrivals become rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleetfn.errors import StoreError
from fleetfn_triggers.inbox import Arrival

from fleetfn_gateway import queue_lookups, queue_rows
from fleetfn_gateway.queue_lookups import Known
from fleetfn_gateway.queue_rows import New
from fleetfn_gateway.queue_schema import BEHIND, DEAD, HEAD
from fleetfn_gateway.queue_transaction import Transaction

UNREADABLE = "unreadable"


class Put(NamedTuple):
    """One call: arrivals with their encoded events."""

    arrivals: Sequence[Arrival]
    events: Sequence[bytes]
    notes: Mapping[str, bytes]


def put(transaction: Transaction, calls: Sequence[Put]) -> list[list[int] | StoreError]:
    refusal = transaction.refusal
    taken = [call for call in calls if refusal is None or not call.arrivals]
    batch = _Batch(transaction, [arrival for call in taken for arrival in call.arrivals])
    results: list[list[int] | StoreError] = [
        [batch.put(*item) for item in zip(call.arrivals, call.events, strict=True)]
        if refusal is None or not call.arrivals
        else refusal
        for call in calls
    ]
    queue_rows.insert(transaction.connection, batch.rows, batch.events)
    notes = [pair for call in taken for pair in call.notes.items()]
    if notes:
        transaction.connection.executemany("INSERT OR REPLACE INTO note (name, value) VALUES (?, ?)", notes)
    return results


class _Batch:
    def __init__(self, transaction: Transaction, arrivals: Sequence[Arrival]) -> None:
        self._transaction = transaction
        self.rows: list[New] = []
        self.events: list[bytes] = []
        named = {(each.function, each.trigger) for each in arrivals}
        self._triggers = {each: transaction.trigger(*each) for each in named}
        sources = {source for each in arrivals if (source := self._source(each)) is not None}
        self._known = queue_lookups.known_sources(transaction.connection, sources)
        lanes = {lane for each in arrivals if not each.problem and (lane := self._lane(each)) is not None}
        self._occupied = queue_lookups.occupied(transaction.connection, lanes)

    def _source(self, arrival: Arrival) -> tuple[int, str] | None:
        if arrival.source is None:
            return None
        return self._triggers[arrival.function, arrival.trigger], queue_rows.ARRIVED + arrival.source

    def _lane(self, arrival: Arrival) -> tuple[int, str] | None:
        return None if arrival.key is None else (self._triggers[arrival.function, arrival.trigger], arrival.key)

    def put(self, arrival: Arrival, event: bytes) -> int:
        source = self._source(arrival)
        known = None if source is None else self._known.get(source)
        if known is not None:
            return known.sequence
        sequence = self._transaction.fresh()
        state = DEAD if arrival.problem else self._state(self._lane(arrival))
        self.rows.append(
            New(
                sequence=sequence,
                trigger=self._triggers[arrival.function, arrival.trigger],
                key=arrival.key,
                state=state,
                due=None,
                attempts=0,
                created=self._transaction.now,
                source=None if source is None else source[1],
                raw=arrival.raw,
                reason=UNREADABLE if arrival.problem else "",
                letter=queue_rows.encode_problem(arrival.problem) if arrival.problem else None,
            )
        )
        self.events.append(event)
        if source is not None:
            self._known[source] = Known(sequence, state)
        return sequence

    def _state(self, lane: tuple[int, str] | None) -> int:
        if lane is None:
            return HEAD
        if lane in self._occupied:
            return BEHIND
        self._occupied.add(lane)
        return HEAD
