"""Outputs: what reaches the topic, and what is refused when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from fleetfn.cloudevents import kafka as codec
from fleetfn.errors import FleetError, OutputDown, OutputRefused
from fleetfn_runtime import kafka_output
from fleetfn_runtime.kafka_output import KafkaPublisher
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_broker import fresh_name, read_all
from kafka_doubles import emit, no_secrets, until


@pytest.fixture
async def publisher(broker: str, either_topic: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KafkaPublisher]:
    monkeypatch.setattr(kafka_output, "TIMEOUT", 60.0)
    connection = KafkaConnection(brokers=[broker])
    made = KafkaPublisher(connection, {"alerts": either_topic}, resolve=no_secrets, client_id="local/node/f")
    yield made
    await made.close()


async def test_an_event_becomes_a_binary_cloudevent_keyed_by_its_key(
    publisher: KafkaPublisher, broker: str, either_topic: str
) -> None:
    sent = emit(b'{"level": 3}')
    publisher.check(sent)
    assert await publisher.publish([sent]) == [None]
    (record,) = await asyncio.to_thread(read_all, broker, either_topic, 1)
    assert record.key() == b"v1"
    assert record.value() == b'{"level": 3}'
    assert dict(record.headers())["ce_type"] == b"alert"
    event = codec.decode(record.headers(), record.key(), record.value())
    assert event == sent.event


async def test_an_event_without_key_or_data_is_sent_as_it_is(
    publisher: KafkaPublisher, broker: str, either_topic: str
) -> None:
    assert await publisher.publish([emit(None, key=None)]) == [None]
    (record,) = await asyncio.to_thread(read_all, broker, either_topic, 1)
    assert (record.key(), record.value()) == (None, None)


async def test_events_of_a_key_keep_their_order(publisher: KafkaPublisher, broker: str, either_topic: str) -> None:
    numbers = range(500)
    results = await asyncio.gather(
        *(
            publisher.publish([emit(str(n).encode()) for n in numbers[begin : begin + 50]])
            for begin in range(0, 500, 50)
        )
    )
    assert results == [[None] * 50] * 10
    found = await asyncio.to_thread(read_all, broker, either_topic, 500)
    assert [int(record.value()) for record in found] == list(numbers)


async def test_too_large_is_found_before_and_named(publisher: KafkaPublisher) -> None:
    with pytest.raises(OutputRefused, match="too large"):
        publisher.check(emit(b"x" * 1_000_000))
    publisher.check(emit(b"x" * 990_000))


async def test_the_largest_that_check_lets_through_is_taken(publisher: KafkaPublisher) -> None:
    low, high = 900_000, 1_000_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            publisher.check(emit(b"x" * middle))
            low = middle
        except OutputRefused:
            high = middle
    assert await publisher.publish([emit(b"x" * low)]) == [None]


async def test_an_unknown_output_is_refused(publisher: KafkaPublisher) -> None:
    with pytest.raises(OutputRefused, match='no output "nowhere"'):
        publisher.check(emit(b"{}", output="nowhere"))


async def test_results_come_per_item_in_order(publisher: KafkaPublisher) -> None:
    results = await publisher.publish([emit(b"1"), emit(b"x" * 2_000_000), emit(b"3"), emit(b"4", output="nowhere")])
    assert results[0] is None
    assert isinstance(results[1], OutputRefused)
    assert results[2] is None
    assert isinstance(results[3], OutputRefused)


async def test_a_client_that_broke_for_good_is_replaced(publisher: KafkaPublisher) -> None:
    first = publisher._producer
    publisher._broken = True
    await until(lambda: publisher._producer is not first)
    assert await publisher.publish([emit(b"1")]) == [None]


async def test_brokers_that_do_not_answer_are_an_output_down_in_bounded_time(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfn_runtime.kafka_output.TIMEOUT", 1.0)
    connection = KafkaConnection(brokers=[f"127.0.0.1:{unused_tcp_port}"])
    publisher = KafkaPublisher(connection, {"alerts": "t"}, resolve=no_secrets, client_id="t")
    (error,) = await publisher.publish([emit(b"{}")])
    assert isinstance(error, OutputDown)
    assert str(unused_tcp_port) in error.message
    await publisher.close()


async def test_settings_that_the_client_does_not_know_are_an_error_at_once() -> None:
    connection = KafkaConnection(brokers=["127.0.0.1:1"], properties={"no.such.setting": 1})
    with pytest.raises(FleetError, match=r"no\.such\.setting"):
        KafkaPublisher(connection, {"alerts": "t"}, resolve=no_secrets, client_id="t")


@pytest.mark.kafka
async def test_a_missing_topic_is_an_output_down_that_says_so(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetfn_runtime.kafka_output.TIMEOUT", 60.0)  # it is known long before
    name = fresh_name()
    connection = KafkaConnection(brokers=[kafka])
    publisher = KafkaPublisher(connection, {"alerts": name}, resolve=no_secrets, client_id="t")
    (error,) = await publisher.publish([emit(b"{}")])
    assert isinstance(error, OutputDown)
    assert error.message == f"topic '{name}' does not exist on {kafka}"
    await publisher.close()


@pytest.mark.node
async def test_what_waits_for_brokers_that_are_away_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_output, "TIMEOUT", 1.0)
    monkeypatch.setattr(kafka_output, "QUEUED", 4 * 1024 * 1024)
    publisher = KafkaPublisher(
        KafkaConnection(brokers=["127.0.0.1:1"]), {"alerts": "alerts"}, resolve=no_secrets, client_id="local/node/f"
    )
    queue = Watched(publisher._producer)
    publisher._producer = queue  # type: ignore[assignment]
    results = await publisher.publish([emit(b"x" * 900_000) for _ in range(8)])
    assert {type(result) for result in results} == {OutputDown}
    assert queue.most == 4
    await publisher.close()


class Watched:
    """A producer, and how many events it has held at most."""

    def __init__(self, producer: Producer) -> None:
        self.most = 0
        self._held: set[int] = set()
        self._numbers = itertools.count()
        self._producer = producer

    def produce(self, *args: Any, on_delivery: Callable[[Any, Any], None], **more: Any) -> None:
        number = next(self._numbers)

        def report(error: Any, message: Any) -> None:
            self._held.discard(number)
            on_delivery(error, message)

        self._held.add(number)
        try:
            self._producer.produce(*args, on_delivery=report, **more)
        except BufferError:
            self._held.discard(number)
            raise
        self.most = max(self.most, len(self._held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)
