"""A source as a member of its group: partitions come and go, and nothing is lost or out of order."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from fleetfn_runtime import kafka_partitions
from fleetfn_runtime.kafka_partitions import AsMember
from fleetfn_triggers.kafka_membership import CLASSIC, CONSUMER
from kafka_broker import Broker, committed, create_topic, fresh_name, produce
from kafka_doubles import FakeRoad, at, running, source, until


@pytest.fixture
def group() -> str:
    return fresh_name("local/node/f/t")


@pytest.mark.kafka
async def test_a_second_member_takes_over_partitions_and_nothing_is_lost(kafka: str, topic: str, group: str) -> None:
    first, second = FakeRoad(), FakeRoad()
    one = source(kafka, topic, group, first, by_hand=False)
    await one.connect()
    enough = threading.Event()
    sending = asyncio.create_task(asyncio.to_thread(send_until, enough, kafka, topic))
    async with running(one):
        await until(lambda: first.taken)
        async with running(source(kafka, topic, group, second, by_hand=False)):
            try:
                await until(lambda: len(second.taken) > 20)
            finally:
                enough.set()
            count = await sending
            await until(lambda: len({each.event.data for each in first.taken + second.taken}) == count)
    assert sum(committed(kafka, group, topic)) == count
    for road in (first, second):
        for number in range(4):
            mine = [at(each).offset for each in road.taken if at(each).partition == number]
            assert mine == sorted(mine)
    shared = {at(each).partition for each in second.taken}
    assert 0 < len(shared) < 4


@pytest.mark.kafka
async def test_what_is_not_settled_when_a_partition_goes_comes_again_at_its_new_owner(
    kafka: str, topic: str, group: str
) -> None:
    produce(kafka, topic, [("k", str(n).encode(), {"partition": n % 4}) for n in range(40)])
    first, second = FakeRoad(holds=lambda delivery: at(delivery).offset >= 5), FakeRoad()
    one = source(kafka, topic, group, first, by_hand=False)
    async with running(one):
        await until(lambda: len(first.taken) == 40)
        async with running(source(kafka, topic, group, second, by_hand=False)):
            await until(lambda: len(second.taken) >= 10)  # of two of the four, which may come one by one
            moved = {at(each).partition for each in second.taken}
            lost = [each for each in first.taken if not each.source.owns(each)]
            assert {at(each).partition for each in lost} >= moved
            assert first.forgets >= 1
            assert {at(each).offset for each in second.taken} == {5, 6, 7, 8, 9}
            first.release()
    assert committed(kafka, group, topic) == [10, 10, 10, 10]


@pytest.mark.kafka
@pytest.mark.slow
async def test_brokers_without_the_new_group_protocol_get_the_classic_one(
    kafka: str, tmp_path: Path, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(tmp_path, "group.coordinator.rebalance.protocols=classic")
    broker.start()
    try:
        topic = fresh_name()
        create_topic(broker.address, topic)
        produce(broker.address, topic, [("k", b"1")])
        road = FakeRoad()
        async with running(source(broker.address, topic, group, road, by_hand=False)):
            await until(lambda: road.taken)
    finally:
        broker.stop()
    assert "joining by the classic one" in caplog.text


def send_until(enough: threading.Event, bootstrap: str, topic: str) -> int:
    """A stream that lasts while members come and go; how many records it had."""
    count = 0
    while not enough.wait(0.05):
        produce(bootstrap, topic, [(f"k{n % 20}", str(n).encode()) for n in range(count, count + 10)])
        count += 10
    return count


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", [CONSUMER, CLASSIC], ids=["consumer", "classic"])
async def test_start_offsets_of_a_new_topic_are_committed_while_the_group_has_members(
    kafka: str, topic: str, group: str, protocol: dict[str, str]
) -> None:
    road = FakeRoad()
    before = source(kafka, topic, group, road, partitions=AsMember(protocol))
    await before.connect()
    other = fresh_name()
    create_topic(kafka, other)
    produce(kafka, other, [(None, b"before the deploy")])
    async with running(before):
        produce(kafka, topic, [(None, b"1")])
        await until(lambda: road.data == [b"1"])
        after = source(kafka, other, group, (new := FakeRoad()), partitions=AsMember(protocol))
        await after.connect()
        assert sum(committed(kafka, group, other)) == 1
        produce(kafka, other, [(None, b"after it")])
        async with running(after):
            await until(lambda: new.data == [b"after it"])
            produce(kafka, topic, [(None, b"2")])
            # The first comes twice where the group changed before its commit had been answered.
            await until(lambda: b"2" in road.data)
            assert set(road.data) == {b"1", b"2"}


@pytest.mark.kafka
async def test_a_group_that_stands_nowhere_begins_with_what_comes_from_now_on(
    kafka: str, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_partitions, "_ANSWER", 60.0)  # without an answer it begins with the oldest
    produce(kafka, topic, [(str(number), b"old") for number in range(20)])
    async with running(source(kafka, topic, group, (road := FakeRoad()), by_hand=False, begins="latest")):
        await until(lambda: sum(committed(kafka, group, topic)) == 20)
    produce(kafka, topic, [("v1", b"new")])
    async with running(source(kafka, topic, group, road, by_hand=False, begins="latest")):
        await until(lambda: road.taken)
    assert road.data == [b"new"]


@pytest.mark.kafka
async def test_a_partition_that_came_later_begins_with_its_oldest_record(kafka: str, group: str) -> None:
    topic = fresh_name()
    create_topic(kafka, topic, partitions=1)
    await source(kafka, topic, group, FakeRoad(), by_hand=False).connect()
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(60)
    await until(lambda: len(admin.list_topics(topic, timeout=30).topics[topic].partitions) == 2)
    produce(kafka, topic, [(None, b"early", {"partition": 1})])
    async with running(source(kafka, topic, group, (road := FakeRoad()), by_hand=False, begins="latest")):
        await until(lambda: road.data == [b"early"])
