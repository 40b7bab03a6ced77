"""HTTP without certificates: on the pod's own loopback for `fn`, which comes by port-forward, and for the kubelet."""

from __future__ import annotations

import asyncio

from fleetfn_plumbing.quiet_server import QuietServer

from fleetfn_gateway.serving import App, configured, listening


class TcpServing:
    """From `open` to `close`. `host`: "" for all addresses. Port 0 takes a free one and keeps it in `port`."""

    def __init__(self, host: str, port: int, app: App) -> None:
        self.port = port
        self._host = host
        self._server = QuietServer(configured(app, "httptools"))
        self._serving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Raises FleetError."""
        sock = listening(self._host, self.port)
        self.port = sock.getsockname()[1]
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[sock]))

    async def close(self) -> None:
        self._server.leave()
        if self._serving is not None:
            await self._serving
