"""A worker on a real Kafka: kill -9, poison and drains, and what is in broker and store afterwards."""

import asyncio
import json

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from fleetfn_runtime.sqlite_store import SqliteStore
from fleetfn_triggers.kafka_connection import KafkaConnection
from gateway_process import GatewayProcess
from kafka_broker import create_topic, fresh_name, produce, read_all
from worker_process import WorkerProcess, function

pytestmark = [pytest.mark.kafka, pytest.mark.node]

HANDLER = """
import os
import msgspec
from fleetfn import Batch, Context, State


class Reading(msgspec.Struct):
    car: str
    n: int
    deadly: bool = False
    failing: bool = False


class Count(msgspec.Struct):
    total: int = 0
    seen: list[int] = []


def count(reading: Reading, state: State[Count], ctx: Context) -> Reading:
    ctx.log.info("attempt %d of %d", ctx.attempt, reading.n)
    if reading.deadly:
        os._exit(9)
    if reading.failing and ctx.attempt == 1:
        raise ValueError("not now")
    state.value.total += 1
    state.value.seen.append(reading.n)
    return reading


def count_together(readings: Batch[Reading], state: State[Count]) -> list:
    if any(reading.deadly for reading in readings):
        os._exit(9)
    state.value.total += len(readings)
    state.value.seen += [reading.n for reading in readings]
    return list(readings)
"""

BY_KEY = {"handler": "handler:count_together", "batch": {"by": "key", "wait": "50ms"}}
KINDS = pytest.mark.parametrize("trigger", [{}, BY_KEY], ids=["one by one", "batches"])


class Worker:
    """A function with topics of its own, and one worker at a time, which has the group for itself."""

    def __init__(self, folder, broker, *, trigger=None, **spec):
        self.folder, self.broker = folder, broker
        self.topic, self.alerts = fresh_name("telemetry"), fresh_name("alerts")
        for topic in (self.topic, self.alerts):
            create_topic(broker, topic)
        made = function(
            "counter",
            handler="handler:count",
            triggers=[{"name": "telemetry", "key": "data.car", "kafka": {"topic": self.topic}, **(trigger or {})}],
            outputs=[{"name": "alerts", "kafka": {"topic": self.alerts}}],
            returns="alerts",
            **spec,
        )
        connection = KafkaConnection(brokers=[broker])
        self.process = WorkerProcess(folder, HANDLER, made, kafka={"kafka": connection}, place=fresh_name("place"))
        run = self.process.run
        self.gateway = GatewayProcess(folder / "gateway", run / "gateway.sock", worker=run / "deliver.sock")

    async def open(self):
        await self.gateway.start().serving()
        return await self.start()

    async def start(self):
        self.process.start()
        await self.process.serving()
        return self

    async def killed(self):
        self.process.kill()
        assert await self.process.ended() == -9
        self.process.close()

    async def drained(self):
        assert await self.process.drain() == 0
        self.process.close()

    def send(self, readings):
        produce(self.broker, self.topic, [(reading["car"], json.dumps(reading).encode()) for reading in readings])

    async def states(self):
        store = await SqliteStore.open(self.process.data / "state.db")
        keys = (await store.keys()).keys
        loaded = await store.load(keys)
        await store.close()
        return {key: msgspec.json.decode(one.record.value) for key, one in zip(keys, loaded, strict=True)}

    async def counted(self, at_least):
        async def enough():
            return sum(state["total"] for state in (await self.states()).values()) >= at_least

        await eventually(enough)

    async def dead(self):
        return await self.gateway.dead()


def all_of(broker, topic):
    consumer = Consumer({"bootstrap.servers": broker, "group.id": fresh_name()})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=30)[1] for each in partitions]
    consumer.close()
    return read_all(broker, topic, sum(ends))


async def eventually(condition):
    async with asyncio.timeout(90):
        while True:
            if value := await condition():
                return value
            await asyncio.sleep(0.02)


@pytest.fixture
async def worker(tmp_path, kafka):
    made = []

    def make(**spec):
        made.append(Worker(tmp_path, kafka, **spec))
        return made[-1]

    yield make
    for one in made:
        one.process.close()
        await one.gateway.close()


@KINDS
async def test_kills_lose_nothing_and_count_nothing_twice(worker, trigger):
    one = await worker(trigger=trigger).open()
    cars, each, parts = 20, 60, 3
    readings = [{"car": f"car{n % cars}", "n": n // cars} for n in range(cars * each)]
    share = len(readings) // parts
    for part in range(parts):
        one.send(readings[part * share : (part + 1) * share])
        await one.counted(part * share + share // 4)
        await one.killed()
        await one.start()
    await one.counted(len(readings))
    assert {car: state["seen"] for car, state in (await one.states()).items()} == {
        f"car{car}": list(range(each)) for car in range(cars)
    }
    await one.drained()
    sent = [json.loads(message.value()) for message in all_of(one.broker, one.alerts)]
    assert {(reading["car"], reading["n"]) for reading in sent} == {(one["car"], one["n"]) for one in readings}


@KINDS
async def test_an_event_that_kills_its_process_is_given_up_on_and_the_others_go_on(worker, trigger):
    one = await worker(retry={"attempts": 2, "initial": "10ms"}, trigger=trigger).open()
    others = [{"car": "a", "n": 1}, {"car": "b", "n": 1}, {"car": "bad", "n": 8}]
    one.send([{"car": "bad", "n": 7, "deadly": True}, *others])
    for _ in range(2):
        assert await one.process.ended() == 9
        one.process.close()
        await one.start()
    [letter] = await eventually(one.dead)
    assert (letter.reason, letter.key, letter.attempts) == ("crashed", "bad", 2)
    await one.counted(len(others))
    assert (await one.states())["bad"]["seen"] == [8]
    await one.drained()


async def test_attempts_outlive_a_drain(worker):
    one = await worker(retry={"attempts": 3, "initial": "1500ms"}).open()
    one.send([{"car": "a", "n": 1, "failing": True}])

    async def failed():
        return any("to be tried again" in line["message"] for line in one.process.log())

    await eventually(failed)
    await one.drained()
    await one.start()
    await one.counted(1)
    await one.drained()
    attempts = [line["message"] for line in one.process.log() if line["message"].startswith("attempt")]
    assert attempts == ["attempt 1 of 1", "attempt 2 of 1"]
