"""The watch wakes who sleeps by the first record they have not handled, on the real and the embedded broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from fleetfn_node.sleepers import Sleepers
from fleetfn_node.watch import KafkaWatch
from fleetfn_triggers.kafka_client import backlog, commit_start_offsets
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_broker import Broker, committed, create_topic, eventually, fresh_name, produce
from kafka_doubles import no_secrets, until


class Woken:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.watch = KafkaWatch(lambda function, _trigger: self.names.append(function), resolve=no_secrets)


@pytest.fixture
async def woken() -> AsyncIterator[Woken]:
    made = Woken()
    yield made
    await made.watch.close()


async def fallen_asleep(woken: Woken, bootstrap: str, topic: str, *functions: str) -> dict[str, str]:
    """Deployed from latest and asleep; each one's group."""
    connection = KafkaConnection(brokers=[bootstrap])
    groups = {function: fresh_name(f"local/node/{function}/t") for function in functions}
    for function, group in groups.items():
        await commit_start_offsets(connection, topic, group, "latest", resolve=no_secrets)
        woken.watch.sleep(function, "t", topic, group, connection)
    return groups


async def test_the_first_record_wakes_all_that_wait_for_it(woken: Woken, broker: str, either_topic: str) -> None:
    await fallen_asleep(woken, broker, either_topic, "a", "b")
    await asyncio.sleep(0.3)
    assert woken.names == []
    begun = time.monotonic()
    await asyncio.to_thread(produce, broker, either_topic, [("k", b"1")])
    await until(lambda: sorted(woken.names) == ["a", "b"])
    assert time.monotonic() - begun < 25  # by the record, not by a look that comes every 30 s


async def test_who_was_woken_is_not_woken_again_until_asleep_again(
    woken: Woken, broker: str, either_topic: str
) -> None:
    groups = await fallen_asleep(woken, broker, either_topic, "a")
    for _ in range(3):
        await asyncio.to_thread(produce, broker, either_topic, [("k", b"1")])
        await until(lambda: woken.names)
    await asyncio.sleep(0.3)
    assert woken.names == ["a"]
    woken.watch.sleep("a", "t", either_topic, groups["a"], KafkaConnection(brokers=[broker]))
    await until(lambda: woken.names == ["a", "a"])  # its backlog: nothing was handled


async def test_each_is_woken_from_its_own_offset(woken: Woken, broker: str, either_topic: str) -> None:
    connection = KafkaConnection(brokers=[broker])
    groups = await fallen_asleep(woken, broker, either_topic, "behind")
    woken.watch.forget("behind", "t")
    await asyncio.to_thread(produce, broker, either_topic, [("k", b"1")])
    await fallen_asleep(woken, broker, either_topic, "current")
    woken.watch.sleep("behind", "t", either_topic, groups["behind"], connection)
    await until(lambda: woken.names == ["behind"])
    await asyncio.sleep(0.3)
    assert woken.names == ["behind"]
    await asyncio.to_thread(produce, broker, either_topic, [("k", b"2")])
    await until(lambda: woken.names == ["behind", "current"])


async def test_who_was_forgotten_is_not_woken(woken: Woken, broker: str, either_topic: str) -> None:
    await fallen_asleep(woken, broker, either_topic, "a", "b")
    woken.watch.forget("a", "t")
    await asyncio.to_thread(produce, broker, either_topic, [("k", b"1")])
    await until(lambda: woken.names == ["b"])
    await asyncio.sleep(0.2)
    assert woken.names == ["b"]


async def test_without_committed_offsets_it_begins_with_the_oldest_record(
    woken: Woken, broker: str, either_topic: str
) -> None:
    group = fresh_name("local/node/a/t")
    produce(broker, either_topic, [("k", b"1")])
    woken.watch.sleep("a", "t", either_topic, group, KafkaConnection(brokers=[broker]))
    await until(lambda: woken.names == ["a"])
    assert committed(broker, group, either_topic) == [0, 0, 0, 0]


async def test_a_thousand_sleepers_share_one_thread(woken: Woken, broker: str, either_topic: str) -> None:
    connection = KafkaConnection(brokers=[broker])
    group = fresh_name("local/node/many/t")
    await commit_start_offsets(connection, either_topic, group, "latest", resolve=no_secrets)
    names = [f"f{number}" for number in range(1000)]
    for name in names:
        woken.watch.sleep(name, "t", either_topic, group, connection)
    assert [thread.name for thread in threading.enumerate()].count("kafka-watch") == 1
    await asyncio.to_thread(produce, broker, either_topic, [("k", b"1")])
    await until(lambda: len(woken.names) == 1000)
    assert sorted(woken.names) == sorted(names)


async def test_brokers_that_are_away_are_a_problem_of_those_who_sleep(woken: Woken, unused_tcp_port: int) -> None:
    woken.watch.sleep("a", "t", "topic", "g", KafkaConnection(brokers=[f"127.0.0.1:{unused_tcp_port}"]))
    await until(lambda: "unreachable since" in woken.watch.problem("a", "t"))
    assert woken.watch.problem("other", "t") == ""


