"""What every Publisher promises: over HTTP, Kafka and MQTT, and all of a function's outputs in one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from dapr_sidecars import Sidecars, published
from fleetfn.cloudevents import http as http_codec
from fleetfn.cloudevents import json as json_codec
from fleetfn.cloudevents import kafka as kafka_codec
from fleetfn.cloudevents import mqtt as mqtt_codec
from fleetfn.errors import OutputDown, OutputRefused
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn_node.embedded_kafka import EmbeddedKafka
from fleetfn_node.embedded_mqtt import EmbeddedMqtt
from fleetfn_runtime import kafka_output
from fleetfn_runtime.dapr_output import DaprPublisher
from fleetfn_runtime.dapr_sidecar import Sidecar
from fleetfn_runtime.http_output import HttpPublisher
from fleetfn_runtime.kafka_output import KafkaPublisher
from fleetfn_runtime.mqtt_output import MqttPublisher
from fleetfn_runtime.outputs import Outputs
from fleetfn_runtime.publisher import Publisher
from fleetfn_triggers.dapr_output import DaprOutput
from fleetfn_triggers.http_output import HttpOutput
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.mqtt import MqttOutput
from fleetfn_triggers.mqtt_connection import MqttConnection
from http_receiver import receiving
from kafka_broker import fresh_name, make_topic, read_all
from kafka_doubles import no_secrets
from mqtt_broker import Watcher, fresh_topic, user_properties

NOWHERE = "127.0.0.1:1"


@dataclass
class End:
    """A publisher of the output `alerts`, and what has arrived there so far, at least `count`."""

    publisher: Publisher
    arrived: Callable[[int], Awaitable[list[Event[Any]]]]


@contextlib.asynccontextmanager
async def over_http() -> AsyncIterator[End]:
    async with receiving() as receiver:
        publisher = HttpPublisher({"alerts": HttpOutput(url=receiver.url)}, resolve=no_secrets)

        async def arrived(count: int) -> list[Event[Any]]:
            found = [http_codec.decode(_known(each.headers), each.body) for each in receiver.received]
            return [event for event in found if isinstance(event, Event)]

        yield End(publisher, arrived)
        await publisher.close()


def _known(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "user-agent"}


@contextlib.asynccontextmanager
async def over_kafka() -> AsyncIterator[End]:
    broker, topic = EmbeddedKafka(), fresh_name()
    address = await broker.start()
    await asyncio.to_thread(make_topic, address, topic)
    publisher = KafkaPublisher(
        KafkaConnection(brokers=[address]), {"alerts": topic}, resolve=no_secrets, client_id="test"
    )

    async def arrived(count: int) -> list[Event[Any]]:
        records = await asyncio.to_thread(read_all, address, topic, count)
        found = [kafka_codec.decode(each.headers(), each.key(), each.value()) for each in records]
        return [event for event in found if isinstance(event, Event)]

    yield End(publisher, arrived)
    await publisher.close()
    await broker.stop()


@contextlib.asynccontextmanager
async def over_mqtt() -> AsyncIterator[End]:
    broker, topic = EmbeddedMqtt(), fresh_topic()
    address = await broker.start()
    connection = MqttConnection(url=f"mqtt://{address}")
    publisher = MqttPublisher(connection, {"alerts": MqttOutput(topic=topic)}, resolve=no_secrets, client_id="test")
    watcher = await asyncio.to_thread(Watcher(address, topic).__enter__)

    async def arrived(count: int) -> list[Event[Any]]:
        found = []
        for each in await asyncio.to_thread(watcher.wait, count):
            kind = getattr(each.properties, "ContentType", None)
            found.append(mqtt_codec.decode(kind, user_properties(each), each.payload))
        return [event for event in found if event is not None]

    yield End(publisher, arrived)
    await asyncio.to_thread(watcher.__exit__)
    await publisher.close()
    await broker.stop()


@contextlib.asynccontextmanager
async def over_dapr(sidecars: Sidecars) -> AsyncIterator[End]:
    topic = fresh_name()
    publisher = DaprPublisher(Sidecar(sidecars.first), {"alerts": DaprOutput(pubsub="pubsub", topic=topic)})

    async def arrived(count: int) -> list[Event[Any]]:
        return [json_codec.decode(each) for each in await asyncio.to_thread(published, sidecars, topic)]

    yield End(publisher, arrived)
    await publisher.close()


@contextlib.asynccontextmanager
async def as_outputs() -> AsyncIterator[End]:
    async with over_http() as one, over_http() as other:
        yield End(Outputs({"alerts": one.publisher, "reports": other.publisher}), one.arrived)


KINDS = {"http": over_http, "kafka": over_kafka, "mqtt": over_mqtt, "all outputs": as_outputs}


@pytest.fixture(
    params=[
        *(pytest.param(name, marks=[pytest.mark.node] * (name in ("kafka", "mqtt"))) for name in KINDS),
        pytest.param("dapr", marks=pytest.mark.dapr),
    ]
)
async def end(request: pytest.FixtureRequest) -> AsyncIterator[End]:
    dapr = request.param == "dapr"
    async with over_dapr(request.getfixturevalue("sidecars")) if dapr else KINDS[request.param]() as opened:
        yield opened


def emit(data: bytes | None = b"{}", *, key: str | None = "V1", output: str = "alerts") -> Emit:
    event: Event[bytes | None] = Event(
        id=f"f/t/1-{(data or b'').decode()}",
        source="/functions/f",
        type="f.alerts",
        subject=key,
        time=datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC),
        datacontenttype="application/json",
        extensions={"partitionkey": key, "level": "3"} if key else {},
        data=data,
    )
    return Emit(output, key, event)


async def test_an_event_arrives_as_it_was_emitted(end: End) -> None:
    sent = emit(b'{"level": 3, "text": "\xe7\x94\xb5"}', key="京A1")
    end.publisher.check(sent)
    assert await end.publisher.publish([sent]) == [None]
    (event,) = await end.arrived(1)
    assert event == sent.event


async def test_events_of_a_key_arrive_in_order_over_many_calls(end: End) -> None:
    calls = [[emit(b"%d" % (3 * n + i), key=f"V{n % 3}") for i in range(3)] for n in range(60)]
    assert await asyncio.gather(*(end.publisher.publish(call) for call in calls)) == [[None] * 3] * 60
    events = await end.arrived(180)
    for key in ("V0", "V1", "V2"):
        numbers = [int(event.data) for event in events if event.subject == key]
        assert numbers == sorted(numbers)
        assert len(numbers) == 60


async def test_what_an_output_never_takes_is_told_before_and_fails_no_other(end: End) -> None:
    refused = emit(output="nowhere")
    with pytest.raises(OutputRefused, match='there is no output "nowhere"'):
        end.publisher.check(refused)
    results = await end.publisher.publish([emit(b"1"), refused, emit(b"2")])
    assert [type(each) for each in results] == [type(None), OutputRefused, type(None)]
    assert [event.data for event in await end.arrived(2)] == [b"1", b"2"]


async def test_an_event_without_key_arrives(end: End) -> None:
    assert await end.publisher.publish([emit(b"7", key=None)]) == [None]
    (event,) = await end.arrived(1)
    assert event.data == b"7"


async def test_nothing_asked_nothing_answered(end: End) -> None:
    assert await end.publisher.publish([]) == []


def http_nowhere() -> Publisher:
    return HttpPublisher({"alerts": HttpOutput(url=f"http://{NOWHERE}/")}, resolve=no_secrets)


def kafka_nowhere() -> Publisher:
    connection = KafkaConnection(brokers=[NOWHERE])
    return KafkaPublisher(connection, {"alerts": "t"}, resolve=no_secrets, client_id="test")


def mqtt_nowhere() -> Publisher:
    connection = MqttConnection(url=f"mqtt://{NOWHERE}")
    return MqttPublisher(connection, {"alerts": MqttOutput(topic="t")}, resolve=no_secrets, client_id="test")


def dapr_nowhere() -> Publisher:
    return DaprPublisher(Sidecar(f"http://{NOWHERE}"), {"alerts": DaprOutput(pubsub="p", topic="t")})


NOWHERES = {"http": http_nowhere, "kafka": kafka_nowhere, "mqtt": mqtt_nowhere, "dapr": dapr_nowhere}


@pytest.mark.parametrize("make", NOWHERES.values(), ids=NOWHERES)
async def test_an_output_that_is_not_there_is_down_for_each(
    make: Callable[[], Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_output, "TIMEOUT", 0.5)  # its client waits so long for a broker that is away
    publisher = make()
    results = await publisher.publish([emit(b"1"), emit(b"2"), emit(b"3", key="V2")])
    assert [type(each) for each in results] == [OutputDown] * 3
    await publisher.close()
