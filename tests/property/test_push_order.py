"""Queue, dispatch, workers' sockets, road: whatever is killed, cut, paused or put off, and when, the rows of a lane are
saved in their order, each once.
"""

import asyncio
import json
import random
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.invocation import Again, Rejected
from fleetfn.position import At
from fleetfn_gateway.dispatch import Dispatch
from fleetfn_gateway.queue import Queue
from fleetfn_runtime.breaker import Limits
from fleetfn_runtime.deliver import DeliverServer
from fleetfn_runtime.invoker import NoNotes
from fleetfn_runtime.load import LoadedTrigger
from fleetfn_runtime.metrics import Metrics
from fleetfn_runtime.push_source import PushSource
from fleetfn_runtime.road import Road
from fleetfn_runtime.runs import Batching
from fleetfn_spec.function import Trigger
from fleetfn_triggers.inbox import Arrival, Offer, Which
from fleetfn_triggers.kafka import Kafka
from fleetfn_triggers.trigger import Reading
from gateway_doubles import FakeOwner, until
from road_doubles import AsyncHandler, BatchHandler, FlakyStore, ListPublisher, PlainHandler, route

TRIGGERS = ("live", "plain", "raw", "batch", "parking", "kafka", "stateless")
KEYS, ROWS, CHUNK, ACTS = 2, 96, 24, 40
"""Keys of all triggers, rows per trigger, how many come at once, faults."""


class World:
    """One function, its gateway, and its workers, who share a store."""

    def __init__(self, luck, folder, run):
        self.luck = luck
        self.folder = folder
        self.run = run
        self.store = FlakyStore()
        self.owner = FakeOwner(after=0.01)
        self.workers = []
        self.made = 0
        self.down = False
        """The gateway does not answer."""
        self.outage = False
        """Handlers of `live` fail alike."""
        self.calm = False
        self.parked = Counter()
        self.ran = defaultdict(dict)
        """Of `stateless`, by key: what ran well, in the order of the first time."""
        self.put = defaultdict(list)
        self.acts = Counter()

    async def open(self):
        self.queue = await Queue.open(self.folder / "inbox.db", quota=2**30)
        self.begin_dispatch()

    def begin_dispatch(self):
        self.dispatch = Dispatch("f", self.queue, self.owner, triggers=frozenset(TRIGGERS), concurrency=4)
        self.queue.on_ready = lambda _: self.dispatch.ready()

    def hire(self, suspects=()):
        self.made += 1
        worker = Worker(self, f"{self.run}/{self.made}.sock", dict.fromkeys(suspects, 1))
        self.workers.append(worker)
        self.owner.workers = [each.path for each in self.workers]

    def fire(self, worker):
        self.workers.remove(worker)
        self.owner.workers = [each.path for each in self.workers]

    # What comes

    async def bring(self):
        """Several rows of each lane at once, so that they wait behind each other."""
        for first in range(0, ROWS, CHUNK):
            numbers = range(first, first + CHUNK)
            for trigger in TRIGGERS:
                await self.bring_some(trigger, numbers)
            await asyncio.sleep(self.luck.choice([0, 0.05, 0.15]))

    async def bring_some(self, trigger, numbers):
        while True:
            try:
                if trigger == "kafka":
                    await self.queue.offer([offer(trigger, number) for number in numbers])
                else:
                    await self.queue.put([arrival(trigger, number) for number in numbers])
            except StoreError:
                await asyncio.sleep(0.005)  # the gateway is about to be started anew
                continue
            break
        for number in numbers:
            if not dies(trigger, number):
                self.put[f"{trigger}/{key_of(number)}"].append(number)

    # What goes wrong

    async def disturb(self):
        while self.acts.total() < ACTS:
            await asyncio.sleep(self.luck.choice([0.002, 0.01, 0.03]))
            name, act = self.luck.choice(FAULTS)
            self.acts[name] += 1
            await act(self)
        self.calm = True

    async def cut(self):
        for worker in self.luck.sample(self.workers, self.luck.randint(1, len(self.workers))):
            worker.server.close()

    async def garble(self):
        """Answers that cannot be read: the gateway does not know that rows are under way."""
        for connection in self.luck.choice(self.workers).server._connections.snapshot():
            if not connection.idle:
                connection.send_chunk(b"\xc1")

    async def leave_out(self):
        self.dispatch.change(frozenset(TRIGGERS) - {self.luck.choice(TRIGGERS)}, 4)
        await asyncio.sleep(0.02)
        self.dispatch.change(frozenset(TRIGGERS), 4)

    async def kill(self):
        worker = self.luck.choice(self.workers)
        self.fire(worker)
        self.hire(worker.die())

    async def drain(self):
        worker = self.luck.choice(self.workers)
        self.fire(worker)
        if self.luck.random() < 0.5 or not self.workers:
            self.hire()
        await worker.drain()

    async def scale(self):
        if len(self.workers) < 3:
            self.hire()

    async def pause(self):
        worker, trigger = self.luck.choice(self.workers), self.luck.choice(TRIGGERS)
        worker.pushes.pause(trigger)
        asyncio.get_running_loop().call_later(0.03, worker.pushes.resume, trigger)

    async def refuse(self):
        worker = self.luck.choice(self.workers)
        worker.refusing = self.luck.choice(TRIGGERS)
        asyncio.get_running_loop().call_later(0.02, setattr, worker, "refusing", None)

    async def restart_gateway(self):
        self.down = True
        await self.dispatch.close(self.luck.choice([0, 0.02]))
        await self.queue.close()
        await self.open()
        self.down = False

    async def renew_dispatch(self):
        await self.dispatch.close(self.luck.choice([0, 0.005]))
        self.begin_dispatch()

    async def break_all(self):
        self.outage = True
        await asyncio.sleep(0.03)
        self.outage = False

    async def break_store(self):
        def fail(_):
            raise StoreError("no disk")

        self.store.fail = fail
        await asyncio.sleep(0.02)
        self.store.fail = lambda _: None

    async def redrive(self):
        await self.queue.redrive(Which(trigger="parking"))

    # The end

    async def all_done(self):
        await self.redrive()
        rows = self.queue.counts().get("f", {})
        return not any(each.waiting or each.parked for each in rows.values())

    def saved(self):
        found = {}
        for key, (record, _) in self.store.records.items():
            for trigger, numbers in json.loads(record.value or b"{}").items():
                found[f"{trigger}/{key}"] = numbers
        return found | {f"stateless/{key}": list(numbers) for key, numbers in self.ran.items()}

    async def close(self):
        for worker in self.workers:
            await worker.drain()
        await self.dispatch.close()
        await self.queue.close()


