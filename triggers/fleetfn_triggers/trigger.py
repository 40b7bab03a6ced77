"""The Trigger port: what each kind (http, kafka ...) brings, one module per kind.

A kind knows its fields in function.yaml, how to read one message of its source into a Delivery, and its backlog.
The loop that consumes lives in the worker (runtime). To add a kind: add a module and one line in kinds.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Resolve, Secret


@dataclass(frozen=True, slots=True)
class Complaint:
    """A problem inside a trigger's block: `field` is the path below the trigger (`kafka.topic`), '' for the whole."""

    field: str
    message: str
    hint: str = ""


class EventFields(Strict, frozen=True):
    """Where a bare payload (one that is no CloudEvent) carries its own id and time: `data.<path>` ..."""

    id: (
        Annotated[
            str,
            Meta(
                description="Expression for the event's id: text or a whole number. Without it, or where a payload has "
                "none: the event's position in its source.",
                examples=["data.id"],
            ),
        ]
        | None
    ) = None
    time: (
        Annotated[
            str,
            Meta(
                description="Expression for the time it happened: RFC 3339 text with a time zone, or a number since "
                "1970: below 1e11 seconds, above it milliseconds. Without it, or where a payload has none: the "
                "record's own time, or that of the request. Anything else there makes the event unreadable.",
                examples=["data.ts"],
            ),
        ]
        | None
    ) = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a message needs of the trigger's common fields."""

    trigger: str
    function: str
    key: str | None
    """A key expression (keys.py); None: events of this trigger have no key."""
    event: EventFields = EventFields()  # noqa: RUF009 - a frozen value
    decode: Callable[[bytes], Any] | None = None
    """The user's `decode:` callable: foreign bytes -> JSON-able data. Its key must come from the envelope."""
    clock: Callable[[], float] = time.time
    """Unix seconds: when a message that bears no time arrived."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """A trigger of a ScaledObject."""

    type: str
    """As KEDA names it."""
    metadata: Mapping[str, str]
    credentials: Mapping[str, str | Secret]
    """What KEDA takes by reference only; text is no secret."""


Reader = Callable[[Any, Source], Delivery]
"""One message of the source (its client's own type) -> a Delivery. Never raises: see Delivery.problem."""


class Kind(Protocol):
    """One trigger kind. Implemented by a module-level instance in each kind's file."""

    name: str
    spec: type[msgspec.Struct]
    """The fields of the block: strict, frozen, every field described."""
    connection: type[msgspec.Struct] | None
    """The fields of this kind's connection in environments.yaml; None: it needs none (http)."""
    envelope: frozenset[str]
    """Roots of key expressions that this kind gives, beside data and the CloudEvents attributes: `kafka.key` ..."""
    natural_key: str | None
    """The key expression where function.yaml has no `key`: kafka.key; None: no key (http)."""

    unbatched: str
    """Why events of this kind come in no batches; '' where they may."""

    def check(self, spec: Any, key: str | None) -> Iterable[Complaint]:
        """Rules across fields, and of the key expression for this kind."""
        ...

    def reader(self, spec: Any, reading: Reading) -> Reader:
        """Compile reading: everything that can be decided once is decided here."""
        ...

    async def backlog(self, spec: Any, *, connection: Any, group: str, resolve: Resolve) -> int | None:
        """Messages that wait at the source for this group; None: nobody can tell now, or nothing waits there (http)."""
        ...

    def scaler(self, spec: Any, *, connection: Any, group: str, concurrency: int) -> Scaler | None:
        """How KEDA sees by itself what waits at the source for this group; None: only the gateway knows."""
        ...
