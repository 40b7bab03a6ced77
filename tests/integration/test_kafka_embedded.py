"""The embedded broker: its process, and the little it keeps."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from fleetfn_node.embedded_kafka import EmbeddedKafka
from kafka_broker import eventually, fresh_name, make_topic, produce
from kafka_doubles import FakeRoad, at, running, source, until

pytestmark = pytest.mark.node


async def test_it_is_a_process_that_others_reach_until_it_is_stopped() -> None:
    embedded = EmbeddedKafka()
    assert embedded.address is None
    first, second = await asyncio.gather(embedded.start(), embedded.start())
    assert first == second == embedded.address
    admin = AdminClient({"bootstrap.servers": first})
    assert admin.list_topics(timeout=30).brokers
    await embedded.stop()
    assert embedded.address is None
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(first.rpartition(":")[2]))


def test_it_ends_with_whoever_started_it() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", "fleetfn_node.embedded_kafka"], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["bootstrap"].startswith("127.0.0.1:")
        process.stdin.close()
        eventually(lambda: process.poll() is not None)
    assert process.returncode == 0


async def test_a_stopped_one_starts_again_empty() -> None:
    embedded = EmbeddedKafka()
    make_topic(await embedded.start(), name := fresh_name())
    await embedded.stop()
    admin = AdminClient({"bootstrap.servers": await embedded.start()})
    assert name not in admin.list_topics(timeout=30).topics
    await embedded.stop()


async def test_each_start_of_it_is_another_stream_so_that_marks_of_the_last_one_hide_nothing() -> None:
    streams: list[str] = []
    for _ in range(2):
        embedded = EmbeddedKafka()
        address = await embedded.start()
        make_topic(address, "telemetry")
        await asyncio.to_thread(produce, address, "telemetry", [("k", b"1")])
        road = FakeRoad()
        async with running(source(address, "telemetry", "g", road)):
            await until(lambda: road.taken)  # noqa: B023 - awaited here
        streams.append(at(road.taken[0]).stream)
        await embedded.stop()
    assert streams[0] != streams[1]
    assert all(stream.startswith("kafka:telemetry:mockCluster") for stream in streams)


async def test_it_keeps_about_5_mb_of_a_partition() -> None:
    embedded = EmbeddedKafka()
    address = await embedded.start()
    make_topic(address, name := fresh_name())
    await asyncio.to_thread(produce, address, name, [("k", b"x" * 1000, {"partition": 0})] * 8000)
    consumer = Consumer({"bootstrap.servers": address, "group.id": "any"})
    low, high = consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=30)
    consumer.close()
    await embedded.stop()
    assert high == 8000
    assert 4_000_000 < (high - low) * 1000 < 6_000_000
