"""HTTP/1.1 over mutually authenticated TLS, between pods."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from fleetfn.errors import FleetError

from fleetfn_plumbing import tls
from fleetfn_plumbing.http_client import HEAD_LIMIT, HttpClient, Streams, UnreachableError
from fleetfn_plumbing.tls import TlsFolder

CONNECT = 5.0
"""Seconds for name, connection and handshake."""

KEEPS = 64
"""Connections for the next request: a handshake costs both sides a millisecond or two."""

_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 14_000}
"""A machine that is gone says nothing: after 14 s of silence its connections have ended. The last in milliseconds."""


class TlsClient(HttpClient):
    """See HttpClient. `name`: common name that the server has to show; None: its certificate has to be for `host`."""

    def __init__(self, host: str, port: int, folder: TlsFolder, *, name: str | None = None) -> None:
        super().__init__(f"https://{f'[{host}]' if ':' in host else host}:{port}", keeps=KEEPS)
        self._address = host, port
        self._folder = folder
        self._name = name

    async def connect(self) -> Streams:
        try:
            async with asyncio.timeout(CONNECT):
                streams = await self._connected()
        except TimeoutError:
            raise UnreachableError(f"{self.place} took no connection within {CONNECT:g} s") from None
        except ssl.SSLError as error:
            raise UnreachableError(f"{self.place} is not trusted: {_plain(error)}") from error
        except OSError as error:
            raise UnreachableError(f"nobody listens on {self.place}: {error.strerror or error}") from error
        except FleetError as error:
            raise UnreachableError(error.message, hint=error.hint) from error
        shown = tls.peer_name(streams.writer.get_extra_info("ssl_object"))
        if self._name is not None and shown != self._name:
            streams.end()
            raise UnreachableError(f"{self.place} is {shown!r}, not {self._name!r}")
        return streams

    async def _connected(self) -> Streams:
        context = self._folder.client(names=self._name is None)
        sock = await self._reached()
        try:
            return Streams(
                *await asyncio.open_connection(
                    sock=sock, ssl=context, server_hostname=self._address[0], limit=HEAD_LIMIT
                )
            )
        except BaseException:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # it is a transport's by now, which may not have begun: that closes it
            raise

    async def _reached(self) -> socket.socket:
        """Raises OSError of the last address, where none of them answers."""
        loop = asyncio.get_running_loop()
        failed = OSError("its name has no address")
        for family, kind, protocol, _, address in await loop.getaddrinfo(*self._address, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                notice_silence(sock)
                await loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                failed = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failed


def notice_silence(sock: socket.socket) -> None:
    """Of a machine that is gone. Replies are small and waited for, so nothing is gathered either."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _ALIVE.items():
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _plain(error: ssl.SSLError) -> str:
    return getattr(error, "verify_message", "") or error.reason or str(error)