@pytest.mark.kafka
async def test_a_missing_topic_is_a_problem_until_it_is_created(
    woken: Woken, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_node.watch_post.RETRY", 0.3)
    name = fresh_name()
    woken.watch.sleep("a", "t", name, fresh_name(), KafkaConnection(brokers=[kafka]))
    await until(lambda: "does not exist" in woken.watch.problem("a", "t"))
    await asyncio.to_thread(create_topic, kafka, name)
    await asyncio.to_thread(produce, kafka, name, [("k", b"1")])
    await until(lambda: woken.names == ["a"])


@pytest.mark.kafka
async def test_a_new_partition_wakes_too(woken: Woken, kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetfn_node.watch_post.LOOK_EVERY", 0.3)
    await fallen_asleep(woken, kafka, topic, "a")
    await asyncio.to_thread(add_partitions, kafka, topic, 6)
    await asyncio.to_thread(produce, kafka, topic, [("k", b"1", {"partition": 5})])
    await until(lambda: woken.names == ["a"])


@pytest.mark.kafka
async def test_markers_of_a_transaction_wake_nobody(woken: Woken, kafka: str, topic: str) -> None:
    groups = await fallen_asleep(woken, kafka, topic, "a")
    await asyncio.to_thread(abort_transaction, kafka, topic)
    connection = KafkaConnection(brokers=[kafka])
    limit = time.monotonic() + 60  # the broker writes the marker once it has answered
    while (ahead := await backlog(connection, topic, groups["a"], resolve=no_secrets)) != 2:  # the record and its own
        assert time.monotonic() < limit, ahead
    await asyncio.sleep(0.5)
    assert woken.names == []
    await asyncio.to_thread(produce, kafka, topic, [("k", b"1")])
    await until(lambda: woken.names == ["a"])


@pytest.mark.kafka
async def test_offsets_of_who_sleeps_on_are_committed_again_before_brokers_forget_them(
    woken: Woken, kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_node.watch_post.REFRESH_EVERY", 0.2)
    monkeypatch.setattr("fleetfn_node.watch_post.LOOK_EVERY", 0.2)
    groups = await fallen_asleep(woken, kafka, topic, "a")
    await until(lambda: any(sleeper.since for sleeper, _ in woken.watch._asleep.values()))
    (sleeper, _) = woken.watch._asleep["a", "t"]
    first = sleeper.since
    await until(lambda: sleeper.since > first)
    assert committed(kafka, groups["a"], topic) == [0, 0, 0, 0]


@pytest.mark.kafka
async def test_a_watch_at_rest_is_woken_by_a_record_and_by_who_falls_asleep(
    woken: Woken, kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_node.watch_post.REST", 0.5)
    monkeypatch.setattr("fleetfn_node.watch_post.LOOK_EVERY", 0.2)
    await fallen_asleep(woken, kafka, topic, "a", "b")
    (post,) = woken.watch._posts.values()
    consumers, reread = [], Sleepers.reread
    monkeypatch.setattr(Sleepers, "reread", lambda self: consumers.append(reread(self)))
    await until(lambda: post._resting)
    before = len(consumers)
    woken.watch.forget("b", "t")
    await until(lambda: len(consumers) >= before + 2)  # it looks up more often again, and rests anew
    await until(lambda: post._resting)
    await asyncio.to_thread(produce, kafka, topic, [("k", b"1")])
    await until(lambda: woken.names == ["a"])
    await until(lambda: post._resting)
    await fallen_asleep(woken, kafka, topic, "c")
    await asyncio.to_thread(produce, kafka, topic, [("k", b"2")])
    await until(lambda: woken.names == ["a", "c"])


async def test_the_watch_rests_but_for_an_embedded_broker(
    woken: Woken, broker: str, either_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one holds a fetch back until its wait is over, whatever is sent meanwhile."""
    monkeypatch.setattr("fleetfn_node.watch_post.REST", 0.2)
    monkeypatch.setattr("fleetfn_node.watch_post.LOOK_EVERY", 0.2)
    await fallen_asleep(woken, broker, either_topic, "a")
    (post,) = woken.watch._posts.values()
    look, looked = post._look, []
    monkeypatch.setattr(post, "_look", lambda now: looked.append(look(now)))
    await until(lambda: len(looked) > 1)
    await until(lambda: post._resting != post._embedded)


def add_partitions(bootstrap: str, topic: str, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_partitions([NewPartitions(topic, count)])[topic].result(30)
    eventually(lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == count)


def abort_transaction(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": fresh_name()})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, b"never", partition=0)
    producer.flush(60)
    producer.abort_transaction(60)


async def test_who_falls_asleep_after_a_restart_of_the_brokers_is_woken(woken: Woken, own_broker: Broker) -> None:
    """Their groups have another coordinator by then, or it is still loading."""
    topic = fresh_name()
    create_topic(own_broker.address, topic)
    groups = await fallen_asleep(woken, own_broker.address, topic, "a", "b", "c")
    await asyncio.to_thread(produce, own_broker.address, topic, [("k", b"1")])
    await until(lambda: len(woken.names) == 3)
    await asyncio.to_thread(own_broker.stop)
    await asyncio.to_thread(own_broker.start)
    for function, group in groups.items():
        woken.watch.sleep(function, "t", topic, group, KafkaConnection(brokers=[own_broker.address]))
    await until(lambda: len(woken.names) == 6)
