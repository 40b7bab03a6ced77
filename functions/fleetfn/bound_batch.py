"""A bound handler of batches: one run of the user's callable for several Calls, and a Result for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import CoroutineType
from typing import Any

from fleetfn.batch import Batch
from fleetfn.bound import BoundHandler, Early, Plan, said
from fleetfn.context import BatchContext, Scope, current, end
from fleetfn.errors import DataError
from fleetfn.http import Response
from fleetfn.invocation import NOT_RUN, UNCHANGED, Again, Call, Done, Rejected, Result
from fleetfn.outcomes import Reject, Retry
from fleetfn.payload import Read

_DONE = Done()


class BoundBatch(BoundHandler):
    """Implements fleetfn.invocation.Handler, for one run with all calls. `by_key`: they have the same key."""

    takes_batch = True

    def __init__(self, plan: Plan, scope: Scope, *, is_async: bool, by_key: bool) -> None:
        place, read = plan.payload
        if read is None:
            raise ValueError("a handler of batches has a payload")
        super().__init__(replace(plan, payload=(place, None)), scope, is_async=is_async)
        self._item: Read = read
        self._by_key = by_key

    def invoke(self, calls: Sequence[Call]) -> list[Result]:
        items = _Items(calls, self._item)
        if not items.calls:
            return items.results
        context = BatchContext(calls[0], self._scope, items.calls, by_key=self._by_key)
        token = current.set(context)
        try:
            return self._done(items, context, self._target(*self._with(items, context)))
        except Early as early:
            return items.all(early.result)
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises, sys.exit() too, is an outcome
            return items.all(self._failed(error))
        finally:
            end(context)
            current.reset(token)

    async def invoke_async(self, calls: Sequence[Call]) -> list[Result]:
        """Only the cancellation of the task that awaits this gets out."""
        items = _Items(calls, self._item)
        if not items.calls:
            return items.results
        context = BatchContext(calls[0], self._scope, items.calls, by_key=self._by_key)
        token = current.set(context)
        try:
            return self._done(items, context, await self._target(*self._with(items, context)))
        except Early as early:
            return items.all(early.result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the worker's timeout or drain; otherwise a task that the user cancelled got out
            return items.all(self._failed(error))
        except GeneratorExit:
            raise  # the loop is closing this coroutine
        except BaseException as error:  # noqa: BLE001 - as above
            return items.all(self._failed(error))
        finally:
            end(context)
            current.reset(token)

    def _with(self, items: _Items, context: BatchContext) -> list[Any]:
        args = self._arguments(items.calls[0], context)
        args[self._payload_at] = Batch(items.payloads)
        return args

    def _done(self, items: _Items, context: BatchContext, value: Any) -> list[Result]:
        """The handler returned: what becomes of each event. Raises for what it may not return."""
        if type(value) is CoroutineType:
            value.close()
            raise TypeError("the handler is a plain `def` that returned a coroutine: make it `async def`")
        count = len(items.calls)
        if value is None:
            value = [None] * count
        elif not isinstance(value, list):
            kind = type(value).__name__
            raise TypeError(f"the handler of a batch returned {kind}: return None, or a list with one entry per event")
        elif len(value) != count:
            raise ValueError(f"the handler returned a list of {len(value)} for a batch of {count}: one entry per event")
        results = [self._result(index, context, each) for index, each in enumerate(value)]
        cell = context._cell  # noqa: SLF001 - as above
        if self.has_state and cell is not None and all(type(each.outcome) is Done for each in results):
            results[-1].value = cell.encoded()
        return items.spread(results)

    def _result(self, index: int, context: BatchContext, value: Any) -> Result:
        if isinstance(value, Retry | Reject):
            return self._failed(value)
        emits = context.emits_of(index)
        if value is not None and self._returns is not None and not isinstance(value, Response):
            try:
                sent = self._scope.emitter.make(context.calls[index], len(emits), self._returns, value)
            except Exception as error:  # noqa: BLE001 - a value that cannot be encoded fails its event
                return self._failed(error)
            emits = (*emits, sent)
        return Result(_DONE, UNCHANGED, emits)


class _Items:
    """The calls that the handler is given, and what is known already of the others: they cannot be read, or have to
    wait for one of their key that cannot.
    """

    def __init__(self, calls: Sequence[Call], read: Callable[[Call], Any]) -> None:
        self.calls: list[Call] = []
        self.payloads: list[Any] = []
        self.results: list[Result] = []
        """One per call; of those that the handler is given, once they are known."""
        stopped: set[str] = set()
        begun: set[str] = set()
        for call in calls:
            key = call.key
            result = NOT_RUN
            if key is None or key not in stopped:
                try:
                    self.payloads.append(read(call))
                    self.calls.append(call)
                    result = _GIVEN
                except DataError as error:
                    if key is None or key not in begun:
                        result = Result(Rejected(said(error, call), status=400))
                    if key is not None:
                        stopped.add(key)
            if key is not None:
                begun.add(key)
            self.results.append(result)

    def spread(self, given: list[Result]) -> list[Result]:
        """Results of the calls that were given, among those of all."""
        if len(given) == len(self.results):
            return given
        each = iter(given)
        return [next(each) if result is _GIVEN else result for result in self.results]

    def all(self, result: Result) -> list[Result]:
        """The batch failed as a whole. Whose fault it is, several calls have to find out each by itself."""
        count = len(self.calls)
        outcome = result.outcome
        if count == 1:
            return self.spread([result])
        if isinstance(outcome, Again) and not outcome.counted:
            return self.spread([result, *[NOT_RUN] * (count - 1)])  # the state cannot be read, and was of one key
        failure = outcome.failure if not isinstance(outcome, Done) else None
        reason = outcome.reason if not isinstance(outcome, Done) else ""
        return [Result(Again(reason=reason, failure=failure, counted=False, apart=True))] * len(self.results)


_GIVEN = Result(Done())
