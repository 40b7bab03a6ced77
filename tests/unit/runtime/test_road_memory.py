"""What was settled is free at once: an event, its reply and its state are large, and garbage is collected rarely."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fleetfn.invocation import Again, Call, Done, Failure, Rejected, Result
from fleetfn.store import Record
from fleetfn_runtime.runs import Batching, Run
from fleetfn_triggers.delivery import Delivery
from road_doubles import AsyncHandler, BatchHandler, Bench, ListSource, PlainHandler, emit, route, until


class Forgetful(ListSource):
    """Counts what was settled."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def settle(self, delivery: Delivery, outcome: object) -> None:  # noqa: ARG002 - the port's
        self.count += 1


@pytest.fixture
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fails_once(call: Call) -> Any:
    return None if call.attempt > 1 else Again(failure=Failure("ValueError", "no", "", ""))


async def soon(_: Call) -> None:
    await asyncio.sleep(0)


def state(calls: Sequence[Call]) -> list[Result]:
    return [Result(Done(), b"1") for _ in calls]


def left(before: Sequence[Any] = ()) -> list[Any]:
    """Runs and deliveries in memory; those from `before` are an earlier test's, whose handler never ended."""
    known = {id(each) for each in before}
    return [each for each in gc.get_objects() if type(each) in (Run, Delivery) and id(each) not in known]


CASES = {
    "def": route(PlainHandler(lambda _: None)),
    "async def": route(AsyncHandler(soon)),
    "state": route(PlainHandler(lambda _: b"1", state=True)),
    "emits": route(PlainHandler(lambda _: Result(Done(), b"1", (emit(),)), state=True)),
    "a reply": route(PlainHandler(lambda _: Done(b"a reply"))),  # type: ignore[arg-type]  # nobody looks at it
    "tried again": route(PlainHandler(fails_once)),
    "given up": route(PlainHandler(lambda _: Rejected("no"))),
    "batches": route(BatchHandler(lambda calls: [None] * len(calls)), batch=Batching(size=10, wait=0.01)),
    "batches of a key": route(BatchHandler(state, state=True), batch=Batching(by_key=True, wait=0.01)),
}


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_nothing_stays_of_what_was_settled(case: Any) -> None:
    before = left()
    bench = Bench(case)
    bench.source = source = Forgetful()
    for number in range(40):
        bench.deliver(f"V{number % 4}", b"large")
    await until(lambda: source.count == 40)
    await until(lambda: not left(before))
    await bench.road.close()


@pytest.mark.usefixtures("_no_collection")
async def test_nothing_stays_of_a_run_that_waited_behind_others() -> None:
    before = left()
    go = threading.Event()
    bench = Bench(route(PlainHandler(lambda _: b"1" if go.wait(60) else None, state=True)))
    bench.source = source = Forgetful()
    bench.store.records["V1"] = (Record(), 1)
    for _ in range(100):
        bench.deliver("V1", b"large")
    go.set()
    await until(lambda: source.count == 100)
    await until(lambda: not left(before))
    await bench.road.close()
