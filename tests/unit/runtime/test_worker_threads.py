"""Handler threads: few for what computes, one per run for what blocks, never two runs lost or doubled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from fleetfn_runtime.runs import Run
from fleetfn_runtime.threads import HandlerThreads
from road_doubles import ListSource, PlainHandler, delivery, route, until

Make = Callable[..., HandlerThreads]
ROUTE = route(PlainHandler(lambda _: None))


def runs(count: int, *, urgent: bool = False) -> list[Run]:
    source = ListSource()
    return [Run(delivery(source, waits=urgent), ROUTE) for _ in range(count)]


@pytest.fixture
async def pool() -> AsyncIterator[Make]:
    made: list[HandlerThreads] = []

    def make(work: Callable[[Run], None], back: list[Run], most: int = 64) -> HandlerThreads:
        def timed(run: Run) -> None:
            run.started = time.monotonic()
            work(run)
            run.took = time.monotonic() - run.started

        made.append(HandlerThreads(work=timed, returned=back.extend, stuck=lambda _: None, most=most))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Beside:
    """A handler that blocks until `count` runs are in it at once; `most` is how many have been."""

    def __init__(self, count: int) -> None:
        self.enough = threading.Event()
        self.most = 0
        self._count = count
        self._now = 0
        self._lock = threading.Lock()

    def work(self, _: Run) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now >= self._count:
                self.enough.set()
        self.enough.wait(20)
        time.sleep(0.01)
        with self._lock:
            self._now -= 1


async def test_every_run_comes_back_once(pool: Make) -> None:
    back: list[Run] = []
    threads = pool(lambda _: None, back)
    given = runs(5000)
    for start in range(0, 5000, 100):
        threads.submit(given[start : start + 100])
        if start % 500 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(back) == 5000)
    assert set(back) == set(given)


async def test_quick_handlers_stay_on_one_thread(pool: Make) -> None:
    used: set[int] = set()
    back: list[Run] = []
    threads = pool(lambda _: used.add(threading.get_ident()), back)
    for _ in range(20):
        threads.submit(runs(50))
        await until(lambda: not threads._under_way)
    assert len(used) == 1


async def test_handlers_that_block_run_beside_each_other(pool: Make) -> None:
    back: list[Run] = []
    beside = Beside(8)
    threads = pool(beside.work, back)
    threads.submit(runs(60))
    await until(lambda: len(back) == 60)
    assert beside.most >= 8


async def test_once_known_to_block_each_run_gets_a_thread_at_once(pool: Make) -> None:
    back: list[Run] = []
    beside = Beside(8)
    threads = pool(beside.work, back)
    threads.submit(runs(40))
    await until(lambda: len(back) == 40)
    beside.most, beside.enough = 0, threading.Event()
    threads.submit(runs(10, urgent=True))
    await until(lambda: len(back) == 50)
    assert beside.most >= 8


async def test_never_more_threads_than_the_function_allows(pool: Make) -> None:
    running: list[int] = []
    most = 0

    def work(_: Run) -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        time.sleep(0.01)
        running.pop()

    back: list[Run] = []
    threads = pool(work, back, most=3)
    threads.submit(runs(30))
    await until(lambda: len(back) == 30)
    assert most <= 3


async def test_what_somebody_waits_for_goes_first(pool: Make) -> None:
    order: list[bool] = []
    begun, gate = threading.Event(), threading.Event()

    def work(run: Run) -> None:
        begun.set()
        assert gate.wait(30)
        order.append(run.waits)

    back: list[Run] = []
    threads = pool(work, back, most=1)
    threads.submit(runs(3))
    await until(begun.is_set)
    threads.submit(runs(2, urgent=True))
    gate.set()
    await until(lambda: len(back) == 5)
    assert order == [False, True, True, False, False]


async def test_what_has_not_begun_can_be_taken_back(pool: Make) -> None:
    begun, gate = threading.Event(), threading.Event()

    def work(_: Run) -> None:
        begun.set()
        assert gate.wait(30)

    back: list[Run] = []
    threads = pool(work, back, most=1)
    given = runs(5)
    threads.submit(given)
    await until(begun.is_set)
    assert threads.take_back() == given[1:]
    gate.set()
    await until(lambda: back == given[:1])
