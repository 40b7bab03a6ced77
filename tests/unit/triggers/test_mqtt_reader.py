"""MQTT messages to deliveries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from fleetfn_plumbing.mqtt_packets import CONTENT_TYPE, USER_PROPERTY, Publish
from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.kinds import KINDS
from fleetfn_triggers.mqtt import Mqtt
from fleetfn_triggers.trigger import EventFields, Reading

SOURCE = cast("Source", object())
NOW = 1_763_700_000.0
TOPIC = "vehicles/v1/battery"


def message(payload: bytes = b'{"t":60}', *, user: Any = (), media: str | None = None, **fields: Any) -> Publish:
    properties: dict[int, Any] = {USER_PROPERTY: list(user)} if user else {}
    if media is not None:
        properties[CONTENT_TYPE] = media
    return Publish(fields.pop("topic", TOPIC), payload, 1, packet_id=1, properties=properties, **fields)


def read(sent: Publish, key: str | None = "topic.vehicle", **fields: Any) -> Delivery:
    event = EventFields(**{name: fields.pop(name) for name in ("id", "time") if name in fields})
    spec = Mqtt(topic="vehicles/{vehicle}/battery")
    reader = KINDS["mqtt"].reader(spec, Reading("live", "battery", key, event, clock=lambda: NOW, **fields))
    return reader(sent, SOURCE)


def test_a_bare_payload_becomes_an_event() -> None:
    delivery = read(message())
    event = delivery.event
    assert (delivery.key, delivery.position, delivery.problem) == ("v1", None, None)
    assert (event.type, event.source, event.subject) == ("mqtt.message", "mqtt:vehicles/{vehicle}/battery", TOPIC)
    assert event.time == datetime.fromtimestamp(NOW, UTC)
    assert (event.datacontenttype, event.data) == ("application/json", b'{"t":60}')


def test_each_message_has_an_id_of_its_own_unless_the_payload_has_one() -> None:
    reader = KINDS["mqtt"].reader(Mqtt(topic="#"), Reading("live", "battery", None))
    ids = {reader(message(), SOURCE).event.id for _ in range(100)}
    assert len(ids) == 100
    assert read(message(b'{"n":7}'), id="data.n").event.id == "7"


def test_the_time_may_come_from_the_payload() -> None:
    time = read(message(b'{"ts":"2026-11-20T08:15:00Z"}'), time="data.ts").event.time
    assert time == datetime(2026, 11, 20, 8, 15, tzinfo=UTC)


def test_bytes_stay_bytes() -> None:
    event = read(message(b"\x00\xff")).event
    assert (event.data, event.datacontenttype) == (b"\x00\xff", None)


def test_an_empty_payload_is_no_data() -> None:
    assert read(message(b"")).event.data is None


def test_a_retained_message_says_so() -> None:
    assert read(message(retain=True)).event.headers == (("mqtt-retained", b"true"),)


def test_user_properties_are_headers_and_may_give_the_key() -> None:
    delivery = read(message(user=[("Vehicle-Id", "v7"), ("id", "x")]), key="header.vehicle-id")
    assert delivery.key == "v7"
    assert delivery.event.headers == (("Vehicle-Id", b"v7"), ("id", b"x"))


CE = [("specversion", "1.0"), ("id", "e1"), ("source", "/car"), ("type", "hot")]


def test_a_binary_cloudevent_keeps_its_attributes_and_learns_its_topic() -> None:
    sent = message(user=[*CE, ("subject", "v2"), ("severity", "3"), ("trace-id", "t")], media="application/json")
    event = read(sent, key="subject").event
    assert (event.id, event.source, event.type, event.subject) == ("e1", "/car", "hot", "v2")
    assert event.extensions == {"severity": "3"}
    assert event.headers == (("trace-id", b"t"), ("mqtt-topic", TOPIC.encode()))


STRUCTURED = b'{"specversion":"1.0","id":"e1","source":"/car","type":"hot","data":{"t":61}}'


@pytest.mark.parametrize("media", ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8", None])
def test_a_structured_cloudevent_is_known_by_its_type_or_by_its_look(media: str | None) -> None:
    event = read(message(STRUCTURED, media=media)).event
    assert (event.id, event.data) == ("e1", b'{"t":61}')


@pytest.mark.parametrize(
    "payload",
    [
        b'{"specversion":"1.0","id":"e1","source":"/car"}',
        b'{"specversion":1,"id":"e1","source":"/car","type":"t"}',
        b'{"event":{"specversion":"1.0","id":"e1","source":"/car","type":"t"}}',
        b'[{"specversion":"1.0","id":"e1","source":"/car","type":"t"}]',
        b'{"specversion": broken',
    ],
)
def test_what_only_resembles_a_cloudevent_is_data(payload: bytes) -> None:
    event = read(message(payload)).event
    assert (event.type, event.data) == ("mqtt.message", payload)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (message(user=CE[:3]), "attribute 'type' is missing"),
        (message(user=[*CE, ("id", "e2")]), "user property id is there twice"),
        (message(user=[*CE, ("datacontenttype", "x")]), "use MQTT's Content Type property"),
        (message(user=[("specversion", "0.3"), *CE[1:]]), "is not 1.0"),
        (message(b"[]", media="application/cloudevents-batch+json"), "a batch of CloudEvents in one MQTT message"),
        (message(b"{}", media="application/cloudevents+avro"), "format 'application/cloudevents+avro' is not read"),
    ],
)
def test_a_broken_cloudevent_is_a_problem_and_keeps_its_key(sent: Publish, said: str) -> None:
    delivery = read(sent)
    assert delivery.problem is not None
    assert delivery.problem.startswith("not a CloudEvent: ")
    assert said in delivery.problem
    assert delivery.key == "v1"
    assert delivery.event.data == sent.payload


def test_a_topic_of_an_earlier_template_has_no_key() -> None:
    delivery = read(message(topic="vehicles/v1/doors"))
    assert delivery.problem == "no key: topic.vehicle is missing"


def test_an_empty_level_is_no_key() -> None:
    assert read(message(topic="vehicles//battery")).problem == "no key: topic.vehicle is empty"


def test_decode_turns_foreign_bytes_into_data() -> None:
    event = read(message(b"\x3c"), decode=lambda data: {"t": data[0]}).event
    assert (event.data, event.datacontenttype) == (b'{"t":60}', "application/json")
    event = read(message(b"\x3c", user=CE), decode=lambda data: {"t": data[0]}).event
    assert (event.id, event.data) == ("e1", b'{"t":60}')


def test_what_decode_refuses_is_a_problem() -> None:
    delivery = read(message(b"\x3c"), decode=lambda data: data[7])
    assert delivery.problem is not None
    assert delivery.problem.startswith("decode failed: IndexError")
