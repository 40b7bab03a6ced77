"""The road's alarm on the loop that workers run on: uvloop answers a time that is about now with a plain handle."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from fleetfn.invocation import Again, Done
from road_doubles import Bench, PlainHandler, route, until

KEYS, ATTEMPTS = 50, 10


def test_delays_below_a_millisecond_set_no_alarm_that_breaks_the_worker() -> None:
    problems: list[Any] = []

    async def fail_often() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        attempts = {"attempts": ATTEMPTS + 1, "initial": 0.0001, "factor": 1.0}
        bench = Bench(
            route(PlainHandler(lambda call: Again(reason="not yet") if call.attempt <= ATTEMPTS else None), **attempts)
        )
        for number in range(KEYS):
            bench.deliver(f"car {number}")
        try:
            await until(lambda: len(bench.source.settled) == KEYS or problems, 10)
            assert problems == []
            assert bench.source.outcomes() == [Done()] * KEYS
        finally:
            await bench.road.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fail_often())