FAULTS = [
    (name, getattr(World, name))
    for name in (
        *("cut", "cut", "garble", "kill", "drain", "scale", "pause", "leave_out", "refuse"),
        *("restart_gateway", "renew_dispatch", "break_all", "break_store", "redrive"),
    )
]


class Worker:
    def __init__(self, world, path, suspects):
        self.world = world
        self.path = path
        self.dead = False
        self.refusing = None
        routes = [
            route(AsyncHandler(self._run, state=True), trigger="live", breaker=Limits(keys=2, window=0.1), **PATIENT),
            route(PlainHandler(self._handle, state=True), trigger="plain", kind=1, **PATIENT),
            route(PlainHandler(self._handle, state=True), trigger="raw", kind=2, **PATIENT),
            route(
                BatchHandler(self._handle_all, state=True),
                trigger="batch",
                kind=3,
                batch=Batching(size=5, wait=0.005, by_key=True),
                **PATIENT,
            ),
            route(AsyncHandler(self._run, state=True), trigger="parking", kind=4, park=True, **PATIENT),
            route(AsyncHandler(self._run, state=True), trigger="kafka", kind=5, **PATIENT),
            route(AsyncHandler(self._note), trigger="stateless", kind=6, **PATIENT),
        ]
        self.road = Road(
            function="f",
            revision="r",
            routes=routes,
            store=Mortal(self, world.store),
            inbox=Mortal(self, GatewayOf(world)),
            publisher=ListPublisher(),
            meter=Metrics("f"),
            replace=pytest.fail,
            concurrency=4,
            alone=False,
        )
        self.road.own(NoNotes(), suspects)
        loaded = [self._loaded(each) for each in routes]
        self.pushes = PushSource(loaded, self.road.take, self._refuses)
        self.server = DeliverServer(
            Path(path), loaded, run_once=self.road.run_once, pushes=Slow(self), metrics=lambda: b""
        )
        self.server.listen()
        asyncio.get_running_loop().call_later(world.luck.choice([0, 0.02]), self._start)

    def _start(self):
        if not self.dead:
            self.pushes.start()

    def _loaded(self, route):
        spec = Trigger(name=route.trigger, key="kafka.key", kafka=Kafka(topic="t"))
        reader = spec.kind.reader(spec.block, Reading(trigger=route.trigger, function="f", key=None))
        return LoadedTrigger(spec, route, reader, decode if route.trigger == "raw" else None)

    def _refuses(self, trigger):
        return 0.01 if trigger == self.refusing else self.road.refuses(trigger)

    async def _run(self, call):
        await asyncio.sleep(self.world.luck.choice([0, 0, 0.001, 0.01]))
        return self._handle(call)

    async def _note(self, call):
        await asyncio.sleep(self.world.luck.choice([0, 0, 0.001]))
        answer = self._answer(call)
        if answer is None:
            self.world.ran[call.key].setdefault(int(call.event.id))
        return answer

    def _handle(self, call):
        state = json.loads(call.value or b"{}")
        answer = self._answer(call)
        if answer is None:
            state.setdefault(call.trigger, []).append(int(call.event.id))
            return json.dumps(state).encode()
        return answer

    def _handle_all(self, calls):
        answers, value = [], calls[0].value
        for call in calls:
            call.value = value
            answers.append(self._handle(call))
            value = answers[-1] if isinstance(answers[-1], bytes) else value
        return answers

    def _answer(self, call):
        """None: it is done."""
        world, number = self.world, int(call.event.id)
        if call.trigger == "live" and world.outage:
            raise ConnectionError
        if dies(call.trigger, number):
            return Rejected("no")
        if call.trigger == "parking" and number % 11 == 0 and not world.parked[number]:
            world.parked[number] += 1
            return Rejected("not yet")
        fate = 1.0 if world.calm else world.luck.random()
        if fate < 0.05:
            return Again()
        if fate < 0.1:
            return Again(after=0.06)
        if fate < 0.12:
            raise ValueError
        return None

    def die(self):
        """As if killed: nothing of it is saved or told from now on. What it had under way."""
        self.dead = True
        self.server._listener.close()
        Path(self.path).unlink(missing_ok=True)
        self.server.close()
        return list(self.pushes._under_way)

    async def drain(self):
        self.road.stop()
        self.pushes.stop()
        await self.server.drain()
        await self.road.quiet()
        await self.road.close()
        self.server.close()


