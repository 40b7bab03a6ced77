"""A bound handler: runs the user's callable for a Call, and turns whatever comes of it into a Result.

The hot path of the whole platform. Per call: decode the payload, decode state, call, encode state, build emits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType
from typing import Any

from fleetfn.cloudevents.json import is_json
from fleetfn.context import Context, Scope, current, end
from fleetfn.errors import DataError, StateError
from fleetfn.failures import describe
from fleetfn.http import Response
from fleetfn.invocation import UNCHANGED, Again, Call, Done, Failure, Rejected, Result, Unchanged
from fleetfn.outcomes import Reject, Retry
from fleetfn.payload import Read
from fleetfn.replies import reply
from fleetfn.state import Cell, Snapshot, State
from fleetfn.values import Codec

_DONE = Done()
_NOTHING = Result(_DONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to call one handler. Indexes are places in its list of arguments, -1: it takes none."""

    call: Callable[..., Any]
    fixed: tuple[Any, ...]
    """One entry per argument; the config is in its place already."""
    payload: tuple[int, Read | None]
    context: int
    cell: int
    codec: Codec | None
    make: Callable[[], Any]
    snapshot: bool
    replies: bool
    returns: str | None
    root: Path | None
    place: str
    """file:line of the handler, where a failure has no line of its own."""


class Early(Exception):  # noqa: N818 - a way out, no error
    """The call ends before the user's code: its data or state cannot be had."""

    def __init__(self, result: Result) -> None:
        self.result = result


class BoundHandler:
    """Implements fleetfn.invocation.Handler."""

    takes_batch = False

    def __init__(self, plan: Plan, scope: Scope, *, is_async: bool) -> None:
        self.is_async = is_async
        self.has_state = plan.codec is not None and not plan.snapshot
        self.has_snapshot = plan.snapshot
        self._plan = plan
        self._scope = scope
        self._target = plan.call
        self._fixed = list(plan.fixed)
        self._payload_at, self._read = plan.payload
        self._context_at = plan.context
        self._cell_at = plan.cell
        self._codec = plan.codec
        self._make = plan.make
        self._view: type[State[Any] | Snapshot[Any]] = Snapshot if plan.snapshot else State
        self._returns = plan.returns
        self._replies = plan.replies
        self._leaves_nothing = not (self.has_state or plan.replies)
        """Where it returns None and sends nothing."""

    def invoke(self, calls: Sequence[Call]) -> list[Result]:
        """Run a plain `def` on this thread; one result per call, in order."""
        return [self._run(calls[0])] if len(calls) == 1 else [self._run(call) for call in calls]

    async def invoke_async(self, calls: Sequence[Call]) -> list[Result]:
        """Run an `async def` on this loop, all calls at once; one result per call, in order.

        Only the cancellation of the task that awaits this gets out.
        """
        if len(calls) == 1:
            return [await self._run_async(calls[0])]
        return await asyncio.gather(*(self._run_async(call) for call in calls))

    def check_value(self, value: bytes) -> None:
        """Decode a stored state value as a run would. Raises StateError."""
        if self._codec is not None:
            self._codec.load(value)

    def state_of(self, value: bytes | None) -> Any:
        """A stored value as the handler's state type; None for none. Raises StateError."""
        return None if value is None or self._codec is None else self._codec.load(value)

    def see(self, seen: Callable[[Any], None]) -> None:
        """Tests: tell `seen` what the user's callable returns from now on."""
        target = self._target

        def run(*args: Any) -> Any:
            value = target(*args)
            seen(value)
            return value

        async def run_async(*args: Any) -> Any:
            value = await target(*args)
            seen(value)
            return value

        self._target = run_async if self.is_async else run

    def _run(self, call: Call) -> Result:
        context = Context(call, self._scope)
        token = current.set(context)
        try:
            value = self._target(*self._arguments(call, context))
            if value is None and self._leaves_nothing and context._emits is None:  # noqa: SLF001 - as below
                return _NOTHING
            return self._finish(call, context, value)
        except Early as early:
            return early.result
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises, sys.exit() too, is an outcome
            return self._failed(error)
        finally:
            end(context)
            current.reset(token)

    async def _run_async(self, call: Call) -> Result:
        context = Context(call, self._scope)
        token = current.set(context)
        try:
            return self._finish(call, context, await self._target(*self._arguments(call, context)))
        except Early as early:
            return early.result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the worker's timeout or drain; otherwise a task that the user cancelled got out
            return self._failed(error)
        except GeneratorExit:
            raise  # the loop is closing this coroutine
        except BaseException as error:  # noqa: BLE001 - as above
            return self._failed(error)
        finally:
            end(context)
            current.reset(token)

    def _arguments(self, call: Call, context: Context) -> list[Any]:
        """What the handler asks for. Raises Early if it cannot be had."""
        args = self._fixed.copy()
        if self._read is not None:
            try:
                args[self._payload_at] = self._read(call)
            except DataError as error:
                raise Early(Result(Rejected(said(error, call), status=400))) from error
        if self._codec is not None:
            try:
                cell = Cell(call.value, self._codec, self._make, context)
            except StateError as error:
                failure = describe(error, self._plan.root)
                raise Early(Result(Again(reason="state", failure=failure, counted=False))) from error
            context._cell = cell  # noqa: SLF001 - the context is this module's to fill
            args[self._cell_at] = self._view(cell)
        if self._context_at >= 0:
            args[self._context_at] = context
        return args

    def _finish(self, call: Call, context: Context, value: Any) -> Result:
        """The handler returned: encode what it leaves behind."""
        if type(value) is CoroutineType:
            value.close()
            return self._failed(
                TypeError("the handler is a plain `def` that returned a coroutine: make it `async def`")
            )
        emits = context._emits  # noqa: SLF001 - as above
        state: bytes | None | Unchanged = UNCHANGED
        done = _DONE
        try:
            if self.has_state and context._cell is not None:  # noqa: SLF001 - the context is this module's to fill
                state = context._cell.encoded()  # noqa: SLF001 - the context is this module's to fill
            if value is not None and self._returns is not None and not isinstance(value, Response):
                sent = self._scope.emitter.make(call, len(emits) if emits else 0, self._returns, value)
                emits = [sent] if emits is None else [*emits, sent]
            if self._replies:
                done = Done(reply(value))
        except Exception as error:  # noqa: BLE001 - a value that cannot be encoded is the handler's failure
            return self._failed(error)
        return Result(done, state, tuple(emits) if emits else ())

    def _failed(self, error: BaseException) -> Result:
        if isinstance(error, BaseExceptionGroup):
            error = _word(error) or error
        if isinstance(error, Retry):
            return Result(Again(after=error.after, reason=error.reason))
        if isinstance(error, Reject):
            return Result(Rejected(error.reason))
        failure = describe(error, self._plan.root)
        if not failure.place:
            failure = Failure(failure.type, failure.message, self._plan.place, failure.traceback)
        return Result(Again(reason="failed", failure=failure))


def said(error: DataError, call: Call) -> str:
    said = f"{error.message} ({error.hint})" if error.hint else error.message
    media = call.event.datacontenttype
    if said.startswith("body is not JSON") and media is not None and (not is_json(media) or "charset" in media):
        return f"{said}; its content type is {media!r:.100}"
    return said


def _word(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """A TaskGroup wraps what its tasks raise: a single Retry or Reject in there is still the handler's word."""
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, Retry | Reject) else None
