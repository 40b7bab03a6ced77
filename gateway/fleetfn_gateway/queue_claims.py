"""Partitions: who owns them, which of their keys are held, and what is forgotten once it is committed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from fleetfn_triggers.inbox import REMEMBER, Claim, Claimed

from fleetfn_gateway import queue_many as many
from fleetfn_gateway.queue_names import Place
from fleetfn_gateway.queue_transaction import Transaction

SWEEP = 1000
"""Rows that one commit forgets of each kind."""


def claim(transaction: Transaction, claim: Claim) -> Claimed:
    trigger = transaction.trigger(claim.function, claim.trigger)
    epochs = {}
    places = []
    for partition, committed in claim.partitions.items():
        place = transaction.names.at(transaction.connection, trigger, claim.stream, partition)
        place.epoch += 1
        if committed is not None:
            if committed < place.passed:  # somebody has put the group back: what comes again is to be run again
                transaction.connection.execute("DELETE FROM past WHERE place = ?", (place.id,))
            place.passed = committed
        _save(transaction, place)
        epochs[partition] = place.epoch
        places.append(place.id)
    (held,) = transaction.connection.execute(_HELD, (many.as_json(places),)).fetchone()
    return Claimed(epochs=epochs, held=msgspec.json.decode(held, type=frozenset[str]))


def passed(transaction: Transaction, function: str, trigger: str, stream: str, offsets: Mapping[int, int]) -> None:
    number = transaction.trigger(function, trigger)
    for partition, offset in offsets.items():
        place = transaction.names.at(transaction.connection, number, stream, partition)
        if offset > place.passed:
            place.passed = offset
            _save(transaction, place)


def _save(transaction: Transaction, place: Place) -> None:
    query = "UPDATE place SET epoch = ?, passed = ? WHERE id = ?"
    transaction.connection.execute(query, (place.epoch, place.passed, place.id))


_HELD = """
    SELECT json_group_array(DISTINCT key) FROM row INDEXED BY row_place
    WHERE place IN (SELECT value FROM json_each(?)) AND place IS NOT NULL AND state != 2 AND key IS NOT NULL
"""


def sweep(transaction: Transaction) -> bool:
    """Forget what nobody will ask for again, a bounded step; whether there may be more."""
    before = transaction.now - REMEMBER
    sources = transaction.connection.execute(_FORGET_SOURCES, (before, SWEEP)).rowcount
    places = transaction.connection.execute(_FORGET_PLACES, (SWEEP,)).rowcount
    return SWEEP in (sources, places)


_FORGET_SOURCES = """
    DELETE FROM past_source WHERE id IN (
        SELECT id FROM past_source INDEXED BY past_source_gone WHERE gone < ? LIMIT ?
    )
"""
_FORGET_PLACES = """
    DELETE FROM past WHERE (place, past.offset) IN (
        SELECT past.place, past.offset FROM place CROSS JOIN past ON past.place = place.id AND past.offset < passed
        LIMIT ?
    )
"""
