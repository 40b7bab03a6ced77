"""The front door, one port for all functions: it reads a head, wakes the function, and hands the connection over.

From then on the worker speaks with the client, until a request is for somebody else or the worker leaves: then the
connection comes back (`take_back`) between two requests. Nothing is read of a body, and nothing is decided later that
could be decided before a function wakes: the key, the route, a pause, whether there is room.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from fleetfn.http import Response
from fleetfn_runtime import http_async, http_keys, http_listener, http_replies, routes
from fleetfn_runtime.http_head import Head
from fleetfn_runtime.http_protocol import KEPT, Connection, Connections, Limits, Phase
from fleetfn_runtime.routes import Absent, Route, Routes
from fleetfn_spec.function import Function
from fleetfn_triggers import paths

from fleetfn_node import room
from fleetfn_node.activation import Unavailable
from fleetfn_node.room import Refusal, Room

log = logging.getLogger("fleetfn.node")

WAKE_LIMIT = 60.0
"""Seconds that a request waits for a worker; then 504."""

PAUSED = 30.0
"""Seconds after which a caller of a paused trigger may ask again."""

SOON = 1.0
"""Seconds after which a caller may come again for whom there was no room."""

_NOT_NOW = 0.02, 0.5
"""Shortest and longest seconds until a worker that does not keep up is offered the connection again."""

T = TypeVar("T")

HEALTH = f"{paths.RESERVED}healthz"
METRICS = f"{paths.RESERVED}metrics"


class Link(Protocol):
    """A worker, as far as a connection can be handed over to it."""

    def hand_over(self, fd: int, head: bytes) -> None:
        """`fd` is the worker's, unless BufferError is raised: it does not keep up."""
        ...


class FrontDoor:
    """Use on one loop. `activate` gives the function's worker, woken if it sleeps; it raises Unavailable."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        activate: Callable[[str], Awaitable[Link]],
        awake: Callable[[str], Link | None] = lambda _: None,
        key: bytes | None = None,
        metrics: Callable[[], Awaitable[bytes]] | None = None,
        limits: Limits | None = None,
        wake_limit: float = WAKE_LIMIT,
        most_waiting: int = room.WAITING,
        most_open: int = room.OPEN,
        most_kept: int = KEPT,
        refused: Callable[[room.What], None] = lambda _: None,
    ) -> None:
        """`awake`: the function's worker if there is one now, so that nothing need be awaited. `key`: bearer key that
        callers must present. `metrics`: Prometheus text, served at /-/metrics. `most_kept`: bytes of waiting requests.
        `refused`: told of each caller that there is no room for, and of what there is too much.
        """
        self.host = host
        self.port = port
        self.activate = activate
        self.awake = awake
        self.key = key
        self.metrics = metrics
        self.wake_limit = wake_limit
        self.routes = Routes()
        self.tasks: set[asyncio.Task[None]] = set()
        self._paused: dict[str, frozenset[str]] = {}
        self._connections = Connections(limits, most_kept=most_kept)
        self.room = Room(self._connections, most_waiting=most_waiting, most_open=most_open, refused=refused)
        self._listener: http_listener.Listener | None = None
        self._closed = False

    async def open(self) -> None:
        """Listen. Port 0 takes a free one and keeps it in `port`. Raises UsageError: the port is in use."""
        sock = http_listener.tcp(self.host, self.port)
        self.port = sock.getsockname()[1]
        self._listener = http_listener.Listener(sock, self._accepted)

    async def close(self) -> None:
        """Accept nothing more, and end what is here, or comes back from now on."""
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self._connections.close()

    def take_back(self, fd: int, head: bytes) -> None:
        """A connection from a worker, between two requests, with what was read of the next one."""
        sock = socket.socket(fileno=fd)
        if self._closed:
            sock.close()
            return
        no_room = self.room.for_connection()
        if no_room is not None and not head:
            sock.close()
        else:
            self._begin(_Visitor(sock, self._connections, self, head), no_room)

    # Routes

    def serve(self, function: Function, paused: Iterable[str] = ()) -> None:
        """The function's http triggers, instead of those it had."""
        kept = [route for route in self.routes.routes if route.function != function.name]
        self.routes = Routes([*kept, *routes.of_function(function)])
        self.pause(function.name, paused)

    def remove(self, name: str) -> None:
        self.routes = Routes(route for route in self.routes.routes if route.function != name)
        self._paused.pop(name, None)

    def pause(self, name: str, triggers: Iterable[str]) -> None:
        """These triggers of the function are paused, and no others."""
        self._paused[name] = frozenset(triggers)

    def conflicts(self, function: Function) -> list[str]:
        """Routes of other functions that this one would take, each in a sentence."""
        others = [route for route in self.routes.routes if route.function != function.name]
        return [
            f"trigger {new.trigger}: {method} {new.template} is served by {old.function} (trigger {old.trigger})"
            for method, new, old in routes.conflicts(routes.of_function(function), others)
        ]

    def is_paused(self, route: Route) -> bool:
        return route.trigger in self._paused.get(route.function, ())

    def _accepted(self, sock: socket.socket) -> None:
        no_room = self.room.for_connection()
        self._begin(_Visitor(sock, self._connections, self), no_room)

    def _begin(self, visitor: _Visitor, no_room: Refusal | None) -> None:
        if no_room is None:
            visitor.start()
            return
        visitor.refuse(no_room)
        self._connections.turned_away(visitor, self.room.most_refused)


