"""The mqtt trigger and output: fields, checks and reading a message."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol

import msgspec
from fleetfn.cloudevents import mqtt as codec
from fleetfn.errors import EventError
from fleetfn.event import Event
from msgspec import Meta

from fleetfn_triggers import keys, mqtt_topics
from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.extract import Extract
from fleetfn_triggers.fields import Strict
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.reading import OVERHEAD, Unreadable, decoded, looks_like_json, not_a_cloudevent, with_data
from fleetfn_triggers.secret import Resolve
from fleetfn_triggers.trigger import Complaint, Reading

TYPE = "mqtt.message"
"""Type of the event that a message becomes which is no CloudEvent."""

TOPIC = "mqtt-topic"
"""Header that tells a CloudEvent's topic; of any other message it is the subject."""

RETAINED = "mqtt-retained"
"""Header of a message that the broker had kept for whoever subscribes: it may be old."""

Qos = Literal[0, 1, 2]


class Mqtt(Strict, frozen=True):
    """A function subscribes to topics of an MQTT broker, by a session of its own that outlives its sleep."""

    topic: Annotated[
        str,
        Meta(
            description="Topic filter. `{name}` stands for one level: the key expression `topic.<name>`. `+` and `#` "
            "as MQTT has them.",
            examples=["vehicles/{vehicle}/battery"],
            min_length=1,
        ),
    ]
    qos: Annotated[
        Qos,
        Meta(
            description="0: at most once. 1: each message is kept by the broker until it is in the inbox. 2: the same, "
            "and the broker sends it once.",
            examples=[1],
        ),
    ] = 1
    share: (
        Annotated[
            str,
            Meta(
                pattern=r"^[^/+#\x00]+$",
                description="Name of a shared subscription: the broker spreads messages over its members. It keeps no "
                "order; leave it out where order matters.",
                examples=["analytics"],
                extra={"form": "text without '/', '+' and '#'"},
            ),
        ]
        | None
    ) = None
    retained: Annotated[
        Literal["new", "always", "ignore"],
        Meta(
            description="Messages that the broker has retained: delivered when the subscription is new, at each "
            "connecting, or never.",
            examples=["ignore"],
        ),
    ] = "ignore"
    inflight: Annotated[
        int,
        Meta(
            description="Messages that the broker may send ahead of their being in the inbox (Receive Maximum).",
            examples=[100],
            ge=1,
            le=65535,
        ),
    ] = 1000


class MqttOutput(Strict, frozen=True):
    """Events are published as MQTT messages."""

    topic: Annotated[
        str,
        Meta(
            description="Topic. `{key}` stands for the event's key.",
            examples=["vehicles/{key}/alerts"],
            min_length=1,
        ),
    ]
    qos: Annotated[Literal[0, 1, 2], Meta(description="How surely the broker gets it.", examples=[1])] = 1
    retain: Annotated[bool, Meta(description="The broker keeps the last one for later subscribers.")] = False


