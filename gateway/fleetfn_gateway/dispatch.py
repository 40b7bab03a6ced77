"""Dispatch of one function: rows that may run go to its workers, which its owner is asked for.

Several pushes to a worker are open at once, so that a slow row holds its own lane and nobody else's. What is in flight
is bounded by rows, by bytes and by open pushes per worker. While rows wait, the owner is asked again about once a
second: by then there may be more workers, or others. Whatever a worker does not tell is pushed again. What it refuses
for the whole trigger's sake rests there (resting.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from fleetfn.errors import StoreError
from fleetfn_plumbing.http_client import HttpClient, UnreachableError
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_triggers.inbox import Letter, Row, letter_of
from fleetfn_triggers.push import Told

from fleetfn_gateway import pushing, workers
from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.owner import NoWorkerError, Owner
from fleetfn_gateway.pushing import UndecidedError
from fleetfn_gateway.workers import Worker

log = logging.getLogger("fleetfn.gateway")

ASK = 1.0
"""Seconds after which the owner is asked again, while rows wait."""

LOOK = 5.0
"""Longest seconds of waiting for a row to be due: the wall clock may be moved meanwhile."""

GATHER = 0.002
"""Seconds between pushes: what becomes ready meanwhile shares one."""

_BACKOFF = (0.05, 5.0)
"""First and longest seconds before the owner is asked again after failures."""

_REFUSED = (1.0, 60.0)
"""First and longest seconds before rows are pushed again that a worker would not read."""

_REFUSALS = 20
"""Refusals in a row after which a row is buried: over some ten minutes, in which somebody could have been mended."""

_LOST = 0.1
"""Seconds until rows are pushed again that a worker did not tell of before its connection ended: it may have died of
one of them, and whoever gets them next should know.
"""

_REFUSED_KEPT = 10_000
"""Rows whose refusals are counted."""

_ALONE = 30.0
"""Seconds that each row is pushed by itself after that: one that nobody can read keeps no other."""


class Lanes(Protocol):
    """What dispatch needs of the queue. A lane's next row is ready once the one before it is done or gone."""

    def ready(self, function: str, triggers: frozenset[str]) -> int:
        """Rows that may be taken now."""
        ...

    def next_due(self, function: str, triggers: frozenset[str]) -> float | None:
        """Seconds until another row may be taken, if nothing else happens; None: nobody knows."""
        ...

    async def take(
        self, function: str, triggers: frozenset[str], rows: int, size: int, behind: int = 0
    ) -> Sequence[Row]:
        """Heads of ready lanes, each followed by rows that are next in its lane, `behind` of them in all; `size` bytes
        of data at most but for a first row. They are in flight from now on. Raises StoreError.
        """
        ...

    async def done(self, sequences: Sequence[int]) -> None:
        """They are handled: forget them. Raises StoreError; nothing is forgotten then."""
        ...

    async def bury(self, letters: Sequence[Letter]) -> Sequence[int]:
        """Rows in flight become dead letters. Raises StoreError; nothing is buried then."""
        ...

    def release(self, sequence: int, after: float = 0.0) -> None:
        """No longer in flight; if it is still the head of its lane, it is ready again `after` seconds from now."""
        ...


class Load(NamedTuple):
    """Rows of one function: what its workers have to do."""

    ready: int = 0
    """That more workers would help with now."""
    in_flight: int = 0


class _Refusals(NamedTuple):
    """Of one row, in a row. `told`: how many rows had been told of when they began."""

    backoff: Backoff
    told: int


