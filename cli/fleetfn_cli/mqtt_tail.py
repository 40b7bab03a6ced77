"""What is published on MQTT topics from now on, read on a thread: `for message in Tail(...)`, `stop` ends it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import uuid
from collections.abc import Iterator

from fleetfn.errors import FleetError
from fleetfn_plumbing import mqtt_access, mqtt_link
from fleetfn_plumbing.mqtt_packets import Answer, Packet, Publish, Subscribe, Wish
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Resolve

_FILTER_ID = 1


def filter_of(template: str) -> str:
    """The topics of an output: `vehicles/{key}/alerts` -> `vehicles/+/alerts`."""
    return "/".join("+" if "{key}" in level else level for level in template.split("/"))


class Tail:
    """Iterate on one thread, `stop` from any. What comes while nobody is connected is missed."""

    def __init__(self, connection: MqttConnection, template: str, *, resolve: Resolve) -> None:
        """Raises FleetError where the broker cannot be reached now."""
        self._access = mqtt_access.access(connection, resolve)
        self._filter = filter_of(template)
        self._found: queue.SimpleQueue[Publish | FleetError | None] = queue.SimpleQueue()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()), name="fn-dev-mqtt", daemon=True)
        self._thread.start()
        first = self._found.get()
        if isinstance(first, FleetError):
            raise first

    def __iter__(self) -> Iterator[Publish]:
        while (found := self._found.get()) is not None:
            if isinstance(found, FleetError):
                raise found
            yield found

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _read(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            link = await mqtt_link.connect(self._access, f"fn-dev-{uuid.uuid4().hex[:12]}")
        except FleetError as error:
            self._found.put(error)
            return
        link.listen(self._received)
        link.send(Subscribe(_FILTER_ID, (Wish(self._filter, 0),)))
        stop = self._stop
        link.ended.add_done_callback(lambda _: stop.set())
        await stop.wait()
        if link.ended.done():
            self._found.put(FleetError(f"MQTT broker {self._access.where} {link.ended.result().message}"))
        else:
            await link.close()
            self._found.put(None)

    def _received(self, packets: list[Packet]) -> None:
        for packet in packets:
            if isinstance(packet, Publish):
                self._found.put(packet)
            elif isinstance(packet, Answer):
                self._found.put(None)  # it looks: whoever made it goes on