class _Visitor(Connection):
    """A connection whose next request has no worker yet."""

    __slots__ = ("_door",)

    def __init__(self, sock: socket.socket, connections: Connections, door: FrontDoor, received: bytes = b"") -> None:
        super().__init__(sock, connections, received)
        self._door = door

    def begin(self, head: Head) -> None:
        door = self._door
        if head.raw_path == HEALTH:
            self.answer_unread(Response(200, b'{"status":"ok"}', {"content-type": "application/json"}))
            return
        refusal = http_keys.refusal(head, door.key)
        if refusal is not None:
            self.answer_unread(refusal)
        elif head.raw_path.startswith(paths.RESERVED):
            self._own_path(head)
        else:
            self._for_function(head)

    def run(self, head: Head, body: bytes) -> None:  # noqa: ARG002 - the base's
        raise RuntimeError("the front door reads no bodies")

    def between(self) -> None:
        """Nothing: what comes next is looked at as it comes."""

    def _own_path(self, head: Head) -> None:
        if head.raw_path != METRICS or self._door.metrics is None:
            self.answer_unread(http_replies.absent(head, Absent()))
        elif head.method not in ("GET", "HEAD"):
            self.answer_unread(http_replies.absent(head, Absent(("GET", "HEAD"))))
        else:
            self._later(self._measure, self._door.metrics)

    def _for_function(self, head: Head) -> None:
        door = self._door
        match = door.routes.match(head.method, head.raw_path)
        if isinstance(match, Absent):
            self.answer_unread(http_replies.absent(head, match))
            return
        name = match.route.function
        if door.is_paused(match.route) and not http_async.preferred(head.headers):
            error = f"trigger {match.route.trigger} of {name} is paused"
            self.answer_unread(http_replies.problem(503, error, "resume it", retry_after=PAUSED))
        elif (link := door.awake(name)) is not None and self.pass_on(link.hand_over):
            return
        elif (no_room := door.room.for_request(name, len(self._buffer))) is not None:
            door.room.tell(no_room)
            self.answer_unread(_told(no_room))
        else:
            self._count(len(self._buffer))
            door.room.enter(name)
            self._later(self._hand_over, name).add_done_callback(lambda _: door.room.leave(name))

    def refuse(self, no_room: Refusal) -> None:
        """Whatever it may ask."""
        self._door.room.tell(no_room)
        self.answer(_told(no_room), keep=False)

    def _later(self, work: Callable[[T], Awaitable[None]], what: T) -> asyncio.Task[None]:
        self._phase = Phase.RUNNING
        task = self._loop.create_task(self._guarded(work, what))
        self._door.tasks.add(task)
        task.add_done_callback(self._door.tasks.discard)
        return task

    async def _guarded(self, work: Callable[[T], Awaitable[None]], what: T) -> None:
        try:
            await work(what)
        except Exception:
            log.exception("the front door failed on a request")
            self.answer_unread(http_replies.problem(500, "the node failed on this request", "its log says why"))

    async def _measure(self, metrics: Callable[[], Awaitable[bytes]]) -> None:
        self.answer_unread(Response(200, await metrics(), {"content-type": "text/plain; version=0.0.4; charset=utf-8"}))

    async def _hand_over(self, name: str) -> None:
        door = self._door
        wait, longest = _NOT_NOW
        try:
            async with asyncio.timeout(door.wake_limit):
                while not self.gone:
                    link = await door.activate(name)
                    if self.gone or self.pass_on(link.hand_over):
                        return
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, longest)
        except TimeoutError:
            error = f"no worker of {name} was ready within {door.wake_limit:g} s"
            self.answer_unread(http_replies.problem(504, error, "the function's log says what it does while it starts"))
        except Unavailable as why:
            self.answer_unread(http_replies.problem(503, why.message, why.hint, retry_after=why.retry_after))


def _told(no_room: Refusal) -> Response:
    return http_replies.problem(no_room.status, no_room.why, "send again later", retry_after=SOON)
