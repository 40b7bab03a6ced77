"""The embedded MQTT broker, as another library sees it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import pytest
from fleetfn_node.embedded_mqtt import EmbeddedMqtt
from kafka_doubles import until
from mqtt_broker import Sent, Watcher, publish, user_properties
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

pytestmark = pytest.mark.node

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


@pytest.fixture
async def address() -> AsyncIterator[str]:
    broker = EmbeddedMqtt()
    yield await broker.start()
    await broker.stop()


async def test_it_has_an_address_while_it_runs() -> None:
    broker = EmbeddedMqtt()
    assert broker.address is None
    first = await broker.start()
    assert await broker.start() == first == broker.address
    await broker.stop()
    assert broker.address is None
    await broker.stop()


async def test_one_that_dies_is_started_again_where_it_was() -> None:
    moves: list[str] = []
    broker = EmbeddedMqtt(lambda: moves.append("moved"))
    address = await broker.start()
    assert broker._process is not None
    broker._process.kill()
    await until(lambda: "was killed by signal 9 and is started again" in broker.problem)
    await until(lambda: not broker.problem)
    assert broker.address == address
    assert not moves
    await asyncio.to_thread(publish, address, [Sent("a", b"1", 1)], "5")
    await broker.stop()


async def test_it_ends_with_its_standard_input() -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fleetfn_node.embedded_mqtt", stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert b'"address": "127.0.0.1:' in await process.stdout.readline()
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_reach_a_subscriber_in_order(address: str, version: str, qos: int) -> None:
    def talk() -> list[bytes]:
        with Watcher(address, "a/+", version) as watcher:
            publish(address, [Sent(f"a/{n % 3}", str(n).encode(), qos) for n in range(200)], version)
            return [message.payload for message in watcher.wait(200)]

    assert await asyncio.to_thread(talk) == [str(n).encode() for n in range(200)]


async def test_properties_pass_from_mqtt_5_to_mqtt_5(address: str) -> None:
    def talk() -> None:
        with Watcher(address, "#") as new, Watcher(address, "#", "3.1.1") as old:
            publish(address, [Sent("a", b"{}", user=[("id", "1"), ("id", "2")], content_type="application/json")])
            (message,) = new.wait(1)
            assert user_properties(message) == [("id", "1"), ("id", "2")]
            assert message.properties is not None
            assert message.properties.ContentType == "application/json"
            assert old.wait(1)[0].payload == b"{}"

    await asyncio.to_thread(talk)


@VERSIONS
async def test_the_last_retained_message_waits_for_subscribers_until_it_is_cleared(address: str, version: str) -> None:
    def talk() -> None:
        publish(address, [Sent("a", b"1", retain=True), Sent("a", b"2", retain=True), Sent("b", b"3", retain=True)])
        publish(address, [Sent("b", b"", retain=True)])
        with Watcher(address, "#", version) as watcher:
            publish(address, [Sent("c", b"live")])
            messages = watcher.wait(2)
            assert [(message.payload, message.retain) for message in messages] == [(b"2", True), (b"live", False)]

    await asyncio.to_thread(talk)


async def test_a_second_client_of_the_same_id_takes_over_and_the_first_is_told(address: str) -> None:
    reasons: list[int] = []
    limit = time.monotonic() + 60

    def talk() -> None:
        host, _, port = address.rpartition(":")
        clients = []
        for _ in range(2):
            client = Client(CallbackAPIVersion.VERSION2, client_id="same", protocol=MQTTv5)
            client.on_disconnect = lambda _client, _data, _flags, reason, _more: reasons.append(reason.value)
            properties = Properties(PacketTypes.CONNECT)
            client.connect(host, int(port), properties=properties)
            while not client.is_connected() and time.monotonic() < limit:
                client.loop(0.1)
            clients.append(client)
        while not reasons and time.monotonic() < limit:
            clients[0].loop(0.1)
        clients[1].disconnect()
        clients[1].loop(0.1)
        for client in clients:
            client._reset_sockets()

    await asyncio.to_thread(talk)
    assert reasons[0] == 0x8E
