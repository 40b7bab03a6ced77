"""The Kafka source: what it hands over, what it commits, and where it begins. On the real and the embedded broker."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from fleetfn.invocation import Again
from fleetfn_runtime.kafka_holding import Bounds, Holding
from fleetfn_triggers.kafka_client import commit_start_offsets
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_broker import committed, create_topic, eventually, fresh_name, produce
from kafka_doubles import FakeRoad, at, no_secrets, running, settle, source, until


@pytest.fixture
def group() -> str:
    return fresh_name("local/node/f/t")


def records(count: int, keys: int = 10) -> list[tuple[str, bytes]]:
    return [(f"k{n % keys}", str(n).encode()) for n in range(count)]


@pytest.mark.parametrize("by_hand", [True, False], ids=["by-hand", "member"])
async def test_from_zero_there_is_no_three_second_join(
    broker: str, either_topic: str, group: str, *, by_hand: bool
) -> None:
    """A group that waits for more members waits each time; a slow machine is slow now and then."""
    produce(broker, either_topic, records(1))
    took: list[float] = []
    while not took or (took[-1] >= 3.0 and len(took) < 20):
        road = FakeRoad()
        begun = time.monotonic()
        async with running(source(broker, either_topic, f"{group}{len(took)}", road, by_hand=by_hand)):
            await until(lambda road=road: road.first)
        assert road.first is not None
        took.append(road.first - begun)
    assert took[-1] < 3.0, took


async def test_every_record_once_in_order_of_its_key(broker: str, either_topic: str, group: str) -> None:
    road = FakeRoad()
    made = source(broker, either_topic, group, road)
    await made.connect()
    async with running(made):
        await asyncio.to_thread(produce, broker, either_topic, records(2000))
        await until(lambda: len(road.taken) >= 2000)
    assert sorted(int(data or b"") for data in road.data) == list(range(2000))
    for key in range(10):
        mine = [int(each.event.data or b"") for each in road.taken if each.key == f"k{key}"]
        assert len(mine) == 200
        assert mine == sorted(mine)


async def test_drain_commits_what_is_settled_and_the_next_one_goes_on_there(
    broker: str, either_topic: str, group: str
) -> None:
    road = FakeRoad()
    produce(broker, either_topic, records(20))
    async with running(source(broker, either_topic, group, road)):
        await until(lambda: len(road.taken) == 20)
    assert sum(committed(broker, group, either_topic)) == 20
    produce(broker, either_topic, [("k1", b"new")])
    async with running(source(broker, either_topic, group, road)):
        await until(lambda: len(road.taken) > 20)
    assert road.data[20:] == [b"new"]


async def test_only_the_settled_prefix_is_committed(broker: str, either_topic: str, group: str) -> None:
    produce(broker, either_topic, [("k", str(n).encode(), {"partition": 2}) for n in range(10)])
    road = FakeRoad(holds=lambda delivery: delivery.event.data == b"4")
    async with running(source(broker, either_topic, group, road)):
        await until(lambda: len(road.taken) == 10)
    assert committed(broker, group, either_topic)[2] == 4
    again = FakeRoad()
    async with running(source(broker, either_topic, group, again)):
        await until(lambda: len(again.taken) == 6)
    assert again.data == [b"4", b"5", b"6", b"7", b"8", b"9"]
    assert committed(broker, group, either_topic)[2] == 10


async def test_what_settles_is_committed_while_it_runs(broker: str, either_topic: str, group: str) -> None:
    road = FakeRoad()
    made = source(broker, either_topic, group, road)
    await made.connect()
    async with running(made):
        await asyncio.to_thread(produce, broker, either_topic, records(8))
        await until(lambda: len(road.taken) == 8)
        await asyncio.to_thread(eventually, lambda: sum(committed(broker, group, either_topic)) == 8)
        await until(lambda: made.lag == 0)


async def test_a_first_deploy_from_latest_misses_nothing_written_right_after(
    broker: str, either_topic: str, group: str
) -> None:
    produce(broker, either_topic, [("old", b"old")])
    made = source(broker, either_topic, group, road := FakeRoad())
    await made.connect()
    produce(broker, either_topic, [("new", b"new")])  # nobody consumes yet
    async with running(made):
        await until(lambda: road.taken)
    assert road.data == [b"new"]


async def test_a_first_deploy_from_earliest_begins_with_the_oldest(broker: str, either_topic: str, group: str) -> None:
    produce(broker, either_topic, [("old", b"old")])
    made = source(broker, either_topic, group, road := FakeRoad(), start="earliest")
    await made.connect()
    async with running(made):
        await until(lambda: road.taken)
    assert road.data == [b"old"]


async def test_a_later_deploy_leaves_the_group_where_it_stands(broker: str, either_topic: str, group: str) -> None:
    connection = KafkaConnection(brokers=[broker])
    begun = await commit_start_offsets(connection, either_topic, group, "latest", resolve=no_secrets)
    assert begun == {0: 0, 1: 0, 2: 0, 3: 0}
    produce(broker, either_topic, [("k", b"1")])
    assert await commit_start_offsets(connection, either_topic, group, "latest", resolve=no_secrets) == {}
    assert committed(broker, group, either_topic) == [0, 0, 0, 0]


async def test_a_group_that_began_before_skips_nothing_where_the_broker_forgot_it(
    broker: str, either_topic: str, group: str, request: pytest.FixtureRequest
) -> None:
    """Only the embedded broker forgets: on a real one `latest` stays what it says."""
    produce(broker, either_topic, [("k", b"1")])
    made = source(broker, either_topic, group, FakeRoad(), began=True)
    await made.connect()
    forgets = request.node.callspec.params["broker"] == "embedded"
    assert sum(committed(broker, group, either_topic)) == (0 if forgets else 1)


async def test_keys_headers_and_tombstones_arrive(broker: str, either_topic: str, group: str) -> None:
    produce(
        broker,
        either_topic,
        [
            ("v1", None, {"partition": 0}),
            ("v1", b"{}", {"partition": 0, "headers": [("trace", b"\xff\x00"), ("empty", b"")]}),
        ],
    )
    road = FakeRoad()
    async with running(source(broker, either_topic, group, road)):
        await until(lambda: len(road.taken) == 2)
    tombstone, record = road.taken
    assert (tombstone.key, tombstone.event.data) == ("v1", None)
    assert record.event.headers == (("trace", b"\xff\x00"), ("empty", b""))
    assert at(record).partition == 0
    assert at(record).offset == 1


async def test_paused_takes_nothing_until_every_reason_is_gone(broker: str, either_topic: str, group: str) -> None:
    road = FakeRoad()
    made = source(broker, either_topic, group, road)
    await made.connect()
    made.pause("by hand")
    made.pause("output down")
    async with running(made):
        await asyncio.to_thread(produce, broker, either_topic, records(5))
        made.resume("by hand")
        await asyncio.sleep(0.5)  # time in which a source that runs takes them
        assert road.taken == []
        made.resume("output down")
        await until(lambda: len(road.taken) == 5)


async def test_what_is_not_settled_is_bounded(broker: str, either_topic: str, group: str) -> None:
    produce(broker, either_topic, records(6000))
    road = FakeRoad(holds=lambda _: True)
    async with running(source(broker, either_topic, group, road, bounds=Bounds(count=1000))):
        await until(lambda: len(road.taken) > 1000)
        await asyncio.sleep(3)  # beyond the patience after which partitions are paused
        assert len(road.taken) <= 1500  # the bound and one batch
        road.release()
        await until(lambda: len(road.taken) >= 6000)
        assert sorted(int(data or b"") for data in road.data) == list(range(6000))


async def test_two_triggers_of_one_topic_each_get_all(broker: str, either_topic: str, group: str) -> None:
    roads = FakeRoad(), FakeRoad()
    async with (
        running(source(broker, either_topic, f"{group}/a", roads[0])),
        running(source(broker, either_topic, f"{group}/b", roads[1])),
    ):
        await asyncio.to_thread(produce, broker, either_topic, records(50))
        await until(lambda: all(len(road.taken) == 50 for road in roads))


async def test_brokers_absent_at_the_start_are_a_problem_that_passes(group: str, unused_tcp_port: int) -> None:
    made = source(f"127.0.0.1:{unused_tcp_port}", "nowhere", group, FakeRoad())
    async with running(made):
        await until(lambda: made.problem)
        assert f"127.0.0.1:{unused_tcp_port}" in made.problem
        assert "unreachable since" in made.problem


@pytest.mark.kafka
async def test_partitions_that_are_added_later_begin_with_their_oldest_record(
    kafka: str, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_runtime.kafka_consuming.LOOK_EVERY", 0.5)
    road = FakeRoad()
    made = source(kafka, topic, group, road)
    await made.connect()
    async with running(made):
        await asyncio.to_thread(add_partitions, kafka, topic, 6)
        await asyncio.to_thread(produce, kafka, topic, [("k", b"new", {"partition": 5})])
        await until(lambda: road.taken)
    assert at(road.taken[0]).partition == 5


@pytest.mark.kafka
async def test_a_missing_topic_is_a_clear_problem_until_somebody_creates_it(kafka: str, group: str) -> None:
    name = fresh_name()
    road = FakeRoad()
    made = source(kafka, name, group, road)
    async with running(made):
        await until(lambda: made.problem == f"topic '{name}' does not exist on {kafka}")
        await asyncio.to_thread(create_topic, kafka, name)
        await asyncio.to_thread(produce, kafka, name, [("k", b"1")])
        await until(lambda: road.taken)
        await until(lambda: made.problem == "")


@pytest.mark.kafka
async def test_a_recreated_topic_is_another_stream_read_from_its_oldest_record(
    kafka: str, topic: str, group: str
) -> None:
    road = FakeRoad()
    made = source(kafka, topic, group, road)
    await made.connect()
    async with running(made):
        await asyncio.to_thread(produce, kafka, topic, [("k", str(n).encode(), {"partition": 0}) for n in range(5)])
        await until(lambda: len(road.taken) == 5)
        await asyncio.to_thread(recreate, kafka, topic)
        await asyncio.to_thread(produce, kafka, topic, [("k", b"anew", {"partition": 0})])
        await until(lambda: len(road.taken) == 6)
    first, last = at(road.taken[0]), at(road.taken[-1])
    assert road.data[-1] == b"anew"
    assert last.offset == 0
    assert first.stream != last.stream
    assert first.stream.startswith(f"kafka:{topic}:")


def add_partitions(bootstrap: str, topic: str, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_partitions([NewPartitions(topic, count)])[topic].result(60)
    eventually(lambda: len(admin.list_topics(topic, timeout=30).topics[topic].partitions) == count)


def recreate(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result(60)
    eventually(lambda: topic not in admin.list_topics(timeout=30).topics)
    create_topic(bootstrap, topic)


async def test_records_bear_the_epoch_of_their_partitions_claim(broker: str, either_topic: str, group: str) -> None:
    produce(broker, either_topic, records(20))
    road = FakeRoad()
    made = source(broker, either_topic, group, road, start="earliest")
    await made.connect()
    async with running(made):
        await until(lambda: len(road.taken) == 20)
    [(stream, partitions)] = road.claims
    assert stream.startswith(f"kafka:{either_topic}:")
    assert partitions == {0: 0, 1: 0, 2: 0, 3: 0}
    assert {each.epoch for each in road.taken} == {1}


@pytest.mark.parametrize("by_hand", [True, False], ids=["by-hand", "member"])
async def test_nothing_is_handed_over_before_the_inbox_has_granted_it(
    broker: str, either_topic: str, group: str, *, by_hand: bool
) -> None:
    produce(broker, either_topic, records(50))
    road = FakeRoad()
    road.inbox.clear()
    made = source(broker, either_topic, group, road, by_hand=by_hand)
    async with running(made):
        await until(lambda: "wait for the inbox since" in made.problem)
        assert made.problem.startswith("partitions 0, 1, 2, 3 ")
        await asyncio.sleep(0.3)  # time in which a source that did not ask would hand over
        assert road.taken == []
        road.inbox.set()
        await until(lambda: len(road.taken) == 50)
        await until(lambda: made.problem == "")
    assert sorted(int(data or b"") for data in road.data) == list(range(50))
    for key in range(10):
        mine = [int(each.event.data or b"") for each in road.taken if each.key == f"k{key}"]
        assert mine == sorted(mine)


async def test_an_inbox_that_fails_is_asked_again(broker: str, either_topic: str, group: str) -> None:
    produce(broker, either_topic, records(5))
    road = FakeRoad()
    road.failures = 2
    made = source(broker, either_topic, group, road)
    async with running(made):
        await until(lambda: len(road.taken) == 5)
        assert made.problem == ""
    assert len(road.claims) == 3


async def test_the_inbox_is_told_what_is_committed_where_it_may_remember_something(
    broker: str, either_topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_runtime.kafka_consuming.PASS_EVERY", 0.2)
    road = FakeRoad(holds=lambda delivery: delivery.event.data == b"offered")
    made = source(broker, either_topic, group, road)
    await made.connect()
    async with running(made):
        await asyncio.to_thread(
            produce, broker, either_topic, [("a", b"plain", {"partition": 1}), ("b", b"offered", {"partition": 2})]
        )
        await until(lambda: len(road.taken) == 2)
        settle(road.waiting[0], Again())
        await until(lambda: road.told)
        assert road.told == {2: 1}


@pytest.mark.kafka
async def test_new_partitions_wait_for_the_inbox_and_others_go_on(
    kafka: str, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_runtime.kafka_consuming.LOOK_EVERY", 0.5)
    road = FakeRoad()
    made = source(kafka, topic, group, road)
    await made.connect()
    async with running(made):
        await until(lambda: road.claims)
        road.inbox.clear()
        await asyncio.to_thread(add_partitions, kafka, topic, 5)
        await until(lambda: made.problem.startswith("partitions 4 wait"))
        await asyncio.to_thread(
            produce, kafka, topic, [("k", b"new", {"partition": 4}), ("k", b"old", {"partition": 0})]
        )
        await until(lambda: road.taken)
        await asyncio.sleep(0.2)
        assert road.data == [b"old"]
        road.inbox.set()
        await until(lambda: len(road.taken) == 2)


async def test_a_partition_that_stays_though_the_inbox_knows_of_a_later_claim_is_claimed_anew(
    broker: str, either_topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_runtime.kafka_consuming.PASS_EVERY", 0.1)
    monkeypatch.setattr("fleetfn_runtime.kafka_consuming.STALE", 0.1)
    produce(broker, either_topic, [("k", b"1", {"partition": 0})])
    road = FakeRoad(holds=lambda _: True)
    async with running(source(broker, either_topic, group, road)):
        await until(lambda: road.waiting)
        holding = road.waiting[0].source
        assert isinstance(holding, Holding)
        holding.stale()
        await until(lambda: len(road.taken) == 2)
        assert not holding.owned
        assert [each.epoch for each in road.taken] == [1, 2]
        road.release()


async def test_it_tells_when_it_does_not_know_yet_whether_something_waits(
    broker: str, either_topic: str, group: str
) -> None:
    """Its worker must not go to sleep before. It cannot know before its partitions are granted, on this loop."""
    made = source(broker, either_topic, group, FakeRoad())
    await made.connect()
    assert not made.looking
    async with running(made):
        assert made.looking
        made.pause("by hand")
        assert not made.looking
        made.resume("by hand")
        await until(lambda: made.lag == 0)
        assert not made.looking
