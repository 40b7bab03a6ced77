"""Connections over TLS that look like those of a bare socket: http_protocol.py reads and writes them itself.

A handshake is over before anybody sees the connection, and both sides have proven who they are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from fleetfn_plumbing import tls
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_plumbing.tls_http import notice_silence

from fleetfn_runtime import http_listener

log = logging.getLogger("fleetfn.http")

HANDSHAKE = 5.0
"""Seconds."""

_WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsSocket(ssl.SSLSocket):
    """What it cannot do at once is a BlockingIOError, as with any socket. Not blocking."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Some bytes more than asked for where they are here already: no selector would tell of those."""
        parts = [self._next(buflen, flags)]
        size = len(parts[0])
        while parts[-1] and (size < buflen or self.pending()):
            try:
                parts.append(self._next(max(buflen - size, self.pending()), flags))
            except BlockingIOError:
                break
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def send(self, data: Any, flags: int = 0) -> int:
        sent = 0
        view = memoryview(data)
        while sent < len(view):
            try:
                sent += super().send(view[sent:], flags)
            except _WAITS:
                break
        if not sent and view:
            raise BlockingIOError
        return sent

    def _next(self, size: int, flags: int) -> bytes:
        try:
            return super().recv(size, flags)
        except _WAITS:
            raise BlockingIOError from None


class TlsListener:
    """Owns `sock`. `accepted` gets each connection's socket, with the common name that it has shown."""

    def __init__(
        self, sock: socket.socket, certificates: TlsFolder, accepted: Callable[[socket.socket, str], None]
    ) -> None:
        """Raises UsageError where there are no certificates."""
        self._context = certificates.server()
        self._context.sslsocket_class = TlsSocket
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._listener = http_listener.Listener(sock, self._begin)

    def close(self) -> None:
        """Accept nothing more."""
        self._listener.close()
        for task in self._handshakes:
            task.cancel()

    def _begin(self, sock: socket.socket) -> None:
        task = self._loop.create_task(self._shake(sock))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake(self, bare: socket.socket) -> None:
        sock: socket.socket = bare
        try:
            bare.setblocking(False)
            notice_silence(bare)
            sock = shaken = self._context.wrap_socket(bare, server_side=True, do_handshake_on_connect=False)
            async with asyncio.timeout(HANDSHAKE):
                await self._handshake(shaken)
        except BaseException as error:
            sock.close()
            if not isinstance(error, (OSError, ValueError)):  # a timeout is one; ValueError: it left at once
                raise
            log.info("a connection to the delivery port is refused: %s", error or type(error).__name__)
            return
        self._accepted(shaken, tls.peer_name(shaken))

    async def _handshake(self, sock: ssl.SSLSocket) -> None:
        while True:
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._until(sock, self._loop.add_reader, self._loop.remove_reader)
            except ssl.SSLWantWriteError:
                await self._until(sock, self._loop.add_writer, self._loop.remove_writer)
            else:
                return

    async def _until(self, sock: ssl.SSLSocket, add: Callable[..., Any], remove: Callable[..., Any]) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        number = sock.fileno()
        add(number, _tell, ready)
        try:
            await ready
        finally:
            remove(number)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
