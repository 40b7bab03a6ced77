"""MQTT outputs: what reaches the topic, and what is refused when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from fleetfn.cloudevents import mqtt as codec
from fleetfn.errors import OutputDown, OutputRefused
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn_runtime import mqtt_output
from fleetfn_runtime.mqtt_output import MqttPublisher
from fleetfn_triggers.mqtt import MqttOutput
from fleetfn_triggers.mqtt_connection import MqttConnection
from kafka_doubles import no_secrets
from mqtt_broker import OwnMosquitto, Watcher, fresh_topic, user_properties

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


def emit(data: bytes | None = b'{"level": 3}', *, output: str = "alerts", key: str | None = "v1", n: int = 1) -> Emit:
    event = Event[bytes | None](
        id=f"e{n}",
        source="/battery",
        type="alert",
        subject="v1",
        time=datetime(2026, 11, 20, 8, 15, tzinfo=UTC),
        datacontenttype="application/json",
        extensions={"severity": "high"},
        data=data,
    )
    return Emit(output, key, event)


class Made:
    def __init__(self, address: str, version: str = "5") -> None:
        self.address = address
        self.topic = fresh_topic()
        outputs = {
            "alerts": MqttOutput(topic=f"{self.topic}/{{key}}/alerts"),
            "twice": MqttOutput(topic=f"{self.topic}/all", qos=2, retain=True),
            "maybe": MqttOutput(topic=f"{self.topic}/maybe", qos=0),
        }
        connection = MqttConnection(url=f"mqtt://{address}", version=version)  # type: ignore[arg-type]  # a parameter
        self.publisher = MqttPublisher(connection, outputs, resolve=no_secrets, client_id="local/node/f")


@pytest.fixture
async def made(mqtt_broker: str, version: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    monkeypatch.setattr(mqtt_output, "TIMEOUT", 120.0)  # a disk may take longer over many acknowledgements
    found = Made(mqtt_broker, version)
    yield found
    await found.publisher.close()


@pytest.mark.parametrize("version", ["5"])
async def test_an_event_becomes_a_binary_cloudevent_on_the_topic_of_its_key(made: Made) -> None:
    with await asyncio.to_thread(lambda: Watcher(made.address, f"{made.topic}/#").__enter__()) as watcher:
        sent = emit()
        made.publisher.check(sent)
        assert await made.publisher.publish([sent]) == [None]
        (message,) = await asyncio.to_thread(watcher.wait, 1)
    assert (message.topic, message.payload, message.qos) == (f"{made.topic}/v1/alerts", b'{"level": 3}', 1)
    assert message.properties is not None
    assert message.properties.ContentType == "application/json"
    user = user_properties(message)
    assert ("id", "e1") in user
    assert codec.decode(message.properties.ContentType, user, message.payload) == sent.event


@pytest.mark.parametrize("version", ["3.1.1"])
async def test_with_mqtt_3_an_event_is_structured(made: Made) -> None:
    with await asyncio.to_thread(lambda: Watcher(made.address, f"{made.topic}/#", "3.1.1").__enter__()) as watcher:
        assert await made.publisher.publish([emit()]) == [None]
        (message,) = await asyncio.to_thread(watcher.wait, 1)
    assert codec.decode(None, (), message.payload) == emit().event


@VERSIONS
@pytest.mark.parametrize("output", ["alerts", "twice", "maybe"])
async def test_events_of_a_key_keep_their_order(made: Made, output: str) -> None:
    with await asyncio.to_thread(lambda: Watcher(made.address, f"{made.topic}/#").__enter__()) as watcher:
        for begin in range(0, 300, 50):
            chunk = [emit(str(n).encode(), output=output, n=n) for n in range(begin, begin + 50)]
            assert await made.publisher.publish(chunk) == [None] * 50
        found = await asyncio.to_thread(watcher.wait, 300)
    assert [user_properties(each) or each.payload for each in found] == [
        user_properties(each) or each.payload for each in sorted(found, key=_number)
    ]


def _number(message: object) -> int:
    user = dict(user_properties(message))  # type: ignore[arg-type]  # a message
    if user:
        return int(user["id"][1:])
    event = codec.decode(None, (), message.payload)  # type: ignore[attr-defined]  # a message
    assert event is not None
    return int(event.id[1:])


@VERSIONS
@pytest.mark.parametrize("key", ["a/b", "a+", "#", "a\0", None])
async def test_a_key_that_makes_no_topic_is_refused_before_the_save(made: Made, key: str | None) -> None:
    with pytest.raises(OutputRefused, match="key"):
        made.publisher.check(emit(key=key))


@VERSIONS
async def test_too_large_is_found_before_and_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputRefused, match="too large for topic"):
        made.publisher.check(emit(b"x" * 16 * 1024 * 1024))
    made.publisher.check(emit(b"x" * 100_000))


@VERSIONS
async def test_results_come_per_item_in_order(made: Made) -> None:
    results = await made.publisher.publish([emit(), emit(key="a/b"), emit(n=3), emit(output="nowhere")])
    assert results[0] is None
    assert isinstance(results[1], OutputRefused)
    assert results[2] is None
    assert isinstance(results[3], OutputRefused)


@VERSIONS
async def test_an_output_may_be_retained(made: Made) -> None:
    assert await made.publisher.publish([emit(output="twice", key=None)]) == [None]
    with await asyncio.to_thread(lambda: Watcher(made.address, f"{made.topic}/#").__enter__()) as watcher:
        (message,) = await asyncio.to_thread(watcher.wait, 1)
    assert message.retain


async def test_a_broker_that_is_away_is_an_output_down(unused_tcp_port: int) -> None:
    made = Made(f"127.0.0.1:{unused_tcp_port}")
    (error,) = await made.publisher.publish([emit()])
    assert isinstance(error, OutputDown)
    assert error.message == f'output "alerts": MQTT broker {made.address} cannot be reached: connection refused'


async def test_a_broker_that_does_not_acknowledge_is_an_output_down_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        monkeypatch.setattr(mqtt_output, "TIMEOUT", 0.2)  # of the acknowledgement: connecting may take longer
        writer.write(b"\x20\x03\x00\x00\x00")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        made = Made(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        results = await made.publisher.publish([emit(), emit(n=2)])
        await made.publisher.close()
    assert all(isinstance(error, OutputDown) for error in results)
    assert "has not acknowledged" in str(results[0])


@pytest.mark.mqtt
@VERSIONS
async def test_an_outage_ends_by_itself(own_mosquitto: OwnMosquitto, version: str) -> None:
    made = Made(own_mosquitto.address, version)
    assert await made.publisher.publish([emit()]) == [None]
    await asyncio.to_thread(own_mosquitto.stop)
    (error,) = await made.publisher.publish([emit(n=2)])
    assert isinstance(error, OutputDown)
    await asyncio.to_thread(own_mosquitto.start)
    async with asyncio.timeout(60):
        while await made.publisher.publish([emit(n=2)]) != [None]:  # noqa: ASYNC110 - tried again, as the road does
            await asyncio.sleep(0.05)
    await made.publisher.close()
