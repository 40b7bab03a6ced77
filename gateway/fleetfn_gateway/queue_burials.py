"""Dead letters are buried: the row that waits becomes the letter, or a new one is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fleetfn_triggers.inbox import Letter

from fleetfn_gateway import queue_rows
from fleetfn_gateway.queue_lookups import Known
from fleetfn_gateway.queue_positions import Positions
from fleetfn_gateway.queue_rows import New
from fleetfn_gateway.queue_schema import DEAD, PARKED
from fleetfn_gateway.queue_transaction import Transaction


class Burial(NamedTuple):
    """One call: letters with their encoded events."""

    letters: Sequence[Letter]
    events: Sequence[bytes]


def bury(transaction: Transaction, calls: Sequence[Burial]) -> list[list[int]]:
    batch = _Batch(transaction, [letter for call in calls for letter in call.letters])
    results = [[batch.bury(*item) for item in zip(call.letters, call.events, strict=True)] for call in calls]
    batch.write()
    return results


class _Batch:
    def __init__(self, transaction: Transaction, letters: Sequence[Letter]) -> None:
        self._transaction = transaction
        self._positions = Positions(transaction, letters)
        self._rows: list[New] = []
        self._events: list[bytes] = []
        self._changed: dict[int, tuple[object, ...]] = {}

    def bury(self, letter: Letter, event: bytes) -> int:
        known = self._positions.known(letter)
        state = PARKED if letter.park and letter.key is not None else DEAD
        if known is None:
            sequence = self._transaction.fresh()
            self._insert(sequence, state, letter, event)
        else:
            sequence = known.sequence
            if known.state is not None and known.state < DEAD:
                fields = (state, letter.attempts, letter.created, letter.reason, queue_rows.encode_letter(letter))
                self._changed[sequence] = (*fields, sequence)
        if known is None or known.state is not None:
            self._positions.keep(letter, Known(sequence, state))
        return sequence

    def _insert(self, sequence: int, state: int, letter: Letter, event: bytes) -> None:
        place = self._positions.place(letter)
        self._rows.append(
            New(
                sequence=sequence,
                trigger=self._positions.trigger(letter),
                key=letter.key,
                state=state,
                due=None,
                attempts=letter.attempts,
                created=letter.created,
                place=None if place is None else place.id,
                offset=self._positions.offset(letter),
                source=self._positions.source(letter),
                raw=letter.raw,
                reason=letter.reason,
                letter=queue_rows.encode_letter(letter),
            )
        )
        self._events.append(event)

    def write(self) -> None:
        queue_rows.insert(self._transaction.connection, self._rows, self._events)
        if self._changed:
            self._transaction.connection.executemany(_BECOME_DEAD, self._changed.values())


_BECOME_DEAD = """
    UPDATE row SET state = iif(key IS NULL, 2, ?), attempts = ?, created = ?, reason = ?, letter = ?, due = NULL
    WHERE sequence = ? AND state < 2
"""
