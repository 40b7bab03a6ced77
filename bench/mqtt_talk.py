"""MQTT around what is measured: a sender, and subscribers that do no more than decode and acknowledge."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import uvloop
from fleetfn_plumbing import mqtt_link, mqtt_packets
from fleetfn_plumbing.mqtt_access import Access
from fleetfn_plumbing.mqtt_packets import PUBACK, Ack, Packet, Publish, Subscribe, Wish
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

T = TypeVar("T")

WINDOW = 1000
"""Messages on their way, to the broker and from it: what an mqtt trigger asks for."""

KEEP = 3600
"""Seconds that the broker keeps a session."""

LIMIT = 300.0


def on_loop(work: Awaitable[T]) -> T:
    """On the loop that gateway and workers have."""

    async def main() -> T:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def address(host: str) -> Access:
    name, port = host.split(":")
    return Access(name, int(port), 5, 60)


class Sender:
    """Publishes with QoS 1. Use on one loop, `open` to `close`."""

    async def open(self, host: str) -> None:
        self._link = await mqtt_link.connect(address(host), f"sender-{time.time_ns():x}")
        self._left = asyncio.Semaphore(WINDOW)
        self._sent = self._acknowledged = 0
        self._link.listen(self._received)

    async def send(self, topic: str, payload: bytes) -> None:
        await self._left.acquire()
        self._sent += 1
        self._link.send(Publish(topic, payload, 1, packet_id=self._sent % 65_535 + 1))

    async def close(self) -> None:
        """Once the broker has all."""
        async with asyncio.timeout(LIMIT):
            for _ in range(WINDOW):
                await self._left.acquire()
        await self._link.close()

    def _received(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            if isinstance(packet, Ack):
                self._left.release()


async def fill(host: str, messages: Sequence[tuple[str, bytes]]) -> None:
    """(topic, payload)s, as fast as the broker takes them."""
    sender = Sender()
    await sender.open(host)
    for topic, payload in messages:
        await sender.send(topic, payload)
    await sender.close()


class BarePaho:
    """A session by paho-mqtt. Its loop acknowledges each message once `on_message` has returned."""

    def __init__(self, host: str, client_id: str, topic: str, decode: Callable[[bytes], Any]) -> None:
        self._host, self._id, self._topic, self._decode = host, client_id, topic, decode

    def subscribe(self) -> None:
        """And leave, so that the session gathers messages."""
        client = self._client()
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_connect = lambda *_: client.subscribe(self._topic, qos=1)
        self._while_looping(client, subscribed)

    def run(self, count: int) -> float:
        """Messages per second, from the first to the last of `count`."""
        times: list[float] = []
        ended = threading.Event()
        decode = self._decode

        def on_message(_client: Client, _data: Any, message: Any) -> None:
            decode(message.payload)
            times.append(time.perf_counter())
            if len(times) == count:
                ended.set()

        client = self._client()
        client.on_message = on_message
        self._while_looping(client, ended)
        return count / (times[-1] - times[0])

    def _while_looping(self, client: Client, until: threading.Event) -> None:
        client.loop_start()
        if not until.wait(LIMIT):
            raise RuntimeError(f"nothing more came to {self._id} within {LIMIT:g} s")
        client.disconnect()
        client.loop_stop()

    def _client(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id=self._id, protocol=MQTTv5)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = KEEP
        properties.ReceiveMaximum = WINDOW
        name, port = self._host.split(":")
        client.connect(name, int(port), clean_start=False, properties=properties)
        return client


class BareLink:
    """The same session over the packets and connections of the bridge."""

    def __init__(self, host: str, client_id: str, topic: str, decode: Callable[[bytes], Any]) -> None:
        self._host, self._id, self._topic, self._decode = host, client_id, topic, decode

    async def subscribe(self) -> None:
        link = await self._connect()
        answered = asyncio.Event()
        link.listen(lambda _: answered.set())
        link.send(Subscribe(1, (Wish(self._topic, 1),)))
        async with asyncio.timeout(LIMIT):
            await answered.wait()
        await link.close()

    async def run(self, count: int) -> float:
        link = await self._connect()
        ended = asyncio.Event()
        begun, left = 0.0, count
        decode = self._decode

        def received(packets: list[Packet]) -> None:
            nonlocal begun, left
            begun = begun or time.perf_counter()
            acks = []
            for packet in packets:
                if isinstance(packet, Publish):
                    decode(packet.payload)
                    acks.append(mqtt_packets.ack(PUBACK, packet.packet_id))
            link.write(b"".join(acks))
            left -= len(acks)
            if left <= 0:
                ended.set()

        link.listen(received)
        async with asyncio.timeout(LIMIT):
            await ended.wait()
        rate = count / (time.perf_counter() - begun)
        await link.close()
        return rate

    async def _connect(self) -> mqtt_link.Link:
        properties = {mqtt_packets.SESSION_EXPIRY: KEEP, mqtt_packets.RECEIVE_MAXIMUM: WINDOW}
        return await mqtt_link.connect(address(self._host), self._id, clean=False, properties=properties)


def decoder(kind: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(kind).decode
