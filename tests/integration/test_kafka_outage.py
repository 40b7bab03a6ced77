"""Brokers that go and come back, and a consumer that is killed: nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetfn.errors import OutputDown
from fleetfn_runtime.kafka_output import KafkaPublisher
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_broker import Broker, committed, create_topic, eventually, fresh_name, produce
from kafka_doubles import FakeRoad, emit, no_secrets, running, source, until


@pytest.fixture
def group() -> str:
    return fresh_name("local/node/f/t")


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_restarted_broker_is_found_again_and_nothing_is_lost(
    own_broker: Broker, group: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "fleetfn.kafka")
    monkeypatch.setattr("fleetfn_runtime.kafka_output.TIMEOUT", 2.0)
    topic = fresh_name()
    create_topic(own_broker.address, topic)
    publisher = KafkaPublisher(
        KafkaConnection(brokers=[own_broker.address]), {"alerts": topic}, resolve=no_secrets, client_id="t"
    )
    road = FakeRoad()
    made = source(own_broker.address, topic, group, road)
    await made.connect()
    async with running(made):
        await published(publisher, b"before")
        await until(lambda: b"before" in road.data)

        await asyncio.to_thread(own_broker.stop)
        await until(lambda: "unreachable since" in made.problem)
        (error,) = await publisher.publish([emit(b"meanwhile")])
        assert isinstance(error, OutputDown)

        await asyncio.to_thread(own_broker.start)
        await until(lambda: made.problem == "")
        await published(publisher, b"after")  # its own connection may come back a moment later
        await until(lambda: b"after" in road.data)

        def commits() -> int:
            return sum(max(0, each) for each in committed(own_broker.address, group, topic))

        await asyncio.to_thread(eventually, lambda: commits() == len(road.taken))
    await publisher.close()
    told = [record.message for record in caplog.records if "unreachable" in record.message]
    assert told
    assert len(told) == len(set(told))  # each names its second: a broker that is slow to come back may go once more


async def published(publisher: KafkaPublisher, data: bytes) -> None:
    """Again and again, as the road does: two seconds may pass before a busy machine has connected."""
    async with asyncio.timeout(60):
        while await publisher.publish([emit(data)]) != [None]:
            pass


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_source_whose_broker_is_gone_drains_in_bounded_time(own_broker: Broker, group: str) -> None:
    topic = fresh_name()
    create_topic(own_broker.address, topic)
    road = FakeRoad(holds=lambda _: True)
    made = source(own_broker.address, topic, group, road)
    await made.start()
    await asyncio.to_thread(produce, own_broker.address, topic, [("k", b"1")])
    await until(lambda: road.taken)
    await asyncio.to_thread(own_broker.stop)
    road.release()
    await asyncio.wait_for(made.drain(), 30)


CHILD = Path(__file__).parent / "kafka_child.py"


@pytest.fixture
def child(kafka: str, topic: str, group: str, tmp_path: Path) -> Iterator[Child]:
    made = Child(kafka, topic, group, tmp_path / "handled")
    yield made
    made.kill()


class Child:
    """A process that consumes and writes down what it handled."""

    def __init__(self, *args: object) -> None:
        self._command = [sys.executable, str(CHILD), *map(str, args)]
        self._handled = Path(str(args[-1]))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def handled(self) -> list[int]:
        return [int(line) for line in self._handled.read_text().split()] if self._handled.exists() else []


@pytest.mark.kafka
def test_kill_9_at_any_moment_loses_nothing(kafka: str, topic: str, group: str, child: Child) -> None:
    count = 3000
    produce(kafka, topic, [(f"k{n % 30}", str(n).encode()) for n in range(count)])
    for enough in (500, 1200, 2000):
        child.start()
        eventually(lambda enough=enough: len(set(child.handled())) >= enough)
        child.kill()
    child.start()
    eventually(lambda: len(set(child.handled())) == count)
    eventually(lambda: sum(max(0, each) for each in committed(kafka, group, topic)) == count)
