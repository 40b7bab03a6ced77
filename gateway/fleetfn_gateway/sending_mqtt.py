"""Sending to an mqtt trigger: messages on its topic, QoS 1, each acknowledged by the broker before the end is told."""

from __future__ import annotations

import asyncio
import uuid

from fleetfn.errors import FleetError
from fleetfn_plumbing import mqtt_access, mqtt_link, mqtt_packets
from fleetfn_plumbing.mqtt_access import Access
from fleetfn_plumbing.mqtt_link import Link
from fleetfn_plumbing.mqtt_packets import Ack, Packet, Properties, Publish
from fleetfn_spec.control import SendItem, SendLine
from fleetfn_spec.function import Trigger
from fleetfn_triggers import mqtt_topics
from fleetfn_triggers.mqtt import Mqtt

from fleetfn_gateway.sending import Items, Progress, payload

_IN_HAND = 1000
"""Messages that wait for their acknowledgement, at most; a broker may allow fewer."""

_ACK_LIMIT = 60.0
"""Seconds until a broker that acknowledges nothing more is given up."""

_LAST_ID = 65_535

_NOBODY = 0x10
"""Reason of a PUBACK: no subscription fits. Not every broker tells."""

_BAD = 0x80
"""Reasons from here on are failures."""


async def send(access: Access, trigger: Trigger, mqtt: Mqtt, items: Items, progress: Progress) -> SendLine:
    """Returns when the broker has acknowledged all. Raises FleetError for what it did not take."""
    link = await mqtt_link.connect(access, f"fn-send-{uuid.uuid4().hex[:12]}")
    try:
        sender = _Sender(link)
        async for item in items:
            await sender.send(_message(trigger, mqtt, item, access.version))
            progress.count()
        await sender.flush()
    finally:
        await link.close()
    return SendLine(sent=progress.sent, finished=True)


def topic_of(trigger: Trigger, mqtt: Mqtt, item: SendItem) -> str:
    """Where an event goes. Raises FleetError where nothing says it."""
    subject = item.event.get("subject") if item.event is not None else None
    return mqtt_topics.choose(mqtt.topic, trigger.key_expression, topic=item.topic, key=item.key, subject=subject)


def _message(trigger: Trigger, mqtt: Mqtt, item: SendItem, version: mqtt_packets.Version) -> Publish:
    body, headers = payload(item)
    if item.headers and version == 4:  # noqa: PLR2004 - 3.1.1
        raise FleetError("MQTT 3.1.1 has no headers", hint="leave them out")
    named = {name.lower(): value for name, value in headers.items()}
    kind = named.pop("content-type", None)
    properties: Properties = {}
    if kind is not None:
        properties[mqtt_packets.CONTENT_TYPE] = kind
    if named:
        properties[mqtt_packets.USER_PROPERTY] = list(named.items())
    topic = topic_of(trigger, mqtt, item)
    return Publish(topic, body or b"", 1, properties=properties if version == 5 else {})  # noqa: PLR2004 - MQTT 5


class _Sender:
    """Keeps at most so many messages unacknowledged."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._last = 0
        self._waiting: dict[int, str] = {}
        """Packet id -> topic."""
        self._problem: FleetError | None = None
        self._heard = asyncio.Event()
        self._most = min(_IN_HAND, link.properties.get(mqtt_packets.RECEIVE_MAXIMUM, _IN_HAND))
        link.listen(self._receive)
        link.ended.add_done_callback(lambda _: self._heard.set())

    async def send(self, message: Publish) -> None:
        await self._until(self._most - 1)
        self._last = self._last % _LAST_ID + 1
        self._waiting[self._last] = message.topic
        self._link.send(Publish(message.topic, message.payload, 1, packet_id=self._last, properties=message.properties))
        await self._link.drained()

    async def flush(self) -> None:
        await self._until(0)

    async def _until(self, count: int) -> None:
        """At most so many wait for their acknowledgement. Raises FleetError."""
        while True:
            if self._problem is not None:
                raise self._problem
            if self._link.ended.done():
                ended = self._link.ended.result()
                raise FleetError(f"the broker did not take all: it {ended.message}", hint=ended.hint)
            if len(self._waiting) <= count:
                return
            self._heard.clear()
            try:
                await asyncio.wait_for(self._heard.wait(), _ACK_LIMIT)
            except TimeoutError:
                raise FleetError(
                    f"{len(self._waiting)} messages were not acknowledged within {_ACK_LIMIT:.0f} s"
                ) from None

    def _receive(self, packets: list[Packet]) -> None:
        for packet in packets:
            if isinstance(packet, Ack) and packet.kind == mqtt_packets.PUBACK:
                topic = self._waiting.pop(packet.packet_id, "")
                self._problem = self._problem or _problem(topic, packet.reason)
        self._heard.set()


def _problem(topic: str, reason: int) -> FleetError | None:
    if reason == _NOBODY:
        return FleetError(
            f"nobody is subscribed to topic {topic!r}, so the message is gone",
            hint="see what keeps the trigger from it",
        )
    if reason >= _BAD:
        return FleetError(f"the broker did not take a message on topic {topic!r}: {mqtt_access.reason(reason)}")
    return None
