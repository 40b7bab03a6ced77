"""The Publisher of one MQTT connection: events leave as CloudEvents, binary with MQTT 5 and structured with 3.1.1."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetfn.cloudevents import mqtt as codec
from fleetfn.errors import EventError, FleetError, OutputDown, OutputError, OutputRefused
from fleetfn.invocation import Emit
from fleetfn_plumbing import mqtt_access, mqtt_link, mqtt_packets
from fleetfn_plumbing.mqtt_link import Link
from fleetfn_plumbing.mqtt_packets import PUBREC, PUBREL, Ack, Packet, Publish
from fleetfn_triggers import mqtt_topics
from fleetfn_triggers.mqtt import MqttOutput
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Resolve

TIMEOUT = 10.0
"""Seconds until an event that the broker has not acknowledged counts as not taken: the output is down."""

LIMIT = 16 * 1024 * 1024
"""Bytes of the largest message, unless the broker says that it takes no more than less."""

WINDOW = 100
"""Messages on their way at once with MQTT 3.1.1, where brokers do not say how many they take."""

_LAST_ID = 65_535
_LOST = -1
"""Stands for a reason: the connection ended before the acknowledgement."""

_FAILURE = 0x80
_FOR_GOOD = frozenset({0x90, 0x95, 0x99})
"""Reasons that do not go away: topic name, packet too large, payload format."""


class _Flight:
    """What one connection has on its way: packet id -> whom to tell."""

    def __init__(self, link: Link) -> None:
        self.link = link
        window = WINDOW if link.version == 4 else link.properties.get(mqtt_packets.RECEIVE_MAXIMUM, _LAST_ID)  # noqa: PLR2004 - 3.1.1
        self._free = asyncio.Semaphore(window)
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._last = 0
        link.listen(self._received)
        link.ended.add_done_callback(lambda _: self._lost())

    async def send(self, message: Publish) -> asyncio.Future[int] | None:
        """Resolves to the broker's reason or _LOST; None with QoS 0. Raises MqttError: the connection has ended."""
        await self.link.drained()
        if message.qos == 0:
            self._standing()
            self.link.send(message)
            return None
        await self._free.acquire()
        self._standing()
        self._last = self._next_id()
        told = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        told.add_done_callback(lambda _: self._free.release())
        properties = message.properties
        self.link.send(
            Publish(message.topic, message.payload, message.qos, message.retain, False, self._last, properties)
        )
        return told

    def _standing(self) -> None:
        if self.link.ended.done():
            raise self.link.ended.result()

    def _next_id(self) -> int:
        found = self._last % _LAST_ID + 1
        while found in self._waiting:
            found = found % _LAST_ID + 1
        return found

    def _received(self, packets: list[Packet]) -> None:
        for packet in packets:
            if not isinstance(packet, Ack):
                continue
            if packet.kind == PUBREC and packet.reason < _FAILURE:
                self.link.write(mqtt_packets.ack(PUBREL, packet.packet_id))
            elif (told := self._waiting.pop(packet.packet_id, None)) is not None and not told.done():
                told.set_result(packet.reason)

    def _lost(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for told in waiting.values():
            if not told.done():
                told.set_result(_LOST)


class MqttPublisher:
    """Used on one loop. `outputs`: by name, those of this connection."""

    def __init__(
        self,
        connection: MqttConnection,
        outputs: Mapping[str, MqttOutput],
        *,
        resolve: Resolve,
        client_id: str,
        base: Path | None = None,
    ) -> None:
        """Connects at the first event. `client_id`: each worker adds a part of its own, since ids are exclusive.
        `base`: where relative paths of the connection's `tls` start.
        """
        self._connection = connection
        self._outputs = dict(outputs)
        self._resolve = resolve
        self._base = base
        self._client_id = f"{client_id}/{os.urandom(4).hex()}"
        self._where = mqtt_access.where(*mqtt_access.address(connection))
        self._binary = connection.version == "5"
        self._limit = LIMIT
        self._flight: _Flight | None = None
        self._connecting = asyncio.Lock()

    def check(self, emit: Emit) -> None:
        self._message(emit)

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        if not emits:
            return []
        try:
            flight = await self._fly()
        except FleetError as error:
            return [self._down(emit, error) for emit in emits]
        results: list[OutputError | None] = [None] * len(emits)
        told: list[tuple[int, asyncio.Future[int]]] = []
        try:
            async with asyncio.timeout(TIMEOUT):
                for place, emit in enumerate(emits):
                    await self._send(flight, place, emit, results, told)
                if told:
                    await asyncio.wait([future for _, future in told])
        except TimeoutError:
            flight.link.abort(f"has not acknowledged an event within {TIMEOUT:g} s")
            left = OutputDown(f"MQTT broker {self._where} has not acknowledged the event within {TIMEOUT:g} s")
            sent = {place for place, _ in told}
            results = [error or (None if place in sent else left) for place, error in enumerate(results)]
        for place, future in told:
            results[place] = self._result(flight, emits[place], future)
        return results

    async def close(self) -> None:
        if self._flight is not None:
            await self._flight.link.close()

    async def _send(
        self,
        flight: _Flight,
        place: int,
        emit: Emit,
        results: list[OutputError | None],
        told: list[tuple[int, asyncio.Future[int]]],
    ) -> None:
        try:
            future = await flight.send(self._message(emit))
        except OutputRefused as error:
            results[place] = error
        except FleetError as error:
            results[place] = self._down(emit, error)
        else:
            if future is not None:
                told.append((place, future))

    def _result(self, flight: _Flight, emit: Emit, future: asyncio.Future[int]) -> OutputError | None:
        code = future.result() if future.done() else _LOST
        if code == _LOST:
            return self._down(emit, flight.link.ended.result())
        if code < _FAILURE:
            return None
        said = f'output "{emit.output}": MQTT broker {self._where} does not take the event: {mqtt_access.reason(code)}'
        return OutputRefused(said) if code in _FOR_GOOD else OutputDown(said, hint=mqtt_access.hint(code))

    def _down(self, emit: Emit, error: FleetError) -> OutputDown:
        said = error.message
        if self._where not in said:
            said = f"MQTT broker {self._where} {said}"
        return OutputDown(f'output "{emit.output}": {said}', hint=error.hint)

    async def _fly(self) -> _Flight:
        """Raises FleetError. Those who come while one connects wait for it."""
        async with self._connecting:
            if self._flight is None or self._flight.link.ended.done():
                access = mqtt_access.access(self._connection, self._resolve, self._base)
                link = await mqtt_link.connect(access, self._client_id, timeout=TIMEOUT)
                self._limit = min(LIMIT, link.properties.get(mqtt_packets.MAXIMUM_PACKET_SIZE, LIMIT))
                self._flight = _Flight(link)
            return self._flight

    def _message(self, emit: Emit) -> Publish:
        """Raises OutputRefused."""
        output = self._outputs.get(emit.output)
        if output is None:
            raise OutputRefused(f'there is no output "{emit.output}"', hint="name it under spec.outputs")
        try:
            topic = mqtt_topics.output_topic(output.topic, emit.key)
            message = (codec.encode_binary if self._binary else codec.encode_structured)(emit.event)
        except ValueError as error:
            raise OutputRefused(f'output "{emit.output}": {error}') from error
        except EventError as error:
            raise OutputRefused(f'output "{emit.output}": {error.message}', hint=error.hint) from error
        properties: mqtt_packets.Properties = {}
        if self._binary:
            properties[mqtt_packets.USER_PROPERTY] = message.user
            if message.content_type is not None:
                properties[mqtt_packets.CONTENT_TYPE] = message.content_type
        size = 16 + len(topic.encode()) + len(message.payload) + len(message.content_type or "")
        size += sum(5 + len(name.encode()) + len(value.encode()) for name, value in message.user)
        if size > self._limit:
            raise OutputRefused(
                f'output "{emit.output}": an event of {size} bytes is too large for topic {topic} '
                f"(MQTT broker {self._where} takes {self._limit})",
                hint="send less",
            )
        return Publish(topic, message.payload, output.qos, output.retain, False, 0, properties)
