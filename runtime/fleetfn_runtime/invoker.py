"""Runs handlers: plain `def` on handler threads, `async def` as tasks of the loop, both within their deadline."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from fleetfn.errors import StoreError
from fleetfn.invocation import NOT_RUN, UNCHANGED, Again, Done, Failure, Result
from fleetfn.position import Position

from fleetfn_runtime.gathering import parties
from fleetfn_runtime.runs import SHARED, Batching, Route, Run
from fleetfn_runtime.threads import HandlerThreads

log = logging.getLogger("fleetfn.road")

LONG = 0.005
"""Seconds after which a chain ends: what is done is saved rather than wait for more that may be slow."""

GRACE = 5.0
"""Seconds that a cancelled `async def` has to end, before its worker is replaced."""


class Notes(Protocol):
    """The ledger: what is under way, for the worker after this one. Called on any thread."""

    def begin(self, trigger: str, position: Position, attempts: int) -> int: ...

    def end(self, slot: int) -> None: ...


class NoNotes:
    """Where nothing outlives the process."""

    def begin(self, trigger: str, position: Position, attempts: int) -> int:  # noqa: ARG002 - the port's
        return 0

    def end(self, slot: int) -> None: ...


class Invoker:
    """`returned` gets runs with `result` set, many at once, on the loop. `stuck` gets a run that does not end.

    Of a batch either gets the first run, whose `party` are all.
    """

    def __init__(
        self,
        *,
        returned: Callable[[list[Run]], None],
        stuck: Callable[[Run], None],
        concurrency: int,
    ) -> None:
        self.notes: Notes = NoNotes()
        self._loop = asyncio.get_running_loop()
        self._returned = returned
        self._stuck = stuck
        self._concurrency = concurrency
        self._threads = HandlerThreads(work=self._work, returned=returned, stuck=stuck, most=concurrency)
        self._waiting: deque[Run] = deque()
        self._tasks: dict[Route, dict[Run, asyncio.Task[None]]] = {}
        self._timers: dict[Route, asyncio.TimerHandle] = {}
        self._running = 0
        self._done: list[Run] = []

    def submit(self, route: Route, runs: list[Run]) -> None:
        """Run each, or as many together as its batches have; all of one trigger."""
        if route.batch is not None:
            runs = _batched(runs, route.batch)
        if not route.handler.is_async:
            self._threads.submit(runs)
            return
        for run in runs:
            run.started = 0.0
        self._waiting.extendleft(run for run in reversed(runs) if run.waits)
        self._waiting.extend(run for run in runs if not run.waits)
        self._start_waiting()

    def take_back(self) -> list[Run]:
        """What has not begun, but for runs that somebody waits for."""
        back = self._threads.take_back()
        back.extend(run for run in self._waiting if not run.waits)
        self._waiting = deque(run for run in self._waiting if run.waits)
        return [each for run in back for each in ((run,) if run.route.batch is None else run.party)]

    def close(self) -> None:
        self._threads.close()
        for timer in self._timers.values():
            timer.cancel()
        for tasks in self._tasks.values():
            for task in tasks.values():
                task.cancel()

    # Plain def, on handler threads

    def _work(self, run: Run) -> None:
        if run.route.batch is not None:
            self._work_batch(run)
            return
        invoke = run.route.handler.invoke
        value = run.call.value
        for link in run.links():
            link.call.value = value
            self._begin(run, link)
            try:
                result = invoke((link.call,))[0]
            except BaseException as error:  # noqa: BLE001 - nothing a handler does may end its thread
                result = crashed(error)
            if self._end(run, link, result):
                return
            if result.value is not UNCHANGED:
                value = result.value

    def _begin(self, run: Run, link: Run) -> None:
        run.at = link
        call = link.call
        run.started = started = time.monotonic()
        call.deadline = started + run.route.timeout
        if link is run:
            run.until = started + LONG
        call.now = time.time()
        if not link.waits and link.delivery.position is not None:
            try:
                link.noted = self.notes.begin(call.trigger, link.delivery.position, call.attempt)
            except StoreError as error:  # the run goes on: at worst, its attempt is not counted
                log.warning("%s; %s", error, error.hint)

    def _end(self, run: Run, link: Run, result: Result) -> bool:
        """Whether the chain ends here."""
        link.result = result
        if link.noted is not None:
            self.notes.end(link.noted)
            link.noted = None
        now = time.monotonic()
        link.took = now - run.started
        return now > run.until or link.call.sealed or type(result.outcome) is not Done

    # Batches

    def _work_batch(self, run: Run) -> None:
        items = self._begin_batch(run)
        try:
            results = run.route.handler.invoke([item.call for item in items])
        except BaseException as error:  # noqa: BLE001 - as above
            results = _of_all(items, crashed(error))
        self._end_batch(run, items, results)

    async def _run_batch(self, run: Run) -> None:
        items = self._begin_batch(run)
        try:
            results = await run.route.handler.invoke_async([item.call for item in items])
        except BaseException as error:  # noqa: BLE001 - as below
            results = _of_all(items, crashed(error))
        self._end_batch(run, items, results)
        self._ended(run)

    def _begin_batch(self, run: Run) -> Sequence[Run]:
        """All its events, in order."""
        items = [link for each in run.party for link in each.links()]
        for item in reversed(items):
            self._begin(run, item)
            item.started = run.started
            item.delivery.invocation = item.call.invocation = run.call.invocation
        return items

    def _end_batch(self, run: Run, items: Sequence[Run], results: Sequence[Result]) -> None:
        if run.call.sealed:
            results = _of_all(items, timed_out(run))
        for item, result in zip(items, results, strict=True):
            self._end(run, item, result)
            item.took = SHARED
            if result is NOT_RUN:
                item.result = None
        run.took = time.monotonic() - run.started

    # async def, on the loop

    def _start_waiting(self) -> None:
        while self._waiting and self._running < self._concurrency:
            run = self._waiting.popleft()
            self._running += 1
            tasks = self._tasks.setdefault(run.route, {})
            tasks[run] = self._loop.create_task(self._run(run) if run.route.batch is None else self._run_batch(run))
            if run.route not in self._timers:
                self._arm(run.route, run.route.timeout)

    async def _run(self, run: Run) -> None:
        invoke = run.route.handler.invoke_async
        value = run.call.value
        for link in run.links():
            link.call.value = value
            self._begin(run, link)
            try:
                result = (await invoke((link.call,)))[0]
            except BaseException as error:  # noqa: BLE001 - nothing a handler does may end the loop
                result = crashed(error)
            if link.call.sealed:
                result = timed_out(run)
            if self._end(run, link, result):
                break
            if result.value is not UNCHANGED:
                value = result.value
        self._ended(run)

    def _ended(self, run: Run) -> None:
        if self._tasks[run.route].pop(run, None) is None:
            return  # stuck, and given up on
        self._running -= 1
        if not self._done:
            self._loop.call_soon(self._collect)
        self._done.append(run)

    def _collect(self) -> None:
        done, self._done = self._done, []
        self._returned(done)
        self._start_waiting()

    def _arm(self, route: Route, delay: float) -> None:
        self._timers[route] = self._loop.call_later(max(0.0, delay), self._overdue, route)

    def _overdue(self, route: Route) -> None:
        """Cancel what has passed its deadline."""
        del self._timers[route]
        now = time.monotonic()
        soonest = route.timeout
        for run, task in list(self._tasks[route].items()):
            if not run.started:
                continue
            passed = now - run.started - route.timeout
            if passed < 0:
                soonest = min(soonest, -passed)
            elif not run.at.call.sealed:
                run.at.call.sealed = True
                task.cancel()
                soonest = min(soonest, GRACE)
            elif passed > GRACE:
                del self._tasks[route][run]
                self._running -= 1
                self._stuck(run)
        if self._tasks[route]:
            self._arm(route, max(soonest, 0.001))


def _batched(runs: Sequence[Run], batch: Batching) -> list[Run]:
    """The first run of each batch."""
    first: list[Run] = []
    for party in [[run] for run in runs] if batch.by_key else parties(runs, batch.size):
        party[0].party = party
        first.append(party[0])
    return first


def _of_all(items: Sequence[Run], result: Result) -> list[Result]:
    """What became of a batch as a whole: whose fault it is, several have to find out each by itself."""
    outcome = result.outcome
    if len(items) > 1 and isinstance(outcome, Again):
        result = Result(replace(outcome, counted=False, apart=True))
    return [result] * len(items)


def crashed(error: BaseException) -> Result:
    """What the binder did not turn into an outcome itself: SystemExit, KeyboardInterrupt, a defect of ours."""
    text = "".join(traceback.format_exception(error))
    return Result(Again(reason=str(error), failure=Failure(type(error).__name__, str(error), "", text)))


def timed_out(run: Run) -> Result:
    seconds = f"{run.route.timeout:g}"
    return Result(Again(reason=f"it ran longer than its timeout of {seconds} s", timed_out=True))
