"""The Feed port: what brings events of one trigger into the inbox by itself (an MQTT session, a clock)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from fleetfn_spec.gateway import Fired
from fleetfn_triggers.inbox import Inbox, Row


class FeedInbox(Inbox, Protocol):
    """The gateway's own inbox."""

    async def get(self, sequence: int) -> Row | None:
        """As DeadLetters.get: a clock asks whether its last fire still waits."""
        ...

    def announce(self, function: str, trigger: str) -> None:
        """A row of this trigger comes soon: a worker may wake meanwhile."""
        ...


class Feed(Protocol):
    """Used on one loop. It calls `Inbox.put`, acknowledges at its source only afterwards, and waits (taking nothing
    more from its source) while `put` raises StoreError.
    """

    @property
    def problem(self) -> str:
        """What keeps it from working now, with since when, for people; '' where nothing does."""
        ...

    async def start(self) -> None:
        """Begin, and go on trying by itself where the source is away."""
        ...

    async def close(self, *, forget: bool = False) -> None:
        """Acknowledge what is in the inbox, then let go. `forget`: the trigger is deleted; leave nothing at the source
        (an MQTT session ends), nor in the gateway's notes. Where the source is away that raises FleetError; it can be
        tried again, with a feed that was not started.
        """
        ...


@runtime_checkable
class Firing(Feed, Protocol):
    """A feed that goes by a clock. Instants are Unix seconds."""

    @property
    def next_fire(self) -> float | None: ...

    @property
    def last_fire(self) -> float | None:
        """The instant of the last one that became a row."""
        ...

    @property
    def left_out(self) -> int:
        """Fires that were not made since it was started, because one before waited or ran."""
        ...

    async def fire(self, at: float | None = None) -> Fired:
        """By hand: the row is durable when this returns. `at`: the instant that its Tick tells; None: now. Raises
        StoreError.
        """
        ...
