"""Which rows the positions of a batch of offers or letters belong to."""

from __future__ import annotations

from collections.abc import Sequence

from fleetfn.position import At, Named
from fleetfn_triggers.inbox import Letter, Offer

from fleetfn_gateway import queue_lookups, queue_rows
from fleetfn_gateway.queue_lookups import Known
from fleetfn_gateway.queue_names import Place
from fleetfn_gateway.queue_transaction import Transaction


class Positions:
    """Looked up all at once. `keep` adds what the batch itself has taken."""

    def __init__(self, transaction: Transaction, items: Sequence[Offer | Letter]) -> None:
        self._transaction = transaction
        self._own = transaction.names.stream
        self._triggers: dict[tuple[str, str], int] = {}
        sequences, places, sources = set(), set(), set()
        for item in items:
            trigger = self.trigger(item)
            match item.position:
                case At(stream, _, offset) if stream == self._own:
                    sequences.add((trigger, offset))
                case At(_, _, offset):
                    place = self.place(item)
                    places.add((place.id if place else 0, offset))
                case Named():
                    sources.add((trigger, self.source(item) or ""))
        connection = transaction.connection
        self._sequences = queue_lookups.known_sequences(connection, sequences) if sequences else {}
        self._places = queue_lookups.known_places(connection, places)
        self._sources = queue_lookups.known_sources(connection, sources)

    def trigger(self, item: Offer | Letter) -> int:
        named = (item.function, item.trigger)
        number = self._triggers.get(named)
        if number is None:
            number = self._triggers[named] = self._transaction.trigger(*named)
        return number

    def place(self, item: Offer | Letter) -> Place | None:
        """None: its position is not one of a stream elsewhere."""
        match item.position:
            case At(stream, partition, _) if stream != self._own:
                return self._transaction.names.at(self._transaction.connection, self.trigger(item), stream, partition)
            case _:
                return None

    def offset(self, item: Offer | Letter) -> int | None:
        match item.position:
            case At(stream, _, offset) if stream != self._own:
                return offset
            case _:
                return None

    def source(self, item: Offer | Letter) -> str | None:
        return f"{queue_rows.NAMED}{item.position.id}" if isinstance(item.position, Named) else None

    def known(self, item: Offer | Letter) -> Known | None:
        trigger = self.trigger(item)
        match item.position:
            case At(stream, _, offset) if stream == self._own:
                # A sequence that was given and has no row: it was done, or somebody has discarded it.
                gone = Known(offset, None) if offset <= self._transaction.last else None
                return self._sequences.get((trigger, offset), gone)
            case At(_, _, offset):
                place = self.place(item)
                return self._places.get((place.id, offset)) if place else None
            case Named():
                return self._sources.get((trigger, self.source(item) or ""))
            case _:
                return None

    def keep(self, item: Offer | Letter, known: Known) -> None:
        trigger = self.trigger(item)
        match item.position:
            case At(stream, _, offset) if stream == self._own:
                self._sequences[trigger, offset] = known
            case At(_, _, offset):
                place = self.place(item)
                self._places[place.id if place else 0, offset] = known
            case Named():
                self._sources[trigger, self.source(item) or ""] = known
