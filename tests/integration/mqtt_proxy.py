"""A TCP proxy between an MQTT broker and its clients that sees whole packets, and a port where handlers tell where
they stand. A rule says of each what becomes of it; it may kill somebody meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Literal

PACKETS = {1: "CONNECT", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 8: "SUBSCRIBE"}

Direction = Literal["to client", "to broker", "handler"]

Rule = Callable[[Direction, str, bytes], bool]
"""(direction, name of the packet or 'begin', its bytes) -> whether it goes on. Called on the proxy's thread."""

After = Callable[[Direction, str, bytes], None]
"""Called once a packet has been sent on."""


class Proxy:
    """`broker`: host:port. `port`: for MQTT clients; `watch`: for handlers."""

    def __init__(self, broker: str, before: Rule, after: After) -> None:
        host, _, port = broker.rpartition(":")
        self._broker = (host, int(port))
        self._before = before
        self._after = after
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        mqtt = await asyncio.start_server(self._client, "127.0.0.1", 0)
        watch = await asyncio.start_server(self._handler, "127.0.0.1", 0)
        self.port, self.watch = (server.sockets[0].getsockname()[1] for server in (mqtt, watch))
        self._ready.set()
        async with mqtt, watch:
            await self._ended.wait()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection(*self._broker)
        except OSError:  # the broker is away
            writer.close()
            return
        try:
            await asyncio.gather(self._pass("to broker", reader, ours), self._pass("to client", theirs, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one of them is gone
        finally:
            writer.transport.abort()
            ours.transport.abort()
            await asyncio.sleep(0)  # until they are closed

    async def _pass(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            packet = await _packet(reader)
            name = PACKETS.get(packet[0] >> 4, "other")
            if not self._before(direction, name, packet):
                raise ConnectionResetError
            writer.write(packet)
            await writer.drain()
            self._after(direction, name, packet)

    async def _handler(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line and self._before("handler", "begin", line):
                writer.write(b".")
                await writer.drain()
        except OSError:
            pass  # it was killed
        finally:
            writer.close()


async def _packet(reader: asyncio.StreamReader) -> bytes:
    """One control packet, whole: fixed header, remaining length (MQTT 2.2.3), the rest."""
    head = bytearray(await reader.readexactly(1))
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        head.append(byte)
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return bytes(head) + await reader.readexactly(length)