class Slow:
    """Pushes overtake each other on their way in."""

    def __init__(self, worker):
        self._worker = worker

    def push(self, rows, asker):
        wait = self._worker.world.luck.choice([0, 0, 0, 0.02])
        asyncio.get_running_loop().call_later(wait, self._worker.pushes.push, rows, asker)


PATIENT = {"initial": 0.005, "attempts": 10_000}


class Mortal:
    """Store or inbox as a worker sees it: an answer comes late, or never, where it has died."""

    def __init__(self, worker, of):
        self._worker = worker
        self._of = of

    def __getattr__(self, name):
        call = getattr(self._of, name)

        async def ask(*args, **more):
            luck = self._worker.world.luck
            await asyncio.sleep(luck.choice([0, 0, 0.002]))
            await self._alive()
            answer = await call(*args, **more)
            await asyncio.sleep(luck.choice([0, 0, 0.002]))
            await self._alive()
            return answer

        return ask

    async def _alive(self):
        if self._worker.dead:
            await asyncio.Event().wait()


class GatewayOf:
    def __init__(self, world):
        self._world = world

    def __getattr__(self, name):
        async def ask(*args):
            if self._world.down:
                raise StoreError("no gateway")
            answer = await getattr(self._world.queue, name)(*args)
            if not self._world.calm and self._world.luck.random() < 0.1:
                raise StoreError("the answer is lost")
            return answer

        return ask


def key_of(number):
    return f"k{number % KEYS}"


def event_of(trigger, number):
    event = Event(id=str(number), source="test", type="test", data=b"%d" % number)
    return {"function": "f", "trigger": trigger, "key": key_of(number), "event": event}


def arrival(trigger, number):
    return Arrival(**event_of(trigger, number), source=str(number), raw=trigger == "raw")


def offer(trigger, number):
    return Offer(**event_of(trigger, number), position=At("kafka:t:1", 0, number), attempts=0, due=0.0)


def dies(trigger, number):
    """It is rejected, or unreadable."""
    return trigger != "parking" and number % 13 == 5


def decode(data):
    if dies("raw", int(data)):
        raise ValueError
    return {"number": int(data)}


@pytest.fixture
def hurried(monkeypatch):
    for name, value in {
        "fleetfn_gateway.dispatch.ASK": 0.01,
        "fleetfn_gateway.dispatch._LOST": 0.005,
        "fleetfn_gateway.dispatch._ALONE": 0.05,
        "fleetfn_gateway.dispatch._REFUSED": (0.005, 0.05),
        "fleetfn_gateway.dispatch._BACKOFF": (0.002, 0.02),
        "fleetfn_gateway.workers._BACKOFF": (0.002, 0.02),
        "fleetfn_runtime.push_source.NOT_HERE": 0.01,
        "fleetfn_runtime.ends.HERE": 0.05,
        "fleetfn_runtime.holds.BACKOFF": (0.002, 0.02),
        "fleetfn_runtime.stages.BACKOFF": (0.002, 0.02),
        "fleetfn_runtime.burial.BACKOFF": (0.002, 0.02),
        "fleetfn_runtime.breaker.FIRST": 0.01,
        "fleetfn_runtime.breaker.LONGEST": 0.05,
        "fleetfn_runtime.gates.SOON": 0.02,
    }.items():
        monkeypatch.setattr(name, value)


@pytest.mark.parametrize("seed", range(4))
async def test_rows_of_a_lane_are_saved_in_order_and_each_once(tmp_path, seed, hurried, monkeypatch):
    luck = random.Random(seed)
    monkeypatch.setattr("fleetfn_runtime.push_source.REMEMBER", luck.choice([3, 10_000]))
    with tempfile.TemporaryDirectory(prefix="fn-") as run:
        world = World(luck, tmp_path, run)
        await world.open()
        for _ in range(luck.randint(1, 3)):
            world.hire()
        async with asyncio.TaskGroup() as group:
            group.create_task(world.bring())
            group.create_task(world.disturb())
        await until(world.all_done, f"the end of all rows with seed {seed}")
        letters = await world.queue.dead(Which(), limit=1000)
        await world.close()
    assert world.saved() == world.put
    assert sorted((row.trigger, int(row.event.id)) for row in letters.rows) == sorted(
        (trigger, number) for trigger in TRIGGERS for number in range(ROWS) if dies(trigger, number)
    )
