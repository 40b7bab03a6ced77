"""One side of a request that is carried on: a bare socket and h11's account of what has been said on it.

No asyncio transport: what is not asked for is not read, so a client's body waits in the client's kernel, not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import h11

READ = 64 * 1024
"""Bytes of one read."""

HEAD = 64 * 1024
"""Bytes of a head."""

LINGER = 3.0
"""Seconds that a client has to read an answer that came before its whole request."""

Event = h11.Request | h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage | h11.ConnectionClosed


class EndedError(Exception):
    """The other side is gone, says nothing for too long, or speaks no HTTP."""


class Peer:
    """Use on one loop, one reader and one writer at a time."""

    def __init__(self, sock: socket.socket, role: Any) -> None:
        """`role`: h11.CLIENT or h11.SERVER, of this side."""
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD)
        self.held = 0
        """Bytes that were read and are not carried on: a request's head, and what came of its body."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Task[bytes] | None = None
        """Outlives whoever waits for it: bytes that come as it is cancelled would be lost."""

    async def event(self, limit: float | None) -> Event:
        """The next one. `limit`: seconds without a byte. Raises EndedError; h11.RemoteProtocolError of a client."""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.read(limit))
                continue
            if event is h11.PAUSED:
                raise EndedError("it says more than was asked")
            if not isinstance(event, h11.Request):
                self.held = 0
            return event  # type: ignore[return-value]  # all that is left

    async def more(self) -> None:
        """Until something was said, which is kept. Raises EndedError: it has left."""
        data = await self.read(None)
        if not data:
            raise EndedError("it has left")
        self.http.receive_data(data)

    async def read(self, limit: float | None) -> bytes:
        """b"": the other side has said all. Raises EndedError."""
        if self._reading is None:
            self._reading = self._loop.create_task(self._loop.sock_recv(self._sock, READ))
        reading = self._reading
        await asyncio.wait({reading}, timeout=limit)
        if not reading.done():
            raise EndedError(f"it said nothing for {limit:g} s")
        self._reading = None
        try:
            data = reading.result()
        except OSError as error:
            raise EndedError(str(error)) from error
        self.held += len(data)
        return data

    async def say(self, event: h11.Event, limit: float | None) -> None:
        """`limit`: seconds until the kernel has taken it. Raises EndedError."""
        data = self.http.send(event)
        if data:
            await self.write(data, limit)

    async def write(self, data: bytes, limit: float | None) -> None:
        try:
            async with asyncio.timeout(limit):
                await self._loop.sock_sendall(self._sock, data)
        except TimeoutError:
            raise EndedError(f"it read nothing for {limit:g} s") from None
        except OSError as error:
            raise EndedError(str(error)) from error

    async def leave(self) -> None:
        """After an answer: who still sends could lose it if this side just closed."""
        with contextlib.suppress(OSError, EndedError, TimeoutError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER):
                while await self.read(None):
                    self.held = 0
        self.close()

    def close(self) -> None:
        if self._reading is None:
            self._sock.close()
            return
        self._reading.add_done_callback(lambda _: self._sock.close())
        self._reading.cancel()
        self._reading = None
