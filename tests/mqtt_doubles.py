"""What tests of the MQTT bridge stand on: functions with an mqtt trigger, bridges over an inbox in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from fleetfn.errors import FleetError
from fleetfn_gateway.mqtt_bridge import MqttBridge
from fleetfn_plumbing.memory_inbox import MemoryInbox
from fleetfn_spec.function import Function, Metadata, Spec, Trigger
from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers.inbox import Row
from fleetfn_triggers.mqtt import Mqtt
from fleetfn_triggers.mqtt_connection import MqttConnection
from kafka_doubles import until
from mqtt_broker import fresh_topic


def trigger(topic: str = "vehicles/{vehicle}/battery", **fields: Any) -> Trigger:
    """`qos`, `share`, `retained` and `inflight` are the block's, all others the trigger's."""
    block = {name: fields.pop(name) for name in ("qos", "share", "retained", "inflight") if name in fields}
    return Trigger(name="live", mqtt=Mqtt(topic=topic, **block), **{"key": "topic.vehicle", **fields})


def function(address: str, made: Trigger, *, place: str, folder: Path = Path(), **connection: Any) -> GatewayFunction:
    url = connection.pop("url", f"mqtt://{address}")
    return GatewayFunction(
        function=Function(
            apiVersion="fleetfn.dev/v1alpha1",
            kind="Function",
            metadata=Metadata(name="battery"),
            spec=Spec(handler="handler:watch", triggers=[made]),
        ),
        revision="r1",
        environment="local",
        place=place,
        mqtt={"mqtt": MqttConnection(url=url, **connection)},
        source=folder,
    )


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(serve: Serve) -> AsyncIterator[int]:
    """The port of a broker that a test plays itself. Its connections are gone when this ends."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class Bench:
    """One trigger's bridges, one after the other, over one inbox. `topic`: the first level of its topics."""

    def __init__(self, address: str, *, folder: Path = Path(), **connection: Any) -> None:
        self.inbox = MemoryInbox()
        self.topic = fresh_topic()
        self.address = address
        self.folder = folder
        self.connection = connection
        self._open: list[MqttBridge] = []

    def bridge(self, topic: str = "{vehicle}/battery", **fields: Any) -> MqttBridge:
        place = fields.pop("place", self.topic)
        made = trigger(f"{self.topic}/{topic}", **fields)
        function_ = function(self.address, made, place=place, folder=self.folder, **self.connection)
        bridge = MqttBridge(function_, made, self.inbox, self.inbox)
        self._open.append(bridge)
        return bridge

    async def start(self, topic: str = "{vehicle}/battery", **fields: Any) -> MqttBridge:
        """Returns when the subscription stands, or something is wrong; what is only slow is waited for."""
        bridge = self.bridge(topic, **fields)
        await bridge.start()

        def settled() -> bool:
            problem = bridge.problem if bridge._tried.is_set() else ""
            return bridge._stood or (problem != "" and " within " not in problem)

        await until(settled)
        return bridge

    async def close(self) -> None:
        for bridge in self._open:
            with contextlib.suppress(FleetError):  # its broker may be gone
                await bridge.close(forget=True)

    @property
    def rows(self) -> list[Row]:
        return self.inbox.rows

    def data(self, key: str | None = None) -> list[bytes | None]:
        """Data of the rows, in order; of one key, or all."""
        return [row.event.data for row in self.rows if key is None or row.key == key]

    def noted(self) -> dict[int, Any]:
        """What the note holds as not known to be acknowledged."""
        raw = self.inbox.note("mqtt/battery/live/session")
        found: dict[int, Any] = {} if raw is None else msgspec.msgpack.decode(raw, strict=False)["unacked"]
        return found
