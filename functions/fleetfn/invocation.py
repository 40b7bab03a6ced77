"""The values that go into and come out of running a handler: Call -> Result.

The worker and `fleetfn.testing` both run handlers through these, so a user's test sees what production does.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from fleetfn.event import Event
from fleetfn.http import Request, Response


class Emit(msgspec.Struct, frozen=True, array_like=True):
    """One event on its way to an output: a complete CloudEvent whose data is bytes (None: no data)."""

    output: str
    key: str | None
    event: Event[bytes | None]


class Failure(msgspec.Struct, frozen=True):
    """How a handler failed. `place` is the user's innermost own line, `file:line`, or ''."""

    type: str
    message: str
    place: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned. `reply`: what an HTTP caller gets; None where nobody waits."""

    reply: Response | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Run it again later: the handler said Retry (`failure` None), crashed or timed out.

    `after`: seconds to wait; None: the trigger's backoff. `counted`: False where it is nobody's fault (an etag lost,
    an output down), so no attempt is used up. `apart`: a batch of several failed as a whole, so each of its events is
    to run again alone, at once.
    """

    after: float | None = None
    reason: str = ""
    failure: Failure | None = None
    counted: bool = True
    timed_out: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """Never again: the handler said Reject, or the event cannot be read (`status` for HTTP: 422, 400)."""

    reason: str
    failure: Failure | None = None
    status: int = 422


Outcome = Done | Again | Rejected


class Unchanged(enum.Enum):
    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


class Call(msgspec.Struct):
    """One event to run one handler with.

    `value`: the encoded state of the key (None: none). `seed`: names function and trigger in the ids of emits, which
    derive from it and the event, so that a repeat carries equal ids; '' in tests. `deadline`: monotonic seconds, by the
    worker's clock.
    """

    event: Event[bytes | None]
    trigger: str
    key: str | None = None
    attempt: int = 1
    value: bytes | None = None
    request: Request | None = None
    seed: str = ""
    invocation: str = ""
    now: float = 0.0
    """Unix seconds: what `ctx.now` tells, as a datetime in UTC."""
    deadline: float | None = None
    sealed: bool = False
    """Set by the worker after a timeout: late state and emits of this call are refused."""


class Result(msgspec.Struct):
    """`value`: the encoded state to save, None to delete it, UNCHANGED to leave it."""

    outcome: Outcome
    value: bytes | None | Unchanged = UNCHANGED
    emits: tuple[Emit, ...] = ()


NOT_RUN = Result(Again(reason="it waits for one before it", counted=False))
"""Of an event in a batch that the handler was not given, since one of its key before it cannot be read."""


class Handler(Protocol):
    """A user's callable, bound to one trigger. Never raises for what the user's code does: that is an outcome.

    One that takes a Batch runs once with all calls. The state that they leave is in the last result, if all are done;
    where it fails for several calls as a whole, each has the same Again, which is `apart`.
    """

    is_async: bool
    has_state: bool
    """It takes State[T]: its runs are serial per key and save a record."""
    has_snapshot: bool
    """It takes Snapshot[T]: it reads a record outside the lane."""

    def invoke(self, calls: Sequence[Call]) -> list[Result]:
        """Run a plain `def` on this thread; one result per call, in order."""
        ...

    async def invoke_async(self, calls: Sequence[Call]) -> list[Result]:
        """Run an `async def` on this loop; one result per call, in order."""
        ...

    def check_value(self, value: bytes) -> None:
        """Decode a stored state value as a run would. Raises StateError."""
        ...
