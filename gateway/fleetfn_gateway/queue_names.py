"""Numbers that the file has for what repeats in every row: triggers, and places (partitions of streams) in Kafka."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from fleetfn_triggers.inbox import INBOX


@dataclass(slots=True)
class Place:
    """`epoch`: of its present owner; 0: nobody has claimed it. `passed`: what lies below is committed."""

    id: int
    trigger: int
    stream: str
    partition: int
    epoch: int = 0
    passed: int = 0


class Names:
    """Written on the writer's thread, within a transaction (`load` again after one that failed); read anywhere."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.file = self.stream = ""
        """The file's id; the stream of its rows' own positions, made once for all of them."""
        self.load(connection)

    def load(self, connection: sqlite3.Connection) -> None:
        (self.file,) = connection.execute("SELECT id FROM file").fetchone()
        self.stream = f"{INBOX}{self.file}"
        triggers: dict[int, tuple[str, str]] = {}
        numbers: dict[str, dict[str, int]] = {}
        for number, function, name in connection.execute("SELECT id, function, name FROM trigger_rows").fetchall():
            triggers[number] = (function, name)
            numbers.setdefault(function, {})[name] = number
        found = connection.execute("SELECT id, trigger, stream, partition, epoch, passed FROM place").fetchall()
        places = [Place(*columns) for columns in found]
        # Others may be reading: what was there is never missing.
        self._triggers, self._numbers = triggers, numbers
        self._by_id = {place.id: place for place in places}
        self._places = {(place.trigger, place.stream, place.partition): place for place in places}

    def trigger(self, number: int) -> tuple[str, str]:
        """Function and name."""
        return self._triggers[number]

    def of(self, function: str) -> dict[str, int]:
        """Numbers of its triggers, by name."""
        return self._numbers.get(function, {})

    def matching(self, function: str | None, trigger: str | None) -> list[int]:
        """Numbers; None: all."""
        found = list(self._triggers.items())
        return [number for number, (owner, name) in found if function in (None, owner) and trigger in (None, name)]

    def functions(self) -> list[str]:
        return list(self._numbers)

    def place(self, number: int) -> Place:
        return self._by_id[number]

    def number(self, connection: sqlite3.Connection, function: str, trigger: str) -> int:
        """The trigger's number, given now where it had none."""
        number = self.of(function).get(trigger)
        if number is None:
            query = "INSERT INTO trigger_rows (function, name) VALUES (?, ?) RETURNING id"
            ((number,),) = connection.execute(query, (function, trigger)).fetchall()
            self._triggers[number] = (function, trigger)
            self._numbers[function] = {**self.of(function), trigger: number}
        return number

    def at(self, connection: sqlite3.Connection, trigger: int, stream: str, partition: int) -> Place:
        """The place, made now where there was none."""
        place = self._places.get((trigger, stream, partition))
        if place is None:
            query = "INSERT INTO place (trigger, stream, partition) VALUES (?, ?, ?) RETURNING id"
            ((number,),) = connection.execute(query, (trigger, stream, partition)).fetchall()
            place = Place(number, trigger, stream, partition)
            self._by_id[number] = place
            self._places[trigger, stream, partition] = place
        return place
