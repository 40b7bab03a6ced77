"""The road under any mix of failures: at least once, state exactly as if once, order per key.

Handlers fail, ask to come again, reject; the store refuses, others write between load and save, outputs are down,
partitions are lost. What must hold at the end is read from what is stored, published and settled.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from fleetfn.errors import OutputDown, OutputError, StoreError
from fleetfn.invocation import Again, Call, Done, Emit, Failure, Rejected, Result
from fleetfn.position import At
from fleetfn.store import Conflict, Saved, Write
from fleetfn_runtime import burial, outages, publishing, stages, unsent
from fleetfn_runtime.runs import Batching
from fleetfn_triggers.delivery import Delivery
from hypothesis import HealthCheck, given, settings
from road_doubles import (
    STREAM,
    AsyncBatchHandler,
    AsyncHandler,
    BatchHandler,
    Bench,
    FlakyStore,
    ListPublisher,
    PlainHandler,
    emit,
    event,
    route,
    until,
)

ATTEMPTS = 3
KEYS = "abc"

behaviours = st.sampled_from(["done", "done", "emit", "emit", "again", "crash", "reject", "poison"])
plans = st.lists(st.tuples(st.sampled_from(KEYS), behaviours), min_size=1, max_size=40)


class Weather:
    """Bad luck, drawn from a seed."""

    def __init__(self, seed: int, share: float) -> None:
        self._random = random.Random(seed)
        self._share = share

    def end(self) -> None:
        self._share = 0.0

    def strikes(self) -> bool:
        return self._random.random() < self._share


class StormyStore(FlakyStore):
    def __init__(self, weather: Weather) -> None:
        super().__init__()
        self.weather = weather

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        if self.weather.strikes():
            raise StoreError("disk full")
        for write in writes:
            if self.weather.strikes() and write.key in self.records:  # another worker wrote, and changed nothing
                record, _ = self.records[write.key]
                self.records[write.key] = (record, next(self._etags))
        results = await super().save(writes)
        if self.weather.strikes():
            raise StoreError("the answer was lost")
        return results


class StormyPublisher(ListPublisher):
    def __init__(self, weather: Weather) -> None:
        super().__init__()
        self.weather = weather

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        """What follows an event that did not get through does not overtake it: so the port says."""
        await asyncio.sleep(0)
        failed: set[str | None] = set()
        results: list[OutputError | None] = []
        for one in emits:
            if one.key in failed or self.weather.strikes():
                failed.add(one.key)
                results.append(OutputDown("unreachable"))
            else:
                results.append(self._one(one))
        return results


def body_of(behaviours: dict[bytes, str]) -> Any:
    def body(call: Call) -> Result:
        data = call.event.data or b""
        behaviour = behaviours[data]
        state = (call.value or b"") + data + b" "
        if behaviour == "emit":
            return Result(Done(), state, (emit(data=data, key=call.key),))
        if behaviour == "reject":
            return Result(Rejected("no"))
        if behaviour == "poison" or (behaviour in ("again", "crash") and call.attempt < ATTEMPTS):
            failure = Failure("ValueError", "boom") if behaviour != "again" else None
            return Result(Again(after=0.0, failure=failure), b"must not be saved", (emit(data=b"must not be sent"),))
        return Result(Done(), state)

    return body


def asynchronous(body: Any) -> Any:
    async def handle(call: Call) -> Result:
        await asyncio.sleep(0)
        return body(call)

    return handle


def batch_of(body: Any) -> Any:
    """The same for many at once: who crashes takes the others along, and the state is of all, whoever is not done."""

    def handle(calls: Sequence[Call]) -> Result | list[Result]:
        state, results = calls[0].value or b"", []
        for call in calls:
            result = body(call)
            if isinstance(result.outcome, Again) and result.outcome.failure is not None:
                if len(calls) == 1:
                    return [result]
                return Result(Again(failure=result.outcome.failure, counted=False, apart=True))
            state += (call.event.data or b"") + b" "
            results.append(Result(result.outcome, emits=result.emits))
        results[-1].value = state
        return results

    return handle


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stages, publishing, unsent, burial):
        monkeypatch.setattr(module, "BACKOFF", (0.0005, 0.001))
    monkeypatch.setattr(unsent, "TIDY", 0.001)
    monkeypatch.setattr(outages, "FORGOTTEN", 0.05)


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        (PlainHandler, None),
        (AsyncHandler, None),
        (BatchHandler, Batching(7, 0.002, by_key=True)),
        (AsyncBatchHandler, Batching(7, 0.0, by_key=True)),
        (BatchHandler, Batching(7, 0.002)),
        (AsyncBatchHandler, Batching(7, 0.0)),
    ],
    ids=["def", "async def", "batches by key, def", "batches by key, async def", "batches, def", "batches, async def"],
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans, seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.1, 0.3]), partitions=st.integers(1, 3))
def test_at_least_once_and_state_as_if_once(
    kind: Any, batch: Batching | None, plan: list[tuple[str, str]], seed: int, share: float, partitions: int
) -> None:
    asyncio.run(_run(kind, batch, plan, Weather(seed, share), partitions))


async def _run(
    kind: Any, batch: Batching | None, plan: list[tuple[str, str]], weather: Weather, partitions: int
) -> None:
    behaviour = {b"%d" % n: what for n, (_, what) in enumerate(plan)}
    body = body_of(behaviour)
    if batch is not None:
        handler = kind(batch_of(body), state=batch.by_key)
    else:
        handler = kind(body if kind is PlainHandler else asynchronous(body), state=True)
    store, publisher = StormyStore(weather), StormyPublisher(weather)
    bench = Bench(route(handler, attempts=ATTEMPTS, initial=0.0, batch=batch), store=store, publisher=publisher)
    deliveries = [
        Delivery("telemetry", key, event(b"%d" % n, name=str(n)), At(STREAM, ord(key) % partitions, n), bench.source)
        for n, (key, _) in enumerate(plan)
    ]
    taken: list[Delivery] = []
    for one in deliveries:
        taken.append(one)
        if weather.strikes():  # a rebalance: what was not settled is lost here, and comes again as a new delivery
            for old in taken:
                if all(old is not done for done, _ in bench.source.settled):
                    bench.source.lost.add(old)
            bench.road.forget_lost()
            redelivered = [
                Delivery(old.trigger, old.key, old.event, old.position, bench.source)
                for old in taken
                if old in bench.source.lost
            ]
            taken = [old for old in taken if old not in bench.source.lost] + redelivered
            bench.road.take(redelivered)
            await asyncio.sleep(0)
        else:
            bench.road.take([one])
        if weather.strikes():
            await asyncio.sleep(0.001)
    await until(lambda: len(bench.source.settled) == len(plan), limit=120)
    await bench.road.quiet()
    weather.end()
    await bench.road.close()
    assert not bench.replaced
    check(plan, behaviour, bench, stateful=handler.has_state)


def check(plan: list[tuple[str, str]], behaviour: dict[bytes, str], bench: Bench, *, stateful: bool) -> None:
    per_key: dict[str, list[bytes]] = defaultdict(list)
    for n, (key, _) in enumerate(plan):
        per_key[key].append(b"%d" % n)
    dead = {"reject", "poison"}
    for key, events in per_key.items():
        expected = [data for data in events if behaviour[data] not in dead]
        kept = (bench.store.value(key) or b"").split()
        assert kept == (expected if stateful else []), "state is not as if each ran once, in order"
        assert bench.source.bodies(key) == events, "settled out of order, or not once"
        sent = list(dict.fromkeys(one.event.data for one in bench.publisher.published if one.key == key))
        assert sent == [data for data in events if behaviour[data] == "emit"], "emits are lost or out of order"
    buried = {letter.event.data for letter in bench.inbox.letters}
    assert buried == {data for data, what in behaviour.items() if what in dead}
    for record, _ in bench.store.records.values():
        # One that another worker wrote meanwhile is not cleared: it would be published again, never lost.
        assert all(one in bench.publisher.published for one in record.unsent)
    assert bench.road.in_flight == 0
