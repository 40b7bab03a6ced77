"""The Inbox port: the durable queue of what waits to be pushed, of keys that are held, and of dead letters.

One row model for all: MQTT messages, fires of a clock, asynchronous HTTP requests, Kafka events that wait for a later
retry or behind one, redriven dead letters. Rows of one function, trigger and key form a *lane*: they are
run one by one, in order of sequence. Here is what a worker, a bridge or a clock asks of the inbox; `DeadLetters` is
what people ask of it. The pushing side (delivering, waking) is the gateway's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec
from fleetfn.event import Event
from fleetfn.invocation import Failure
from fleetfn.position import Position

Status = Literal["waiting", "dead"]

INBOX = "inbox:"
"""Positions of rows that are the inbox' own have the stream `inbox:<id of the inbox' file>`, partition 0 and the row's
sequence as offset: a new file is another stream.
"""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One event that waits or was given up on. Times are Unix seconds."""

    sequence: int
    function: str
    trigger: str
    key: str | None
    event: Event[bytes | None]
    """The whole event, its source's headers kept as `Event.extensions`/`Event.headers`."""
    position: Position
    """What the record's marks will hold of it: its place in Kafka, or in the inbox."""
    attempts: int
    due: float | None
    """Not to be pushed before; None: at once."""
    status: Status
    created: float
    raw: bool = False
    """Its data is as it came: the trigger's `decode` has yet to be applied, by the worker."""
    revision: str = ""
    reason: str = ""
    """Short and countable: `rejected`, `attempts`, `unreadable`, `crashed`, `timeout`, `output refused`, `removed`."""
    detail: str = ""
    """One line for people: the handler's words, or the exception's."""
    failure: Failure | None = None
    parked: int = 0
    """Events of its key that wait behind this dead letter (`onDeadLetter: park`)."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter to bury. Where its position is known to the inbox, that row becomes the dead letter."""

    function: str
    trigger: str
    key: str | None
    event: Event[bytes | None]
    position: Position
    attempts: int
    revision: str
    reason: str
    detail: str
    failure: Failure | None
    created: float
    park: bool = False
    """Later events of its lane are held until the letter is redriven or discarded."""
    raw: bool = False
    """As a row's."""


def letter_of(row: Row, reason: str, detail: str, created: float) -> Letter:
    """The letter that a row becomes which nobody runs any more. `created`: Unix seconds."""
    return Letter(
        function=row.function,
        trigger=row.trigger,
        key=row.key,
        event=row.event,
        position=row.position,
        attempts=row.attempts,
        revision=row.revision,
        reason=reason,
        detail=detail,
        failure=row.failure,
        created=created,
        raw=row.raw,
    )


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """An event that its worker would rather not run now; idempotent on (function, trigger, position)."""

    function: str
    trigger: str
    key: str | None
    event: Event[bytes | None]
    position: Position
    attempts: int
    due: float | None
    """Unix seconds of the next attempt. None: only to join its lane, if anything of the lane waits in the inbox."""
    epoch: int = 0
    """The partition's epoch that the offering worker holds; older epochs are refused. 0: the row was pushed to it."""


Answer = Literal["queued", "free", "stale"]
"""queued: the inbox has it (or has had it), count it as taken. free: nothing of its lane waits there, run it yourself;
decided atomically. stale: the partition has another owner by now, drop it.
"""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """An event that comes to the inbox first: from an MQTT broker, a clock, an asynchronous request, by hand.

    Idempotent on (function, trigger, source) where `source` is given, for as long as `REMEMBER` says.
    """

    function: str
    trigger: str
    key: str | None
    event: Event[bytes | None]
    source: str | None = None
    """What tells it from others at its source: a caller's hashed id, the instant of a fire, an MQTT resend."""
    raw: bool = False
    problem: str = ""
    """It can become no run (no key, say): it is a dead letter (`unreadable`) at once."""


REMEMBER = 24 * 3600.0
"""Seconds that the `source` of an arrival is known after its row is gone."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A worker has become the owner of partitions. Values: the committed offset; None: nothing is committed, or the
    worker does not know it yet.
    """

    function: str
    trigger: str
    stream: str
    partitions: dict[int, int | None]


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """`epochs`: by partition; whoever held it before is refused from now on. `held`: keys with rows in the inbox whose
    later events must be offered first.
    """

    epochs: dict[int, int]
    held: frozenset[str]


class Inbox(Protocol):
    """Every method raises StoreError when the inbox cannot answer (or takes no more: its disk quota is reached);
    nothing is half-done then. Whatever is asked is durable when the method returns. Results come in the order asked.
    """

    async def put(self, arrivals: Sequence[Arrival]) -> list[int]:
        """Sequences of the rows; the earlier one's where `source` is known already."""
        ...

    async def offer(self, offers: Sequence[Offer]) -> list[Answer]:
        """In order: an offer sees those before it."""
        ...

    async def bury(self, letters: Sequence[Letter]) -> list[int]:
        """The same (function, trigger, position) again is the same row."""
        ...

    async def claim(self, claim: Claim) -> Claimed: ...

    async def passed(self, function: str, trigger: str, stream: str, offsets: Mapping[int, int]) -> None:
        """These offsets are committed: what was offered from below them never comes again, and may be forgotten."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """`after` is the sequence to go on from, None at the end."""

    rows: tuple[Row, ...]
    after: int | None


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; None: all. `sequences` empty: no choice by sequence."""

    function: str | None = None
    trigger: str | None = None
    key: str | None = None
    reason: str | None = None
    before: float | None = None
    """Buried before this Unix time."""
    sequences: tuple[int, ...] = ()


class DeadLetters(Protocol):
    """What people do with dead letters. Errors as in Inbox."""

    async def dead(self, which: Which, *, after: int | None = None, limit: int = 100) -> Rows:
        """In order of sequence."""
        ...

    async def count(self, which: Which) -> int: ...

    async def get(self, sequence: int) -> Row | None:
        """A row of either status."""
        ...

    async def redrive(self, which: Which, *, limit: int | None = None) -> int:
        """Have them delivered again, in order of sequence, with no attempts behind them; how many there were.

        A letter whose lane is parked goes first in its lane, as the row it was. Any other becomes a new row, behind
        all that waits in its lane, so that no mark takes it for done.
        """
        ...

    async def discard(self, which: Which) -> int:
        """Drop them; how many there were. A parked lane goes on with the next event."""
        ...
