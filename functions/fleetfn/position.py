"""Where an event stands in its source, and the marks that say what a record has taken.

A *position* identifies one event of one trigger. Sources with order (Kafka, the inbox) number their events:
`At`. A caller over HTTP may name its request, without order: `Named`. Marks are exact and O(1) for the former: per
trigger, stream and partition the highest offset taken, since a lane hands events over in order.
"""

from __future__ import annotations

import msgspec

REMEMBER = 64
"""Caller's ids that a record remembers (design: `remember: 64`)."""

REPLIES = 4
"""Of those, the last few that keep their reply."""

REPLY_LIMIT = 16 * 1024
"""Bytes of a reply worth keeping for a duplicate."""


class At(msgspec.Struct, frozen=True, tag="at", array_like=True):
    """The offset in one partition of one stream.

    `stream` is the identity of the log, not only its name: `kafka:<topic>:<topic id>` (a recreated topic is another
    stream; where the broker knows no ids: `kafka:<topic>:`; the embedded broker, which forgets all when it ends:
    `kafka:<topic>:<cluster id>@<address>`), or `inbox`.
    """

    stream: str
    partition: int
    offset: int


class Named(msgspec.Struct, frozen=True, tag="named", array_like=True):
    """A caller's own id (Idempotency-Key or a CloudEvent's source and id), hashed."""

    id: str


Position = At | Named | None
"""None: the event cannot be told from another one, so it is never taken for a duplicate."""


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The reply kept for a duplicate: what the HTTP caller got."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Marks(msgspec.Struct, frozen=True, array_like=True):
    """What a record has taken. Values: change by `with_`, which returns new marks."""

    offsets: dict[str, int] = {}
    """`trigger|stream|partition` -> highest offset taken."""

    named: tuple[tuple[str, Reply | None], ...] = ()
    """The last `REMEMBER` caller's ids (`trigger|id`), oldest first."""

    def taken(self, trigger: str, position: Position) -> bool:
        match position:
            case At():
                return self.offsets.get(_slot(trigger, position), -1) >= position.offset
            case Named(id):
                name = f"{trigger}|{id}"
                return name in [known for known, _ in self.named]
            case _:
                return False

    def reply(self, trigger: str, position: Named) -> Reply | None:
        name = f"{trigger}|{position.id}"
        return next((reply for known, reply in self.named if known == name), None)

    def with_(self, trigger: str, position: Position, reply: Reply | None = None) -> Marks:
        match position:
            case At():
                slot = _slot(trigger, position)
                if self.offsets.get(slot, -1) >= position.offset:
                    return self
                return Marks({**self.offsets, slot: position.offset}, self.named)
            case Named(id):
                kept = reply if reply is not None and len(reply.body) <= REPLY_LIMIT else None
                named = self.named[1 - REMEMBER :]
                if len(named) >= REPLIES:  # one more of them has a reply no longer
                    named = (*named[:-REPLIES], (named[-REPLIES][0], None), *named[1 - REPLIES :])
                return Marks(self.offsets, (*named, (f"{trigger}|{id}", kept)))
            case _:
                return self


def _slot(trigger: str, at: At) -> str:
    return f"{trigger}|{at.stream}|{at.partition}"
