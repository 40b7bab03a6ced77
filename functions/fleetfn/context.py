"""`Context`: what an invocation knows of itself, its log, and the way to more outputs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from fleetfn.emits import Emitter
from fleetfn.errors import FleetError, SealedError
from fleetfn.invocation import Call, Emit
from fleetfn.lifespan import Lifespan
from fleetfn.state import Cell
from fleetfn.states import States, Walks

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scope:
    """What all invocations of one bound handler share."""

    function: str
    revision: str
    emitter: Emitter
    logger: logging.Logger
    lifespan: Lifespan
    walks: Walks = field(default_factory=Walks)


class Context:
    """Ask for it by type: `ctx: Context`. It is the handler's until the handler returns."""

    __slots__ = ("_call", "_cell", "_emits", "_ended", "_log", "_scope")

    def __init__(self, call: Call, scope: Scope) -> None:
        self._call = call
        self._scope = scope
        self._emits: list[Emit] | None = None
        self._cell: Cell | None = None
        self._log: InvocationLog | None = None
        self._ended = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self._scope.function

    @property
    def revision(self) -> str:
        return self._scope.revision

    @property
    def trigger(self) -> str:
        """Name of the trigger whose event this is."""
        return self._call.trigger

    @property
    def key(self) -> str | None:
        return self._call.key

    @property
    def attempt(self) -> int:
        """1 for the first run of this event."""
        return self._call.attempt

    @property
    def invocation(self) -> str:
        """Id of this run, as in the log."""
        return self._call.invocation

    @property
    def now(self) -> datetime:
        """When this run began, in UTC. Tests set it."""
        return datetime.fromtimestamp(self._call.now, UTC)

    @property
    def deadline(self) -> float | None:
        """When the run times out, by `time.monotonic()`; None: never."""
        return self._call.deadline

    def remaining(self) -> float:
        """Seconds left until the deadline, never below 0; infinite where there is none."""
        deadline = self._call.deadline
        return math.inf if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def resources(self) -> Any:
        """What the function's `lifespan` yielded; None without one."""
        return self._scope.lifespan.resources

    @property
    def log(self) -> InvocationLog:
        """A logger whose lines carry function, revision, invocation and the key's hash."""
        if self._log is None:
            self._log = InvocationLog(self)
        return self._log

    def states(self, type_: type[T]) -> States[T]:
        """What all keys of this function keep, as pairs of key and T, in order of keys; see states.py. `type_`: the
        function's state type. Only what is committed; a key that is there all the while comes exactly once.

        Raises FleetError for another type.
        """
        self.check("walk states")
        return self._scope.walks.begin(type_, self, self._call.deadline)

    def emit(
        self,
        output: str,
        data: Any = None,
        *,
        key: str | None = None,
        type: str | None = None,  # noqa: A002 - CloudEvents' word
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 - CloudEvents' own word
        item: int | None = None,
    ) -> None:
        """Send `data` to an output once the handler has succeeded; a handler that fails sends nothing.

        `data`: Struct, dataclass, pydantic, dict (JSON), str (text), bytes, or an Event, whose attributes are kept.
        `key` and `subject` default to the event's key, `type` to `<function>.<output>`, `id` to the input's and a
        number, so that a repeated run sends equal ids. `item`: in a handler that takes a Batch, the index of the event
        that it belongs to. Raises FleetError for an output the function does not have, TypeError for data that cannot
        be encoded.
        """
        self.check("emit")
        if item is not None:
            raise FleetError(
                f"ctx.emit({output!r}, item={item!r}): this handler takes no Batch",
                hint="leave out item",
            )
        if self._emits is None:
            self._emits = []
        emit = self._scope.emitter.make(
            self._call, len(self._emits), output, data, key=key, type_=type, subject=subject, id_=id
        )
        self._emits.append(emit)

    def check(self, what: str) -> None:
        """Raises SealedError once the invocation is over."""
        if self._call.sealed:
            raise SealedError(f"this invocation timed out; it can no longer {what}")
        if self._ended:
            raise SealedError(f"this invocation has returned; it can no longer {what}")


class BatchContext(Context):
    """Of a run with a batch: `calls` are the events that the handler was given."""

    __slots__ = ("_by_key", "_emits_of", "calls")

    def __init__(self, call: Call, scope: Scope, calls: Sequence[Call], *, by_key: bool) -> None:
        super().__init__(call, scope)
        self.calls = calls
        self._by_key = by_key
        self._emits_of: dict[int, list[Emit]] = {}

    @property
    def key(self) -> str | None:
        """What all events of the batch are about; None where it may be of several keys."""
        return self._call.key if self._by_key else None

    @property
    def attempt(self) -> int:
        """The highest of all events of the batch."""
        return max(call.attempt for call in self.calls)

    def emit(
        self,
        output: str,
        data: Any = None,
        *,
        key: str | None = None,
        type: str | None = None,  # noqa: A002 - as above
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 - as above
        item: int | None = None,
    ) -> None:
        self.check("emit")
        if item is None or not 0 <= item < len(self.calls):
            raise FleetError(
                f"ctx.emit({output!r}, item={item!r}): which event of the batch is it of?",
                hint=f"pass item=0 to item={len(self.calls) - 1}, the event's index in the batch",
            )
        emits = self._emits_of.setdefault(item, [])
        emits.append(
            self._scope.emitter.make(
                self.calls[item], len(emits), output, data, key=key, type_=type, subject=subject, id_=id
            )
        )

    def emits_of(self, index: int) -> tuple[Emit, ...]:
        return tuple(self._emits_of.get(index, ()))


class InvocationLog(logging.LoggerAdapter[logging.Logger]):
    """The function's logger; the worker's formatter takes the invocation from `current`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context._scope.logger)  # noqa: SLF001 - one file, one idea
        self._context = context

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        self._context.check("log")
        return msg, kwargs


def end(context: Context) -> None:
    """Its invocation is over: nothing can be done with it from now on."""
    context._ended = True  # noqa: SLF001 - one file, one idea
    context._cell = None  # noqa: SLF001 - which knows the context: that circle would stay until garbage is collected


current: ContextVar[Context | None] = ContextVar("fleetfn.current", default=None)
"""The invocation that runs here: the worker's log formatter and the capture of prints read it."""
