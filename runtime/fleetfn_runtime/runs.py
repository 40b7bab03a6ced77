"""What the road knows of a trigger (Route), and of one delivery on its way (Run)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fleetfn.invocation import UNCHANGED, Call, Emit, Failure, Handler, Result, Unchanged
from fleetfn.store import Loaded, Write
from fleetfn_triggers.delivery import Delivery

from fleetfn_runtime.breaker import Limits
from fleetfn_runtime.retrying import Policy

CHAIN = 128
"""Deliveries of one key that may run in a row and be saved together: a write and an fsync cost as much as a hundred
short handlers. A chain ends sooner where handlers take longer (invoker.LONG).
"""

SHARED = -1.0
"""`took` of an event that was in a batch with others: the first one tells."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How events of a trigger are gathered whose handler takes batches."""

    size: int = 100
    """Events of a batch at most."""
    wait: float = 0.1
    """Seconds that the first one waits for others at most."""
    by_key: bool = False
    """All events of a batch have the same key, and follow each other."""


@dataclass(slots=True, eq=False)
class Route:
    """One trigger as the road sees it. `kind` is its queue in the lanes."""

    trigger: str
    handler: Handler
    kind: int
    timeout: float
    """Seconds that one run may take."""
    policy: Policy = Policy()  # noqa: RUF009 - a frozen value
    park: bool = False
    """A dead letter holds its key's later events."""
    out: int = 0
    """Runs taken from the lanes and not finished."""
    breaker: Limits | None = None
    gated: bool = False
    """Its breaker is open."""
    held: set[str] = field(default_factory=set)
    """Keys whose pulled events have to ask the inbox first; see holds.py."""
    stateful: bool = False
    reads: bool = False
    """It takes a Snapshot, and no State."""
    batch: Batching | None = None
    """Its handler takes batches."""
    chain: int = CHAIN
    """Deliveries of one key to take at once: as many as lately got their turn, so that few are taken for nothing."""

    def __post_init__(self) -> None:
        self.stateful = self.handler.has_state
        self.reads = self.handler.has_snapshot and not self.stateful


class Final(NamedTuple):
    """What its dead letter will say."""

    reason: str
    detail: str
    failure: Failure | None


class Run:
    """One delivery between its lane and its settling.

    A run may take along deliveries that waited behind it in its lane (`more`): a *chain*. They run one after the
    other, each on the state that the one before left, and are saved, published and settled together.
    """

    __slots__ = (
        "_link",
        "asked",
        "broke",
        "call",
        "came",
        "chains",
        "delivery",
        "due",
        "emits",
        "final",
        "key",
        "kind",
        "lane",
        "loaded",
        "more",
        "noted",
        "odd",
        "owed",
        "party",
        "result",
        "route",
        "started",
        "suspect",
        "took",
        "until",
        "value",
        "waits",
        "write",
    )

    call: Call
    lane: Any
    came: float
    """Where its handler takes batches: when it came here, by the loop's clock."""
    party: Sequence[Run]
    """Where its handler takes batches, of the first run of one: all of it, each with what it took along."""
    emits: tuple[Emit, ...]
    """Of the whole chain, once it came back."""
    value: bytes | None | Unchanged
    """The state that the chain leaves, once it came back."""
    loaded: Loaded
    """The record it runs on."""
    write: Write
    """What is saved of it."""

    def __init__(self, delivery: Delivery, route: Route) -> None:
        self.delivery = delivery
        self.route = route
        self._link: Run | None = None
        self.kind = route.kind
        self.waits = waits = delivery.waits
        # A query must not wait behind its key's events: it changes nothing.
        self.key: str | None = None if waits and not route.stateful else delivery.key
        self.odd = odd = delivery.problem is not None
        """It may be more, or less, than to be run: see Stages."""
        self.chains = not (waits or odd)
        """It may be part of a chain."""
        self.due: float | None = None
        """Not before this Unix time: the inbox was asked to keep it, and did not answer."""
        self.final: Final | None = None
        """It was its last attempt: it is buried when its lane goes on, unless an outage turns out to be to blame."""
        self.suspect = False
        """It was under way when the worker before this one died: it runs alone."""
        self.more: Sequence[Run] = ()
        self.broke: Run | None = None
        """The run behind a chain whose result ended it: it is dealt with when its turn comes."""
        self.asked: asyncio.Future[Result] | None = None
        self.result: Result | None = None
        self.owed: tuple[Emit, ...] = ()
        """Emits still to be published before it is settled."""
        self.noted: int | None = None
        """Its slot in the ledger while it runs."""
        self.started = 0.0
        self.until = 0.0
        """When its chain takes no further link, by the monotonic clock."""
        self.took = 0.0
        """Seconds in the handler."""

    @property
    def killed_too_often(self) -> bool:
        return self.suspect and self.delivery.attempts >= self.route.policy.attempts

    @property
    def at(self) -> Run:
        """The link of the chain that runs now."""
        return self._link or self

    @at.setter
    def at(self, link: Run) -> None:
        # A run that named itself would stay in memory, with its event and its reply, until garbage is collected.
        self._link = None if link is self else link

    def links(self) -> Sequence[Run]:
        return (self, *self.more) if self.more else (self,)

    def reset(self) -> None:
        """As if it had not run: what it found out counts for nothing."""
        for link in self.links():
            link.result = None
        if self.broke is not None:
            self.broke.result = None
            self.broke = None

    def gather(self) -> None:
        """Sum up what the links left, all of which are done."""
        result = self.result
        if result is None:
            raise RuntimeError("a run has no result")
        self.value, self.emits = result.value, result.emits
        for link in self.more:
            if link.result is not None:
                if link.result.value is not UNCHANGED:
                    self.value = link.result.value
                self.emits += link.result.emits
