"""What a node and its worker say to each other on their SEQPACKET socket pair: one message a packet, MessagePack.

`Connection` and `HandBack` carry one file descriptor: an accepted TCP connection, with the bytes read from it so far.
End of file means that the other side is gone: a worker then drains and exits.
"""

from __future__ import annotations

import msgspec
from fleetfn_spec.control import Counters

PACKET_LIMIT = 96 * 1024
"""Bytes of one message; a request's head must fit (the front door allows 64 KiB)."""


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


# node -> worker


class Serve(_Message, frozen=True):
    """Become the owner of the function's sources (take owner.lock, then consume). HTTP is served from Ready on."""


class Connection(_Message, frozen=True):
    """+fd. An HTTP connection; `head`: what was read of it already."""

    head: bytes


class Share(_Message, frozen=True):
    """The workers in these slots, this one included, take work: they share the partitions of their sources. Said to a
    worker of a function that may have several, whenever it changes.
    """

    slots: tuple[int, ...]


class Inherit(_Message, frozen=True):
    """The worker in this slot is gone: see what it had under way, and send what it saved and did not send."""

    slot: int


class Drain(_Message, frozen=True):
    """Stop taking, finish what runs, save, publish, commit, hand connections back, exit 0."""

    reason: str = ""


class Pause(_Message, frozen=True):
    triggers: tuple[str, ...]


class Resume(_Message, frozen=True):
    triggers: tuple[str, ...]


class Report(_Message, frozen=True):
    """Say Stats now, whatever has changed: somebody looks."""


# worker -> node


class Step(_Message, frozen=True):
    """Progress of getting ready: `importing handler`, `checking state samples`."""

    text: str


class Ready(_Message, frozen=True):
    """Imported, bound, state samples decoded, connections authenticated, start offsets committed."""

    pid: int
    deliver: str
    """Path of its delivery socket."""


class Failed(_Message, frozen=True):
    """It cannot become ready; it exits 1 after this. `place`: the user's own line."""

    message: str
    hint: str = ""
    place: str = ""
    traceback: str = ""


class HandBack(_Message, frozen=True):
    """+fd. The next request on this connection is not for this worker (or it drains): `head` is what was read."""

    head: bytes


class Stats(_Message, frozen=True):
    """About once a second while something changes, when asked, and before exit: increments since the last Stats."""

    counters: Counters
    in_flight: int
    last_error: str = ""
    last_error_time: float | None = None
    problems: tuple[tuple[str, str], ...] = ()
    """(trigger or output, what is wrong now): `broker unreachable since 12:00:03`."""
    requests: int = 0
    """Of those in flight: HTTP requests, and rows that were pushed, but for what gathers for a batch."""
    lag: int = 0
    """Records in this worker's partitions that are not handled yet, as far as known; those in flight included, those
    that gather for a batch not.
    """
    lagging: int = 0
    """Of its partitions, those that have such records."""


class Idle(_Message, frozen=True):
    """Nothing in flight and nothing taken for `seconds`; the node decides when to drain."""

    seconds: float


class Leaving(_Message, frozen=True):
    """It drains, and nobody told it to (a signal, a run that does not end): hand nothing over, start another.

    The node answers with Drain, so that the worker knows that no connection follows, and may exit.
    """

    reason: str


ToWorker = Serve | Share | Inherit | Connection | Drain | Pause | Resume | Report
ToNode = Step | Ready | Failed | HandBack | Stats | Idle | Leaving