class Dispatch:
    """Use on one loop. `triggers`: those whose rows are delivered. `concurrency`: of one worker. `client_at`: who asks
    at a delivery socket that the owner names.
    """

    def __init__(
        self,
        function: str,
        lanes: Lanes,
        owner: Owner,
        *,
        triggers: frozenset[str],
        concurrency: int,
        client_at: Callable[[str], HttpClient] = UnixClient,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.function = function
        self.delivered: Counter[str] = Counter()
        """Rows done, by trigger."""
        self.problem = ""
        """Why nothing is delivered now, for people; '' where something is, or nothing waits."""
        self._lanes = lanes
        self._owner = owner
        self._triggers = triggers
        self._concurrency = concurrency
        self._client_at = client_at
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._workers: dict[str, Worker] = {}
        self._asking: asyncio.Task[None] | None = None
        self._ask_at = 0.0
        self._failures = Backoff(*_BACKOFF, jitter=jitter)
        self._refused: dict[int, _Refusals] = {}
        self._told = 0
        """Rows that workers told of."""
        self._jitter = jitter
        self._clock = clock
        self._alone_until = 0.0
        self._turn = 0
        self._pushes: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        """Others: what is done is noted, connections are closed."""
        self._running = self._loop.create_task(self._run(), name=f"dispatch {function}")

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self._workers.values())

    @property
    def load(self) -> Load:
        """Raises StoreError."""
        ready = self._lanes.ready(self.function, self._triggers)
        return Load(self._wanting(ready) if ready else 0, self.in_flight)

    def ready(self) -> None:
        """Something may be taken by now."""
        self._news.set()

    def coming(self, trigger: str) -> None:
        """A row is being written: a worker wakes meanwhile."""
        if trigger in self._triggers and self._asking is None and self._loop.time() >= self._ask_at:
            ready = self._lanes.ready(self.function, self._triggers) or 1
            self._asking = self._loop.create_task(self._ask(self._wanting(ready)))

    def change(self, triggers: frozenset[str], concurrency: int) -> None:
        """From the next push on."""
        self._triggers = triggers
        self._concurrency = concurrency
        for worker in self._workers.values():
            worker.handles(concurrency)
            worker.rests.clear()  # why they rested may be what has changed
        self._news.set()

    async def close(self, grace: float = 0.0) -> None:
        """Take nothing more; what is in flight has `grace` seconds to be told, the rest is pushed again some day."""
        await _end([self._running, *([self._asking] if self._asking is not None else [])])
        end = self._loop.time() + grace
        while (tasks := self._pushes | self._tasks) and (left := end - self._loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left)  # what a push is told becomes another task
        await _end(self._pushes)
        await asyncio.sleep(0)  # a task that never began would let go of nothing
        await _end(self._tasks)
        for worker in self._workers.values():
            await worker.client.close()

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                rest = await self._step()
            except StoreError as error:
                self._say(f"rows cannot be read: {error.message}")
                rest = ASK
            except Exception:
                log.exception("%s: dispatch failed; it goes on", self.function)
                rest = ASK
            if rest is None or rest > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):  # wait_for would swallow a cancellation that comes with news
                        await self._news.wait()

    async def _step(self) -> float | None:
        """Push what may be pushed. Seconds after which to look again if nothing happens; None: there is no need.
        Raises StoreError.
        """
        now = self._loop.time()
        due = self._due()  # before anything is counted or taken: what becomes due meanwhile would be told by neither
        if self._asking is None and now >= self._ask_at:
            ready = self._lanes.ready(self.function, self._triggers)
            if not ready:
                return due
            self._asking = self._loop.create_task(self._ask(self._wanting(ready)))
        if await self._push_some(now):
            await asyncio.sleep(GATHER)
            return 0.0
        rests = [rest for worker in self._workers.values() if (rest := worker.rest(now)) > 0]
        rests += [rest for worker in self._workers.values() for rest in worker.rests.left(now)]
        ask = None if self._asking is not None else max(0.0, self._ask_at - now)
        return min((each for each in (due, ask, *rests) if each is not None), default=None)

    def _wanting(self, ready: int) -> int:
        """Of so many rows that are ready, those that more workers would help: rows that are refused need them not."""
        resting = self._resting(self._workers.values())
        return max(1, self._lanes.ready(self.function, self._triggers - resting)) if resting else ready

    def _resting(self, workers_: Iterable[Worker]) -> frozenset[str]:
        """Triggers that rest, or are probed, at any of them."""
        return self._triggers & {trigger for worker in workers_ for trigger in worker.rests}

    def _due(self) -> float | None:
        due = self._lanes.next_due(self.function, self._triggers)
        return None if due is None else min(due, LOOK)

    # The owner, and workers.

    async def _ask(self, waiting: int) -> None:
        try:
            sockets = await self._owner.wake(self.function, waiting)
        except NoWorkerError as error:
            wait = self._failures.failed() if error.after is None else error.after
            self._ask_at = self._loop.time() + max(wait, _BACKOFF[0])
            self._name(())
            self._say(error.message)
        except Exception:
            log.exception("%s: its owner could not be asked", self.function)
            self._ask_at = self._loop.time() + ASK
        else:
            self._failures.reset()
            self._ask_at = self._loop.time() + ASK
            self._name(sockets)
        finally:
            self._asking = None
            self._news.set()

    def _name(self, sockets: Sequence[str]) -> None:
        now = self._loop.time()
        for socket in sockets:
            worker = self._workers.get(socket)
            if worker is None:
                worker = Worker(socket, self._concurrency, now=now, client_at=self._client_at)
                self._workers[socket] = worker
            worker.seen = now
        for worker in list(self._workers.values()):
            worker.named = worker.socket in sockets
            if not worker.named and not worker.open:
                del self._workers[worker.socket]
                self._spawn(worker.client.close(), self._tasks)

    def _away(self, worker: Worker, why: str) -> None:
        """It cannot be pushed to, for now or for ever: the owner knows."""
        now = self._loop.time()
        wait = worker.failed(now)
        self._ask_at = min(self._ask_at, now + wait) if self._asking is None else self._ask_at
        self._say(why)

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.info("%s: %s", self.function, problem)
        self.problem = problem

    # Pushes.

    async def _push_some(self, now: float) -> bool:
        """False: nothing waits, or no worker has room."""
        room = self._room(now)
        if not room:
            return False
        resting = sorted(self._resting(room))
        portions = [self._triggers.difference(resting), *(frozenset({each}) for each in resting)]
        self._turn += 1
        start = self._turn % len(portions)  # who begins may use up the room
        pushed = False
        for triggers in [*portions[start:], *portions[:start]]:
            pushed |= await self._push_of(triggers, now)
        return pushed

    def _room(self, now: float) -> dict[Worker, int]:
        alone = now < self._alone_until
        return {each: count for each in self._workers.values() if (count := each.room(now, alone=alone))}

    async def _push_of(self, triggers: frozenset[str], now: float) -> bool:
        """Rows of triggers that rest nowhere, or of one that does."""
        room = self._room(now)
        for trigger in triggers:
            room = {each: few for each, count in room.items() if (few := each.rests.limit(trigger, count, now))}
        if not room or not triggers:
            return False
        alone = now < self._alone_until
        size = sum(workers.BYTES - worker.bytes for worker in room)
        tried = alone or bool(triggers & self._resting(room))  # by single rows
        behind = 0 if tried else min(worker.room_behind for worker in room)  # any of them may get all
        rows = await self._lanes.take(self.function, triggers, sum(room.values()), size, behind)
        for worker, share in workers.spread(rows, room).items():
            for batch in workers.batches(share, 1 if alone else workers.BATCH):
                worker.begin(batch)
                self._spawn(self._push(worker, batch), self._pushes)
        return bool(rows)

    async def _push(self, worker: Worker, rows: Sequence[Row]) -> None:
        open_ = {row.sequence: row for row in rows}
        after = 0.0
        try:
            await pushing.push(worker.client, rows, lambda told: self._hear(worker, open_, told))
        except UnreachableError as error:
            after = _LOST
            self._away(worker, error.message)
        except UndecidedError as error:
            if error.busy:
                self._away(worker, error.message)
            else:
                self._refuse(worker, open_, error.message)
        except Exception as error:
            log.exception("%s: a push failed", self.function)
            self._refuse(worker, open_, f"a push failed: {type(error).__name__}: {error}")
        finally:
            worker.open -= 1
            for row in open_.values():
                self._release(worker, row, after)
            self._news.set()

    def _hear(self, worker: Worker, open_: dict[int, Row], told: list[Told]) -> None:
        worker.heard(self._loop.time())
        self.problem = ""
        done = []
        for each in told:
            row = open_.pop(each.sequence, None)
            if row is None:
                continue  # not of this push, or told before: it decides nothing
            self._told += 1
            self._refused.pop(row.sequence, None)
            if each.outcome == "lost":
                self._lost(worker, row, each.after)
                continue
            if each.outcome == "behind":
                self._release(worker, row)
                continue
            worker.rests.taken(row)
            if each.outcome == "done":
                done.append(row)
            else:  # the worker has changed the row by now
                self._release(worker, row)
        if done:
            self._spawn(self._finish(worker, done), self._tasks)

    def _lost(self, worker: Worker, row: Row, after: float) -> None:
        if after > 0:
            worker.rests.refused(row.trigger, after, self._loop.time())
        elif worker.named:
            self._away(worker, "")  # it takes nothing more
        self._release(worker, row)

    async def _finish(self, worker: Worker, rows: Sequence[Row]) -> None:
        """What is done stays in flight until that is durable: so a slow disk slows pushing down."""
        try:
            await self._note([row.sequence for row in rows])
        except asyncio.CancelledError:
            for row in rows:
                self._release(worker, row)
            raise
        for row in rows:
            worker.ended(row)
            self.delivered[row.trigger] += 1
        self._news.set()

    async def _note(self, done: Sequence[int]) -> None:
        failures = Backoff(*_BACKOFF, jitter=self._jitter)
        while True:
            try:
                return await self._lanes.done(done)
            except StoreError as error:
                self._say(f"what is done cannot be noted: {error.message}")
                await asyncio.sleep(failures.failed())

    def _refuse(self, worker: Worker, open_: dict[int, Row], why: str) -> None:
        """One of the rows may be to blame: they wait, and each goes alone for a while."""
        self._say(why)
        self._alone_until = self._loop.time() + _ALONE
        if len(self._refused) > _REFUSED_KEPT:
            self._refused.clear()
        for row in open_.values():
            known = self._refused.get(row.sequence)
            if known is None:
                known = self._refused[row.sequence] = _Refusals(Backoff(*_REFUSED, jitter=self._jitter), self._told)
            wait = known.backoff.failed()
            if known.backoff.failures >= _REFUSALS and self._to_blame(known):
                self._spawn(self._bury(worker, row, why), self._tasks)
            else:
                self._release(worker, row, wait)
        open_.clear()

    def _to_blame(self, refusals: _Refusals) -> bool:
        """The row, since others were told of meanwhile, or it is the only one: workers that read none at all are to
        blame themselves.
        """
        return self._told > refusals.told or len(self._refused) == 1

    async def _bury(self, worker: Worker, row: Row, why: str) -> None:
        """It keeps its lane no longer."""
        detail = f"no worker took it, {_REFUSALS} times in a row: {why}"
        letter = letter_of(row, "unreadable", detail, self._clock())
        after = _REFUSED[1]
        try:
            await self._lanes.bury([letter])
            self._refused.pop(row.sequence, None)
            after = 0.0
        except StoreError as error:
            self._say(f"a row that no worker takes cannot be buried: {error.message}")
        finally:
            self._release(worker, row, after)

    def _release(self, worker: Worker, row: Row, after: float = 0.0) -> None:
        worker.ended(row)
        self._lanes.release(row.sequence, after)

    def _spawn(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel them, and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
