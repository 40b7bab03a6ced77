"""Held keys under any mix of failures: whatever goes through the inbox keeps its place behind what came before it.

A log of partitions is consumed by workers that gain and lose partitions and lose commits; handlers ask to be run much
later; the inbox fails, before or after it did what was asked, and is killed; pushes are lost. State shows what ran,
and in what order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import defaultdict

import hypothesis.strategies as st
import pytest
from fleetfn.errors import StoreError
from fleetfn.invocation import Again, Call, Done, Failure, Rejected, Result
from fleetfn.position import At
from fleetfn_plumbing.memory_inbox import MemoryInbox
from fleetfn_runtime import burial, ends, holds, outages, publishing, stages, unsent
from fleetfn_runtime.kafka_holding import Holding
from fleetfn_runtime.road import Road
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Which
from hypothesis import HealthCheck, given, settings
from inbox_doubles import Clock, FarInbox, Pusher
from road_doubles import STREAM, AsyncHandler, Bench, FlakyStore, event, route

ATTEMPTS = 4
KEYS = "abc"
PARTITIONS = 3

behaviours = st.sampled_from(["done", "done", "done", "soon", "later", "later", "crash", "reject"])
plans = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, PARTITIONS - 1), behaviours), min_size=1, max_size=40)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stages, publishing, unsent, burial, holds):
        monkeypatch.setattr(module, "BACKOFF", (0.0005, 0.001))
    monkeypatch.setattr(unsent, "TIDY", 0.001)
    monkeypatch.setattr(outages, "FORGOTTEN", 0.05)
    monkeypatch.setattr(holds, "CHUNK", 3)
    monkeypatch.setattr(ends, "HERE", 0.01)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=plans,
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.1, 0.3]),
    park=st.booleans(),
    workers=st.integers(1, 3),
)
def test_order_and_state_as_if_once(
    plan: list[tuple[str, int, str]], seed: int, share: float, *, park: bool, workers: int
) -> None:
    async def run() -> None:
        await World(plan, random.Random(seed), share, park=park, workers=workers).run()

    asyncio.run(run())


class World:
    def __init__(
        self, plan: list[tuple[str, int, str]], chance: random.Random, share: float, *, park: bool, workers: int
    ) -> None:
        self.chance = chance
        self.share = share
        self.clock = Clock()
        self.log: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
        self.behaviours: dict[bytes, str] = {}
        for n, (key, number, behaviour) in enumerate(plan):
            data = b"%d" % n
            self.behaviours[data] = behaviour
            self.log[number].append((key, data))
        self.park = park
        self.committed = dict.fromkeys(self.log, 0)
        self.inbox = MemoryInbox(self.clock)
        far = FarInbox(self.inbox, self.storm)
        store = FlakyStore()
        store.fail = lambda _: self.storm()
        self.benches = [
            Bench(
                route(AsyncHandler(self.handle, state=True), attempts=ATTEMPTS, initial=0.0, park=park),
                store=store,
                inbox=far,
                clock=self.clock,
            )
            for _ in range(workers)
        ]
        self.store = store
        self.pusher = Pusher(self.inbox, lambda: self.chance.choice(self.benches).road)
        self.consumers = {number: Consumer(self, number) for number in self.log}

    def strikes(self) -> bool:
        return self.chance.random() < self.share

    def storm(self) -> None:
        if self.strikes():
            raise StoreError("bad luck")

    async def handle(self, call: Call) -> Result:
        await asyncio.sleep(0)
        data = call.event.data or b""
        match self.behaviours[data]:
            case "soon" if call.attempt == 1:
                return Result(Again(after=0.0))
            case "later" if call.attempt < ATTEMPTS - 1:
                return Result(Again(after=self.chance.choice([5.0, 50.0])))
            case "crash":
                after = self.chance.choice([0.0, 5.0])
                return Result(Again(after=after, failure=Failure("ValueError", "boom", f"h.py:{call.attempt}")))
            case "reject":
                return Result(Rejected("no"))
        return Result(Done(), (call.value or b"") + data + b" ")

    async def run(self) -> None:
        turns, limit = 0, time.monotonic() + 120
        while not self.is_over():
            turns += 1
            assert time.monotonic() < limit, "it does not end"
            if turns > 300:
                self.share = 0.0
            for consumer in self.consumers.values():
                await consumer.step()
            if not await self.pusher.push(lost=self.strikes()):
                self.pass_time()
            if self.strikes() and self.strikes():
                self.inbox.restart()  # killed: what is in flight is pushed again, and told of by two
            if self.park and self.chance.random() < 0.1:
                await self.inbox.discard(Which())
            await asyncio.sleep(0.0002 if turns % 8 == 0 else 0)
        for bench in self.benches:
            await bench.road.quiet()
            await bench.road.close()
            assert not bench.replaced
        self.check()

    def pass_time(self) -> None:
        wait = self.inbox.next_due("watch", ["telemetry"])
        if wait is not None and self.chance.random() < 0.5:
            self.clock.now += wait

    def is_over(self) -> bool:
        consumed = all(self.committed[number] == len(records) for number, records in self.log.items())
        waiting = any(row.status == "waiting" or row.parked for row in self.inbox.rows)
        return consumed and not waiting and not any(bench.road.in_flight for bench in self.benches)

    def check(self) -> None:
        dead = {"reject", "crash"}
        for key in KEYS:
            ran = (self.store.value(key) or b"").split()
            for number, records in self.log.items():
                expected = [data for of, data in records if of == key and self.behaviours[data] not in dead]
                mine = {data for _, data in records}
                assert [data for data in ran if data in mine] == expected, (key, number)


class Consumer:
    """What reads one partition: a worker claims it, hands records over, commits, and may lose it to another one."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._road: Road | None = None
        self._holding: Holding
        self._next = 0

    async def step(self) -> None:
        world = self._world
        road = self._road
        if road is None:
            await self._gain()
            return
        records = world.log[self._number]
        upto = min(len(records), self._next + world.chance.randint(0, 4))
        deliveries = []
        for offset in range(self._next, upto):
            key, data = records[offset]
            self._holding.hand_over(offset, 1)
            at = At(STREAM, self._number, offset)
            deliveries.append(
                Delivery("telemetry", key, event(data, name=f"{self._number}/{offset}"), at, self._holding, 0, 1)
            )
            deliveries[-1].epoch = self._holding.epoch
        self._next = upto
        if deliveries:
            road.take(deliveries)
        if world.chance.random() < 0.2:
            world.committed[self._number] = self._holding.prefix.done
            if self._holding.offered and not world.strikes():
                await self._pass(road)
        if world.strikes() and world.strikes():
            self._holding.owned = False
            road.forget_lost()
            self._road = None

    async def _gain(self) -> None:
        world, start = self._world, self._world.committed[self._number]
        road = world.chance.choice(world.benches).road
        try:
            claimed = await road.claim("telemetry", STREAM, {self._number: start})
        except StoreError:
            return
        self._holding = Holding(self._number, claimed.epochs[self._number])
        self._holding.begin(start)
        self._next = start
        self._road = road

    async def _pass(self, road: Road) -> None:
        with contextlib.suppress(StoreError):
            await road.passed("telemetry", STREAM, {self._number: self._world.committed[self._number]})
