"""HTTP on the gateway's sockets: uvicorn, an ASGI application, and nothing between.

`Serving` is for processes of this machine, on a unix socket; `TlsServing` for other pods, mutually authenticated.
There, `peer(scope)` tells an application who asks: the common name of the caller's certificate; and `address(scope)`
from where.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from fleetfn.errors import FleetError
from fleetfn_plumbing import tls
from fleetfn_plumbing.quiet_server import QuietServer
from fleetfn_plumbing.tls import TlsFolder
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger("fleetfn.gateway")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PEER = "fleetfn.peer"
"""ASGI extension, where TlsServing serves."""

_GRACE = 2
"""Seconds that calls under way have at the end."""

_KEEP_ALIVE = 60
"""Seconds that a caller's connection is kept: workers and nodes call now and then."""


def peer(scope: Scope) -> str:
    """The common name of who asks; "" on a unix socket, where it is somebody of this machine."""
    return str(scope.get("extensions", {}).get(PEER, ""))


def address(scope: Scope) -> str:
    """From where it is asked; "" on a unix socket."""
    client = scope.get("client")
    return str(client[0]).removeprefix("::ffff:") if client else ""


class Serving:
    """From `open` to `close`; signals are the process'."""

    def __init__(self, path: Path, app: App) -> None:
        self._path = path
        self._server = QuietServer(configured(app, "httptools"))
        self._serving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Raises FleetError, OSError."""
        self._path.unlink(missing_ok=True)  # of one that was killed: who holds the data folder serves here
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(str(self._path))
        except OSError as error:
            sock.close()
            raise FleetError(
                f"the gateway cannot serve at {str(self._path)!r}: {error.strerror or error}",
                hint="name a socket of at most 108 bytes, in a folder that is there and that this user may write to",
            ) from error
        finally:
            os.umask(before)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[sock]))

    async def close(self) -> None:
        self._server.leave()
        if self._serving is not None:
            await self._serving
            self._path.unlink(missing_ok=True)


class TlsServing:
    """Likewise, on `port` of all addresses, or of `host` (0: any free one)."""

    def __init__(self, port: int, certificates: TlsFolder, app: App, *, host: str = "") -> None:
        self.port = port
        self._host = host
        self._certificates = certificates
        self._config = configured(app, _PeerProtocol)
        self._server = QuietServer(self._config)
        self._serving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Raises FleetError."""
        self._config.load()
        self._config.ssl = self._certificates.server()
        sock = listening(self._host, self.port)
        self.port = sock.getsockname()[1]
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[sock]))

    async def close(self) -> None:
        self._server.leave()
        if self._serving is not None:
            await self._serving


def listening(host: str, port: int) -> socket.socket:
    """`host`: "" for all addresses. Raises FleetError."""
    try:
        return socket.create_server((host, port)) if host else all_addresses(port)
    except OSError as error:
        raise FleetError(
            f"the gateway cannot serve at port {port}: {error.strerror or error}",
            hint="another process of this pod has the port",
        ) from error


def all_addresses(port: int) -> socket.socket:
    """IPv4, and IPv6 where there is any."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


class _PeerProtocol(HttpToolsProtocol):
    _peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._peer = tls.peer_name(transport.get_extra_info("ssl_object"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {PEER: self._peer}
        self.scope["extensions"] = extensions


def configured(app: App, http: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=http,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
