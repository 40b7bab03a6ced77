"""More records than a worker can handle for a while: its memory is bounded, by count and by bytes, and none is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from confluent_kafka import Producer
from fleetfn_runtime.sqlite_store import SqliteStore
from fleetfn_spec.environments import Connection, Environment
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_broker import committed, create_topic, fresh_name
from running_node import RunningNode, wait_for, write_function
from storms import Watched

pytestmark = [pytest.mark.kafka, pytest.mark.node, pytest.mark.slow]

BACKLOG = 500_000
LARGE = 420
LARGE_BYTES = 900_000
SMALL_GROWTH = 180
"""Megabytes for 20,000 records of 1 kB, each with some kB of Python around it, and 16 MiB that the client fetched."""

LARGE_GROWTH = 250
"""Megabytes for 64 MiB of records, twice where they are decoded, and for what the client fetched; 378 would be all."""

LEAVING = 20
"""Seconds: it leaves by itself, without what it still has, and is not killed."""

HANDLER = """
import time

from fleetfn import State
from msgspec import Struct


class Message(Struct):
    slow: float
    filler: str


class Count(Struct):
    n: int = 0


def count(message: Message, state: State[Count]) -> None:
    time.sleep(message.slow)
    state.value.n += 1
"""
SPEC = """
handler: handler:count
triggers:
- {{name: in, key: kafka.key, kafka: {{topic: {topic}, start: earliest}}}}
scale: {{idle: 1s, concurrency: 4}}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path).start()
    yield node
    node.close()


def fill(bootstrap: str, topic: str, records: int, vehicles: int, value: bytes) -> None:
    """Vehicles in turn."""
    settings = {"linger.ms": 20, "queue.buffering.max.kbytes": 100_000, "enable.idempotence": True}
    producer = Producer({"bootstrap.servers": bootstrap, **settings})
    for number in range(records):
        while True:
            try:
                producer.produce(topic, value, key=f"V{number % vehicles}")
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def deploy(node: RunningNode, bootstrap: str, topic: str) -> None:
    kafka = Connection(name="kafka", kafka=KafkaConnection(brokers=[bootstrap]))
    environment = Environment(name="local", connections=[kafka])
    folder = write_function(node.data.parent / "count", HANDLER, SPEC.format(topic=topic), name="count")
    _, last = node.deploy(folder, environment)
    assert last.revision is not None, last


def check_each(node: RunningNode, kafka: str, topic: str, vehicles: int) -> list[int]:
    """Each event that is done was counted once, and each record below the committed offsets is done: the others are
    still in Kafka. How many of each vehicle are done.
    """
    place = (node.data / "id").read_text().strip()
    safe = committed(kafka, f"local/{place}/count/in", topic)
    store = SqliteStore(node.data / "functions" / "count" / "state.db")
    names = [f"V{number}" for number in range(vehicles)]
    found = [one.record for one in asyncio.run(store.load(names))]
    asyncio.run(store.close())
    counts = [msgspec.json.decode(record.value)["n"] for record in found if record.value is not None]
    assert len(counts) == vehicles
    marks = [next(iter(record.marks.offsets.items())) for record in found]
    partitions = [int(slot.rpartition("|")[2]) for slot, _ in marks]
    shares = Counter(partitions)  # the vehicles of a partition take turns in it
    for count, partition, (_, offset) in zip(counts, partitions, marks, strict=True):
        assert count == offset // shares[partition] + 1
        assert offset + shares[partition] >= safe[partition]
    return counts


def works(progress: list[int]) -> bool:
    return 0 < progress[len(progress) // 2] < progress[-1]


def met(node: RunningNode) -> int:
    """Vehicles that something is done of."""
    return len(node.client.states("count").keys)


class Flood(NamedTuple):
    grown: int
    """Megabytes that the worker grew by."""
    leaving: float
    """Seconds that the node took to end, with its worker."""
    done: list[int]
    """By vehicle."""


def flood(node: RunningNode, kafka: str, value: bytes, records: int, vehicles: int, seconds: float) -> Flood:
    """A backlog for a function that sleeps, and some seconds of it: until it works, and has met each vehicle."""
    topic = fresh_name("flood")
    create_topic(kafka, topic, partitions=4)
    deploy(node, kafka, topic)
    node.asleep("count")
    node.client.pause("count", ["in"])
    fill(kafka, topic, records, vehicles, value)
    node.client.resume("count", ["in"])
    (worker,) = wait_for(lambda: [each for each in node.status("count").workers if each.ready], what="a worker")
    watched = Watched(worker.pid)
    progress = [0]
    began = time.monotonic()
    while progress[-1] < records // 2 and (
        time.monotonic() < began + seconds or not works(progress) or met(node) < vehicles
    ):
        assert time.monotonic() < began + 120, progress
        watched.look()
        time.sleep(0.2)
        progress.append(node.status("count").counters.done)
    began = time.monotonic()
    assert node.stop() == 0
    return Flood(watched.most, time.monotonic() - began, check_each(node, kafka, topic, vehicles))


def test_a_backlog_of_half_a_million_records_is_worked_off_in_bounded_memory(node: RunningNode, kafka: str) -> None:
    value = msgspec.json.encode({"slow": 0.0002, "filler": "x" * 1000})
    ended = flood(node, kafka, value, BACKLOG, 1000, 4.0)
    assert sum(ended.done) < BACKLOG
    assert ended.grown < SMALL_GROWTH
    assert ended.leaving < LEAVING


def test_large_records_are_bounded_by_their_bytes_and_all_are_done_in_the_end(node: RunningNode, kafka: str) -> None:
    value = msgspec.json.encode({"slow": 0.1, "filler": "x" * LARGE_BYTES})
    ended = flood(node, kafka, value, LARGE, 30, 2.0)
    assert sum(ended.done) < LARGE
    assert ended.grown < LARGE_GROWTH
    assert ended.leaving < LEAVING
    node.start()
    wait_for(lambda: node.status("count").counters.done >= LARGE, 120, "all of them")
    wait_for(lambda: counts(node) == {LARGE // 30}, 120, "all of them, once each")


def counts(node: RunningNode) -> set[int]:
    return {node.client.state("count", f"V{number}").value["n"] for number in range(30)}
