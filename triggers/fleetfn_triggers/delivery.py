"""A delivery: one attempt to hand one event to a function, and how its source learns what came of it."""

from __future__ import annotations

from typing import Protocol

import msgspec
from fleetfn.event import Event
from fleetfn.http import Request
from fleetfn.invocation import Outcome
from fleetfn.position import Position


class Source(Protocol):
    """Whoever made the delivery: the Kafka loop, the HTTP server, the inbox' client."""

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Called exactly once, on the worker's loop, after state is saved and emits are published.

        `outcome` is final for a source that does not retry (HTTP). For one that does, the road calls it only with
        Done, with Rejected after the dead letter is safe, or with Again after the inbox has taken the event.
        """
        ...

    def owns(self, delivery: Delivery) -> bool:
        """False once the event belongs to someone else (a revoked partition): the road then drops the run's result.

        Checked before save, before publish and before settling.
        """
        ...


class Delivery(msgspec.Struct, eq=False):
    """A Struct, since one is made for each event: a dataclass takes four times as long.

    `attempts`: runs begun before this one. `key` is None only where the trigger has no key, or `problem` is set and
    its envelope has none.

    `problem` is set instead of being raised when the event cannot be read (no key, bad CloudEvent): a delivery that
    cannot be run must still be settled, in order, with a dead letter that holds the whole event.
    """

    trigger: str
    key: str | None
    event: Event[bytes | None]
    position: Position
    source: Source
    attempts: int = 0
    size: int = 0
    """Bytes it holds in memory, for the source's bounds."""
    request: Request | None = None
    problem: str | None = None
    raw: bool = False
    """Its data is as it came, since the trigger's `decode` failed: there is a `problem`."""
    waits: bool = False
    """Somebody waits for the outcome (an HTTP caller): no retry, no dead letter, and urgent."""
    epoch: int = 0
    """Pulled: the epoch of its partition at the inbox; its lane must not overtake what is held there. 0: it was pushed
    by the inbox, or somebody waits for it.
    """
    pushed: bool = False
    """No other event of its trigger and key comes before this one, and those that came with it, are settled: an inbox
    pushed it.
    """
    invocation: str = ""
    """Id of its last run, as logs show it; set by the road."""