class Message(Protocol):
    """What is asked of a message; its user properties are in order, and none with MQTT 3.1.1."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def retain(self) -> bool: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def user(self) -> Sequence[tuple[str, str]]: ...


def _header(name: str) -> Any:
    def get(message: Message) -> object:
        return next((value for key, value in message.user if key.lower() == name), keys.MISSING)

    return get


class MqttKind:
    name = "mqtt"
    spec: type[msgspec.Struct] = Mqtt
    connection: type[msgspec.Struct] | None = MqttConnection
    envelope = frozenset({"topic", "header"})
    natural_key: str | None = None
    unbatched = ""

    def check(self, spec: Mqtt, key: str | None) -> Iterator[Complaint]:
        for message, hint in mqtt_topics.problems(spec.topic):
            yield Complaint("mqtt.topic", message, hint)
        named = mqtt_topics.names(spec.topic)
        if key is not None and key.startswith("topic.") and key[6:] not in named:
            known = ", ".join(f"topic.{name}" for name in named) or "none"
            yield Complaint("key", f'"{key}" names no level of the topic "{spec.topic}"', f"it has: {known}")
        if spec.share is not None and spec.retained != "ignore":
            hint = "leave out retained or share"
            yield Complaint("mqtt.retained", "a shared subscription gets no retained messages", hint)

    def reader(self, spec: Mqtt, reading: Reading) -> MqttReader:
        return MqttReader(spec, reading)

    async def backlog(self, spec: Mqtt, *, connection: MqttConnection, group: str, resolve: Resolve) -> None:
        """Brokers do not tell how much a session holds."""

    def scaler(self, spec: Mqtt, *, connection: MqttConnection, group: str, concurrency: int) -> None:
        """What waits is in the gateway."""


class MqttReader:
    """Message -> Delivery, without position: the inbox gives it one.

    Where neither the payload nor a CloudEvent tells an id, the event gets one that no other has.
    """

    def __init__(self, spec: Mqtt, reading: Reading) -> None:
        self._trigger = reading.trigger
        self._source = f"mqtt:{spec.topic}"
        self._decode = reading.decode
        self._clock = reading.clock
        self._extract = Extract(reading, {"topic": _levels(spec.topic), "header": _header})
        self._series = os.urandom(8).hex()
        self._number = 0

    def __call__(self, message: Message, source: Source) -> Delivery:
        event: Event[bytes | None] | None = None
        values: tuple[object, ...] | None = None
        key: str | None = None
        problem: str | None = None
        try:
            if (event := self._cloudevent(message)) is None:
                event, values = self._bare(message)
            elif self._decode is not None:
                event = with_data(event, self._decode)
            key = self._extract.key(message, event, values)
        except Unreadable as exc:
            problem = str(exc)
            key = self._extract.key_of_unreadable(message)  # so that its dead letter is the vehicle's, in its order
            event = event or self._event(message, message.payload or None, None)
        size = OVERHEAD + len(message.payload) + len(message.topic)
        size += sum(len(name) + len(value) for name, value in message.user)
        return Delivery(self._trigger, key, event, None, source, 0, size, None, problem)

    def _cloudevent(self, message: Message) -> Event[bytes | None] | None:
        try:
            event = codec.decode(message.content_type, message.user, message.payload)
        except EventError as exc:
            raise not_a_cloudevent(exc) from exc
        if event is None:
            return None
        kept = ((TOPIC, message.topic.encode()), *_retained(message))
        return msgspec.structs.replace(event, headers=(*event.headers, *kept))

    def _bare(self, message: Message) -> tuple[Event[bytes | None], tuple[object, ...]]:
        data, kind = message.payload or None, None
        if self._decode is not None and data is not None:
            data, is_json = decoded(self._decode, data)
            kind = "application/json" if is_json else None
        given, time, values = self._extract.bare(message, data)
        return self._event(message, data, given, time, kind), values

    def _event(
        self,
        message: Message,
        data: bytes | None,
        id_: str | None,
        time: datetime | None = None,
        kind: str | None = None,
    ) -> Event[bytes | None]:
        if id_ is None:
            self._number += 1
            id_ = f"{self._series}-{self._number}"
        return Event(
            id=id_,
            source=self._source,
            type=TYPE,
            subject=message.topic,
            time=time or datetime.fromtimestamp(self._clock(), UTC),
            datacontenttype=kind or message.content_type or looks_like_json(data),
            headers=(*((name, value.encode()) for name, value in message.user), *_retained(message)),
            data=data,
        )


def _levels(template: str) -> Any:
    def named(name: str) -> Any:
        level = mqtt_topics.level_of(template, name)

        def get(message: Message) -> object:
            found = level(message.topic)
            return keys.MISSING if found is None else found

        return get

    return named


def _retained(message: Message) -> tuple[tuple[str, bytes], ...]:
    return ((RETAINED, b"true"),) if message.retain else ()


KIND = MqttKind()
