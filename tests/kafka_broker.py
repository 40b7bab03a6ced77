"""Brokers for tests: the real one (`scripts/kafka.sh`), and what tests ask of any broker."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from fleetfn_node.embedded_kafka import EmbeddedKafka
from fleetfn_triggers.kafka_client import make_embedded
from free_ports import free_ports

SCRIPT = Path(__file__).parent.parent / "scripts" / "kafka.sh"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kafka() -> str:
    """Bootstrap address of a real Kafka: FN_TEST_KAFKA, or the one `scripts/kafka.sh` started."""
    named = os.environ.get("FN_TEST_KAFKA")
    address = named or run_script("address")
    host, _, port = address.partition(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        text = f"no Kafka at {address} ({error}); start one: scripts/kafka.sh start && scripts/kafka.sh wait"
        if os.environ.get("CI") == "true" or named:
            pytest.fail(text)
        pytest.skip(text)
    return address


@pytest.fixture
def topic(kafka: str) -> str:
    """A fresh topic of four partitions on the real broker."""
    name = fresh_name()
    create_topic(kafka, name)
    return name


class Broker:
    """A real broker of the test's own, to stop and start: own folder, own ports."""

    def __init__(self, folder: Path, properties: str = "") -> None:
        """`properties`: more lines of server.properties."""
        ours = {
            "FN_KAFKA_DIR": str(folder),
            "FN_KAFKA_PORT": str(free_ports(4)),
            "FN_KAFKA_PROPERTIES": properties,
        }
        self._env = {**os.environ, **ours}
        self.address = self._run("address")

    def start(self) -> None:
        self._run("start")
        self._run("wait")

    def stop(self) -> None:
        self._run("stop")

    def _run(self, command: str) -> str:
        return run_script(command, self._env)


@pytest.fixture
def own_broker(kafka: str, tmp_path: Path) -> Iterator[Broker]:
    """A second real broker; only where the script's first one can run."""
    if kafka != run_script("address"):
        pytest.skip("FN_TEST_KAFKA names a broker that tests must not restart")
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


def run_script(command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(SCRIPT), command], env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fresh_name(prefix: str = "t") -> str:
    return f"{prefix}-{os.getpid()}-{time.time_ns():x}-{next(_numbers)}"


def create_topic(bootstrap: str, name: str, partitions: int = 4, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(60)
    eventually(lambda: len(admin.list_topics(name, timeout=30).topics[name].partitions) == partitions)


Message = tuple[str | None, bytes | None]
"""Key and value; further fields of `produce` go into a dict in third place."""


def produce(bootstrap: str, topic: str, messages: Sequence[tuple[Any, ...]], **config: Any) -> None:
    """Write (key, value[, fields of Producer.produce]) and wait until all are acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "enable.idempotence": True, **config})
    errors: list[object] = []

    def report(error: object, _message: object) -> None:
        if error:
            errors.append(error)

    for key, value, *more in messages:
        producer.poll(0)
        producer.produce(topic, key=key, value=value, on_delivery=report, **(more[0] if more else {}))
    assert producer.flush(60) == 0
    assert errors == []


def committed(bootstrap: str, group: str, topic: str, partitions: int = 4) -> list[int]:
    """Committed offset per partition; -1001 where there is none."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        found = consumer.committed([TopicPartition(topic, n) for n in range(partitions)], timeout=30)
        return [partition.offset for partition in found]
    finally:
        consumer.close()


def read_all(bootstrap: str, topic: str, count: int, seconds: float = 60) -> list[Any]:
    """The first `count` messages of the topic, from the earliest."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": fresh_name(), "auto.offset.reset": "earliest"})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found: list[Any] = []
        limit = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < limit:
            found += [message for message in consumer.consume(count - len(found), 0.2) if message.error() is None]
        return found
    finally:
        consumer.close()


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until it holds, at most `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture(
    params=[
        pytest.param("embedded", marks=pytest.mark.node),
        pytest.param("real", marks=pytest.mark.kafka),
    ]
)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Bootstrap address of either broker: what holds for one holds for the other."""
    if request.param == "real":
        yield request.getfixturevalue("kafka")
        return
    embedded = EmbeddedKafka()
    yield await embedded.start()
    await embedded.stop()


@pytest.fixture
def either_topic(broker: str) -> str:
    """A fresh topic of four partitions on either broker."""
    name = fresh_name()
    make_topic(broker, name)
    return name


def make_topic(bootstrap: str, name: str) -> None:
    """Of four partitions; the embedded broker makes it when a producer touches it."""
    metadata = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=30)
    if not make_embedded(metadata, name, {"bootstrap.servers": bootstrap}):
        create_topic(bootstrap, name)
