"""The one port of a worker that runs by itself: health, readiness and figures below /-/, all else is its function's.

It listens before the worker is ready and until it has drained, so that whoever looks is told how it is. A request for
the function is handed over with its connection, as a node's front door does.

GET /-/healthz   200 while this process answers
GET /-/readyz    200 while requests are taken; 503 while it starts or drains
GET /-/metrics   Prometheus text, of the worker and of its gateway; for who has the key, where there is one
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

import msgspec
from fleetfn.errors import FleetError, UsageError
from fleetfn.http import Response
from fleetfn_triggers import paths

from fleetfn_runtime import http_keys, http_listener, http_replies
from fleetfn_runtime.http_head import Head
from fleetfn_runtime.http_protocol import Connection, Connections, Limits
from fleetfn_runtime.routes import Absent

log = logging.getLogger("fleetfn.http")

HEALTH = f"{paths.RESERVED}healthz"
READINESS = f"{paths.RESERVED}readyz"
METRICS = f"{paths.RESERVED}metrics"

STARTING, READY, LEAVING, DRAINING = "starting", "ready", "leaving", "draining"
"""Leaving: it is not ready, and takes what comes all the same; who sends it has not heard of it yet."""

OPEN = 1024
"""Connections that have said nothing yet which is the function's, unless a quarter of the descriptors is fewer."""

_TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_JSON = {"content-type": "application/json"}


class Door:
    """Use on one loop."""

    def __init__(
        self,
        *,
        serves: bool,
        metrics: Callable[[], Awaitable[bytes]],
        key: bytes | None = None,
        limits: Limits | None = None,
        most_open: int = OPEN,
    ) -> None:
        """`serves`: the function has http triggers. `metrics`: raises nothing. `key`: bearer key of callers."""
        self.serves = serves
        self.metrics = metrics
        self.key = key
        self.state = STARTING
        self.step = ""
        """What it does to become ready."""
        self.hand_over: Callable[[int, bytes], None] | None = None
        """Gives a connection to the worker, which has its triggers by then, with what was read of it."""
        self.most_open = min(most_open, http_listener.allow_descriptors() // 4)
        self._connections = Connections(limits)
        self._listener: http_listener.Listener | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, host: str, port: int) -> str:
        """The address as a URL; port 0 takes a free one. Raises FleetError."""
        try:
            sock = http_listener.tcp(host, port)
        except UsageError as error:  # the command line may be right, and the machine busy
            raise FleetError(error.message, hint=error.hint) from error
        host, port = sock.getsockname()[:2]
        self._listener = http_listener.Listener(sock, self._accepted)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        self._connections.close()

    def leave(self, linger: float) -> None:
        """The process ends; requests are taken for so many seconds yet."""
        self.state = LEAVING

        def drain() -> None:
            self.state = DRAINING

        asyncio.get_running_loop().call_later(linger, drain)

    def take_back(self, fd: int, head: bytes) -> None:
        """A connection from the worker between two requests, with what was read of the next one; idle ones end."""
        sock = socket.socket(fileno=fd)
        if head:
            _Visitor(sock, self._connections, self, head).start()
        else:
            sock.close()

    def later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accepted(self, sock: socket.socket) -> None:
        has_room = len(self._connections) < self.most_open or self._connections.make_room()
        visitor = _Visitor(sock, self._connections, self)
        if has_room:
            visitor.start()
            return
        error = f"{self.most_open} connections are open already"
        visitor.answer(http_replies.problem(429, error, "send again later", retry_after=1), keep=False)
        self._connections.turned_away(visitor, max(8, self.most_open // 8))


class _Visitor(Connection):
    """A connection whose next request may be anybody's."""

    __slots__ = ("_door",)

    def __init__(self, sock: socket.socket, connections: Connections, door: Door, received: bytes = b"") -> None:
        super().__init__(sock, connections, received)
        self._door = door

    def begin(self, head: Head) -> None:
        door = self._door
        if head.raw_path.startswith(paths.RESERVED):
            self._own_path(head)
        elif door.state not in (READY, LEAVING):
            error = f"the function is {door.state}"
            self.answer_unread(http_replies.problem(503, error, "send again later", retry_after=1))
        elif door.serves and door.hand_over is not None:
            self.pass_on(door.hand_over)
        else:
            self.answer_unread(http_keys.refusal(head, door.key) or http_replies.absent(head, Absent()))

    def run(self, head: Head, body: bytes) -> None:  # noqa: ARG002 - the base's
        """Figures are asked for: nothing else is answered later."""
        self._door.later(self._measure())

    def between(self) -> None:
        if self._door.state == DRAINING:
            self.end()

    def _own_path(self, head: Head) -> None:
        if head.raw_path not in (HEALTH, READINESS, METRICS):
            self.answer_unread(http_replies.absent(head, Absent()))
        elif head.method not in ("GET", "HEAD"):
            self.answer_unread(http_replies.absent(head, Absent(("GET", "HEAD"))))
        elif head.raw_path == HEALTH:
            self.answer_unread(Response(200, b'{"status":"ok"}', _JSON))
        elif head.raw_path == READINESS:
            self.answer_unread(self._readiness())
        elif (refusal := http_keys.refusal(head, self._door.key)) is not None:
            self.answer_unread(refusal)
        elif self._door.state == STARTING:
            self.answer_unread(http_replies.problem(503, "nothing is counted before it is ready", retry_after=1))
        else:
            self.read_body(0)

    def _readiness(self) -> Response:
        door = self._door
        said = {"status": door.state} | ({"step": door.step} if door.state == STARTING and door.step else {})
        return Response(200 if door.state == READY else 503, msgspec.json.encode(said), _JSON)

    async def _measure(self) -> None:
        self.answer(Response(200, await self._door.metrics(), _TEXT))
