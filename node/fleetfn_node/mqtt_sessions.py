"""What the embedded MQTT broker keeps of each client: subscriptions, and messages on their way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
from fleetfn_plumbing import mqtt_packets
from fleetfn_plumbing.mqtt_packets import PUBCOMP, PUBREC, PUBREL, Ack, Packet, Publish, Wish

LAST_ID = 65_535

QUEUED = 100_000
"""Messages that wait for one client, at most; further ones are dropped, as brokers do."""

NEVER = 0xFFFF_FFFF
"""Session expiry: it is kept for as long as the broker runs."""

Send = Callable[[Packet], None]


class Session:
    """Outgoing messages of QoS 1 and 2 keep their packet id until they are acknowledged, over connections."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.expiry = 0
        self.expiring: asyncio.TimerHandle | None = None
        """Set while its client is away: it ends then. Its client's return cancels it."""
        self.wishes: dict[str, Wish] = {}
        """By filter, as asked for: with `$share/...`."""
        self.received: set[int] = set()
        """Packet ids of QoS 2 that the client has not released."""
        self.dropped = 0
        self._send: Send | None = None
        self._window = LAST_ID
        self._in_flight: dict[int, Publish | Ack] = {}
        self._waiting: deque[Publish] = deque()
        self._last = 0

    @property
    def connected(self) -> bool:
        return self._send is not None

    def attach(self, send: Send, window: int) -> None:
        """The client is there: send again what it has not acknowledged, then what has waited."""
        self._send, self._window = send, window
        for packet_id, packet in list(self._in_flight.items()):
            if isinstance(packet, Publish):
                packet = self._in_flight[packet_id] = msgspec.structs.replace(packet, dup=True)  # noqa: PLW2901
            send(packet)
        self._flow()

    def detach(self) -> None:
        self._send = None

    def deliver(self, message: Publish) -> None:
        if message.qos == 0:
            if self._send is not None:
                self._send(message)
        elif len(self._waiting) >= QUEUED:
            self.dropped += 1
        else:
            self._waiting.append(message)
            self._flow()

    def acknowledged(self, ack: Ack) -> None:
        """PUBACK, PUBREC or PUBCOMP."""
        if ack.kind == PUBREC and ack.packet_id in self._in_flight and ack.reason < 0x80:  # noqa: PLR2004 - failures
            release = self._in_flight[ack.packet_id] = Ack(PUBREL, ack.packet_id)
            if self._send is not None:
                self._send(release)
            return
        self._in_flight.pop(ack.packet_id, None)
        self._flow()

    def released(self, ack: Ack) -> Ack:
        self.received.discard(ack.packet_id)
        return Ack(PUBCOMP, ack.packet_id)

    def _flow(self) -> None:
        while self._send is not None and self._waiting and len(self._in_flight) < self._window:
            packet_id = self._next_id()
            message = msgspec.structs.replace(self._waiting.popleft(), packet_id=packet_id)
            self._in_flight[packet_id] = message
            self._send(message)

    def _next_id(self) -> int:
        while True:
            self._last = self._last % LAST_ID + 1
            if self._last not in self._in_flight:
                return self._last


FORWARDED = frozenset(
    {
        0x01,
        mqtt_packets.MESSAGE_EXPIRY,
        mqtt_packets.CONTENT_TYPE,
        mqtt_packets.RESPONSE_TOPIC,
        mqtt_packets.CORRELATION_DATA,
        mqtt_packets.USER_PROPERTY,
    }
)
"""Properties of a message that are its own, and not of the connection it came by."""


def forwarded(message: Publish, wish: Wish, *, retained: bool = False) -> Publish:
    """The message as it goes to one subscriber."""
    properties = message.properties
    if not properties.keys() <= FORWARDED:
        properties = {name: value for name, value in properties.items() if name in FORWARDED}
    retain = retained or (message.retain and wish.retain_as_published)
    return Publish(message.topic, message.payload, min(message.qos, wish.qos), retain, False, 0, properties)
