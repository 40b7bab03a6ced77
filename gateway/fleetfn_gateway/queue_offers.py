"""Offers: events that their workers would rather not run now join their lanes, or are free to be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fleetfn.errors import StoreError
from fleetfn_triggers.inbox import Answer, Offer

from fleetfn_gateway import queue_lookups, queue_rows
from fleetfn_gateway import queue_many as many
from fleetfn_gateway.queue_lookups import Known
from fleetfn_gateway.queue_positions import Positions
from fleetfn_gateway.queue_rows import New
from fleetfn_gateway.queue_schema import BEHIND, DEAD, HEAD
from fleetfn_gateway.queue_transaction import Transaction


class Offering(NamedTuple):
    """One call: offers with their encoded events."""

    offers: Sequence[Offer]
    events: Sequence[bytes]


def offer(transaction: Transaction, calls: Sequence[Offering]) -> list[list[Answer] | StoreError]:
    batch = _Batch(transaction, [each for call in calls for each in call.offers])
    results: list[list[Answer] | StoreError] = []
    for call in calls:
        if transaction.refusal is not None and any(batch.wants_a_row(each) for each in call.offers):
            results.append(transaction.refusal)
        else:
            results.append([batch.offer(*item) for item in zip(call.offers, call.events, strict=True)])
    batch.write()
    return results


class _Batch:
    """Sees what it has taken itself before it is written."""

    def __init__(self, transaction: Transaction, offers: Sequence[Offer]) -> None:
        self._transaction = transaction
        self._positions = Positions(transaction, offers)
        lanes = {lane for each in offers if (lane := self._lane(each)) is not None}
        self._occupied = queue_lookups.occupied(transaction.connection, lanes)
        self._rows: list[New] = []
        self._events: list[bytes] = []
        self._changed: dict[int, tuple[int, float | None]] = {}

    def _lane(self, offer: Offer) -> tuple[int, str] | None:
        return None if offer.key is None else (self._positions.trigger(offer), offer.key)

    def wants_a_row(self, offer: Offer) -> bool:
        wanted = offer.due is not None or self._lane(offer) in self._occupied
        return wanted and not self._is_stale(offer) and self._positions.known(offer) is None

    def _is_stale(self, offer: Offer) -> bool:
        place = self._positions.place(offer)
        return offer.epoch > 0 and place is not None and offer.epoch < place.epoch

    def offer(self, offer: Offer, event: bytes) -> Answer:
        if self._is_stale(offer):
            return "stale"
        known = self._positions.known(offer)
        if known is not None:
            self._change(known, offer)
            return "queued"
        if not self.wants_a_row(offer):
            return "free"
        self._insert(offer, event)
        return "queued"

    def _change(self, known: Known, offer: Offer) -> None:
        """Only the worker that a row was pushed to has run it since: what is pulled again knows no better."""
        if known.state is not None and known.state < DEAD and offer.epoch == 0:
            self._changed[known.sequence] = (offer.attempts, offer.due)

    def _insert(self, offer: Offer, event: bytes) -> None:
        lane = self._lane(offer)
        state = BEHIND if lane in self._occupied else HEAD
        if lane is not None:
            self._occupied.add(lane)
        sequence = self._transaction.fresh()
        place = self._positions.place(offer)
        self._rows.append(
            New(
                sequence=sequence,
                trigger=self._positions.trigger(offer),
                key=offer.key,
                state=state,
                due=offer.due,
                attempts=offer.attempts,
                created=self._transaction.now,
                place=None if place is None else place.id,
                offset=self._positions.offset(offer),
                source=self._positions.source(offer),
            )
        )
        self._events.append(event)
        self._positions.keep(offer, Known(sequence, state))

    def write(self) -> None:
        connection = self._transaction.connection
        queue_rows.insert(connection, self._rows, self._events)
        if self._changed:
            changed = [[sequence, *fields] for sequence, fields in self._changed.items()]
            connection.execute(_CHANGE, (many.as_json(changed),))


_CHANGE = """
    UPDATE row SET attempts = json_extract(value, '$[1]'), due = json_extract(value, '$[2]')
    FROM json_each(?) WHERE sequence = json_extract(value, '$[0]') AND state < 2
"""
