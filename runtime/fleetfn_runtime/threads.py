"""Handler threads: where plain `def` handlers run, many per hop.

Threads take runs from one queue until it is empty, and tell the loop in bunches: a hop per event would cost more than
the event. Handlers that compute use one thread, since the GIL lets no second one help. Handlers that block (and so
release it) get a thread per run: how long runs are off the CPU is measured. A thread that is stalled unexpectedly
while runs wait is joined by another one. A thread cannot be killed: one whose run passes its deadline is given up on.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from fleetfn_runtime.runs import Run

BUNCH = 64
"""Finished runs after which a thread tells the loop, if it has more to do."""

LOOK = 0.005
"""Seconds between looks while runs wait."""

CALM = 0.05
"""Seconds between looks while none does."""

STALLED = 0.02
"""Seconds in one run after which a thread counts as stalled: a few turns of waiting for the GIL (5 ms each)."""

SLOW = 0.001
"""Seconds of a run after which its result is told at once; seconds off the CPU after which a handler blocks."""

COMPUTING = (0.8, 1.2)
"""CPU seconds per second of a process that its GIL holds back: more threads would not help."""

LONG = 0.05
"""Seconds in one run after which a few more threads may join even a busy process: something in it blocks."""

FEW = 4

_WEIGHT = 0.05
"""Of the newest run in a moving average: a handful of runs that a busy machine held up are no sign of anything."""


class _Thread:
    __slots__ = ("lock", "lost", "run")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.run: Run | None = None
        self.lost = False


class HandlerThreads:
    """Used on the loop, but for `work`, which threads call. Threads are daemons: a stuck handler cannot hold the exit.

    `work(run)` runs the handler and sets `run.started` first; `returned` gets runs that came back, on the loop;
    `stuck` a run that passed its deadline: it never comes back.
    """

    def __init__(
        self,
        *,
        work: Callable[[Run], None],
        returned: Callable[[list[Run]], None],
        stuck: Callable[[Run], None],
        most: int,
    ) -> None:
        self._work = work
        self._returned = returned
        self._stuck = stuck
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._urgent: deque[Run] = deque()
        self._queue: deque[Run] = deque()
        self._done: deque[Run] = deque()
        self._told = False
        self._threads: list[_Thread] = []
        self._idle: list[_Thread] = []
        self._given_up: set[Run] = set()
        self._under_way = 0
        self._watch: asyncio.TimerHandle | None = None
        self._clocks = (0.0, 0.0)
        self._share = 0.0
        """CPU seconds per second of this process, lately."""
        self._slow = 0.0
        """Share of runs that are mostly off the CPU, lately."""
        self._closed = False

    def submit(self, runs: list[Run]) -> None:
        for run in runs:
            run.started = 0.0
            (self._urgent if run.waits else self._queue).append(run)
        self._under_way += len(runs)
        if self._watch is None:
            self._clocks = (time.monotonic(), time.process_time())
            self._watch = self._loop.call_later(LOOK, self._look)
        if self._blocks():
            self._wake(len(runs))
        elif len(self._idle) == len(self._threads):
            self._wake(1)

    def take_back(self) -> list[Run]:
        """What no thread has begun, but for urgent runs."""
        back: list[Run] = []
        while self._queue:
            try:
                back.append(self._queue.popleft())
            except IndexError:  # a thread was quicker
                break
        self._under_way -= len(back)
        return back

    def close(self) -> None:
        """Let idle threads end; busy ones end after their run."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        while self._idle:
            self._idle.pop().lock.release()

    # On handler threads

    def _serve(self, me: _Thread) -> None:
        urgent, queue, done, work = self._urgent, self._queue, self._done, self._work
        bunch, busy, cpu = 0, 0.0, time.thread_time()
        while not (me.lost or self._closed):
            try:
                run = urgent.popleft() if urgent else queue.popleft()
            except IndexError:
                if bunch:
                    bunch, busy, cpu = 0, 0.0, self._tell(bunch, busy, cpu)
                self._sleep(me)
                continue
            me.run = run
            work(run)
            me.run = None
            done.append(run)
            bunch += 1
            took = run.took
            busy += took
            del run  # a thread that sleeps would keep its event
            if bunch >= BUNCH or took > SLOW:
                bunch, busy, cpu = 0, 0.0, self._tell(bunch, busy, cpu)
        self._tell(bunch, busy, cpu)

    def _sleep(self, me: _Thread) -> None:
        self._idle.append(me)
        if self._urgent or self._queue or self._closed:
            try:
                self._idle.remove(me)
            except ValueError:  # woken already: the lock is open, or about to be
                me.lock.acquire()
            return
        me.lock.acquire()

    def _tell(self, bunch: int, busy: float, cpu: float) -> float:
        """`busy` seconds in handlers since the thread's CPU clock stood at `cpu`; where it stands now."""
        now = time.thread_time()
        if bunch:
            slow = busy - (now - cpu) > SLOW * bunch
            self._slow += (1.0 - (1.0 - _WEIGHT) ** bunch) * (slow - self._slow)
        if not self._told:
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                self._closed = True
        return now

    # On the loop

    def _collect(self) -> None:
        self._told = False
        done = self._done
        runs = [done.popleft() for _ in range(len(done))]
        if self._given_up:
            runs = [run for run in runs if run not in self._given_up]
        if runs:
            self._under_way -= len(runs)
            self._returned(runs)

    def _look(self) -> None:
        self._watch = None
        if self._done:
            self._collect()
        now = time.monotonic()
        stalls: list[float] = []
        for thread in list(self._threads):
            run = thread.run
            if run is None or not run.started:
                continue
            since = now - run.started
            if since > run.route.timeout:
                self._give_up(thread, run)
            elif since > STALLED:
                stalls.append(since)
        self._measure(now)
        waiting = len(self._queue) + len(self._urgent)
        if waiting:
            self._grow(waiting, stalls)
        if self._under_way:
            self._watch = self._loop.call_later(LOOK if waiting else CALM, self._look)

    def _measure(self, now: float) -> None:
        wall, cpu = self._clocks
        self._clocks = (now, time.process_time())
        self._share = (self._clocks[1] - cpu) / max(now - wall, 1e-6)

    def _blocks(self) -> bool:
        """Runs are mostly off the CPU, and it is not the GIL that they wait for."""
        return self._slow > 0.5 and self._share < COMPUTING[0]  # noqa: PLR2004 - most

    def _grow(self, waiting: int, stalls: list[float]) -> None:
        busy = len(self._threads) - len(self._idle)
        if self._blocks():
            self._wake(waiting)
        elif busy == 0:
            self._wake(1)
        elif len(stalls) >= busy:
            low, high = COMPUTING
            blocked = self._share < low or (busy < FEW and min(stalls) > LONG)
            if blocked or (self._share > high and busy < (os.cpu_count() or 1)):
                self._wake(len(stalls))

    def _wake(self, count: int) -> None:
        """Let up to so many more threads work."""
        for _ in range(count):
            try:
                self._idle.pop().lock.release()
            except IndexError:
                if len(self._threads) >= self._most:
                    return
                thread = _Thread()
                self._threads.append(thread)
                name = f"handler-{len(self._threads)}"
                threading.Thread(target=self._serve, args=(thread,), name=name, daemon=True).start()

    def _give_up(self, thread: _Thread, run: Run) -> None:
        run.at.call.sealed = True
        thread.lost = True
        self._threads.remove(thread)
        self._given_up.add(run)
        self._under_way -= 1
        self._stuck(run)
        self._wake(1)
