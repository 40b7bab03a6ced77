"""What the writes of one commit share."""

from __future__ import annotations

import sqlite3

from fleetfn.errors import StoreError

from fleetfn_gateway.queue_names import Names


class Transaction:
    """On the writer's thread. `refusal`: why there may be no new rows now; None: there may."""

    def __init__(
        self, connection: sqlite3.Connection, names: Names, last: int, now: float, refusal: StoreError | None
    ) -> None:
        self.connection = connection
        self.names = names
        self.last = last
        """The highest sequence ever given."""
        self.now = now
        self.refusal = refusal

    def fresh(self) -> int:
        self.last += 1
        return self.last

    def end(self) -> None:
        """Sequences are never given again, also after their rows are gone: marks know them."""
        self.connection.execute("UPDATE file SET last = ?", (self.last,))

    def trigger(self, function: str, trigger: str) -> int:
        return self.names.number(self.connection, function, trigger)
