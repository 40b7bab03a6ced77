"""The worker's delivery socket: HTTP on a unix socket of this user, for whoever pushes events to this worker; in a pod
over mutually authenticated TLS as well, for its gateway.

POST /invoke   InvokeRequest (JSON) -> InvokeReply: one event by hand, run once, state saved and emits published
POST /deliver  rows of an inbox: fleetfn_triggers.push has the words. Answered at once, and told as they are settled
GET /metrics   Prometheus text
GET /healthz   {"status": "ok"}

In a pod there are more: see pod_calls.py.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from fleetfn.errors import FleetError, UsageError
from fleetfn.http import Response
from fleetfn.invocation import Outcome, Result
from fleetfn_spec.control import InvokeRequest, Refusal
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.push import BODY_LIMIT, MSGPACK, OUTCOME, Pushed, Told

from fleetfn_runtime import deliver_invoke, http_listener
from fleetfn_runtime.http_head import Head
from fleetfn_runtime.http_protocol import Connection, Connections
from fleetfn_runtime.load import LoadedTrigger
from fleetfn_runtime.push_source import PushSource

log = logging.getLogger("fleetfn.http")


class Remote(Protocol):
    """How others than processes of this machine reach the server."""

    def listen(self, accepted: Callable[[socket.socket, str], None]) -> None:
        """`accepted` gets each connection's socket, and why its requests are refused; "" where they are not. Raises
        FleetError.
        """
        ...

    async def answer(self, head: Head, body: bytes) -> Response | None:
        """What it is asked beside what all workers are; None: not that. Raises FleetError for what cannot be asked."""
        ...

    def close(self) -> None:
        """Accept nothing more."""
        ...


class DeliverServer:
    """Use on one loop. `run_once` runs a delivery in its lane for one attempt; `metrics` gives Prometheus text."""

    remote: Remote | None = None
    """In a pod; set before it listens."""

    def __init__(
        self,
        path: Path,
        triggers: Sequence[LoadedTrigger],
        *,
        run_once: Callable[[Delivery], Awaitable[Result]],
        pushes: PushSource,
        metrics: Callable[[], bytes],
    ) -> None:
        self.path = path
        self.pushes = pushes
        self._triggers = {trigger.spec.name: trigger for trigger in triggers}
        self._run_once = run_once
        self._metrics = metrics
        self.draining = False
        self._connections = Connections()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: http_listener.Listener | None = None

    def listen(self) -> None:
        """Raises OSError, FleetError."""
        self._listener = http_listener.Listener(http_listener.unix(self.path), self._accepted)
        if self.remote is not None:
            self.remote.listen(self._accepted)

    async def drain(self) -> None:
        """Accept nothing more; returns when what was asked is answered, but for rows that are not told of yet.

        Connections are ended between two requests, so that who pushes looks for another worker.
        """
        self.draining = True
        if self._listener is not None:
            self._listener.close()
            self.path.unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.close()
        for connection in self._connections.snapshot():
            if connection.idle:
                connection.end()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """End every connection: rows that were not told of are pushed again."""
        self._connections.close()

    async def answer(self, head: Head, body: bytes) -> Response:
        """Raises FleetError for what cannot be asked."""
        match head.method, head.raw_path:
            case "POST", "/invoke":
                return await self._invoke(_read(msgspec.json.decode, body, InvokeRequest))
            case "GET", "/metrics":
                return Response(200, self._metrics(), {"content-type": "text/plain; version=0.0.4; charset=utf-8"})
            case "GET", "/healthz":
                return Response(200, b'{"status":"ok"}', {"content-type": "application/json"})
        if self.remote is not None and (answer := await self.remote.answer(head, body)) is not None:
            return answer
        raise UsageError(f"{head.method} {head.raw_path} is not served here")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _invoke(self, request: InvokeRequest) -> Response:
        delivery = deliver_invoke.delivery_of(self._chosen(request.trigger), request, NOBODY)
        began = time.monotonic()
        result = await self._run_once(delivery)
        reply = deliver_invoke.reply_of(result, delivery.invocation, time.monotonic() - began)
        return Response(200, msgspec.json.encode(reply), {"content-type": "application/json"})

    def _chosen(self, name: str | None) -> LoadedTrigger:
        """The first one where none is named."""
        if name is None:
            return next(iter(self._triggers.values()))
        trigger = self._triggers.get(name)
        if trigger is None:
            raise UsageError(f'there is no trigger "{name}"', hint=f"there is: {', '.join(self._triggers)}")
        return trigger

    def _accepted(self, sock: socket.socket, refused: str = "") -> None:
        _Asker(sock, self._connections, self, refused).start()


class _Nobody:
    """The source of deliveries whose outcome goes to who asked."""

    def settle(self, delivery: Delivery, outcome: Outcome) -> None: ...

    def owns(self, delivery: Delivery) -> bool:  # noqa: ARG002 - the port's
        return True


NOBODY = _Nobody()


class _Asker(Connection):
    __slots__ = ("_refused", "_server")

    def __init__(self, sock: socket.socket, connections: Connections, server: DeliverServer, refused: str) -> None:
        super().__init__(sock, connections)
        self._server = server
        self._refused = refused

    def begin(self, head: Head) -> None:  # noqa: ARG002 - the base's
        if self._refused:
            self.answer_unread(_refusal(403, self._refused))
        else:
            self.read_body(BODY_LIMIT)

    def run(self, head: Head, body: bytes) -> None:
        if (head.method, head.raw_path) == ("POST", "/deliver"):
            self._push(body)
        else:
            self._server.spawn(self._answer(head, body))

    def tell(self, told: list[Told], *, last: bool) -> None:
        self.send_chunk(msgspec.msgpack.encode(told) if told else b"")
        if last:
            self.end_chunks()

    def between(self) -> None:
        """Askers keep their connection, as long as more may be asked."""
        if self._server.draining:
            self.end()

    def _push(self, body: bytes) -> None:
        try:
            rows = _read(msgspec.msgpack.decode, body, list[Pushed])
        except UsageError as error:
            self.answer(_refusal(400, error.message))
            return
        self.answer_in_chunks(Response(200, headers={"content-type": MSGPACK, OUTCOME: str(len(rows))}))
        self._server.pushes.push(rows, self)

    async def _answer(self, head: Head, body: bytes) -> None:
        try:
            response = await self._server.answer(head, body)
        except FleetError as error:
            response = _refusal(400, error.message, error.hint)
        except Exception as error:
            log.exception("%s %s failed on the delivery socket", head.method, head.raw_path)
            response = _refusal(500, f"the worker failed: {type(error).__name__}: {error}")
        self.answer(response)


def _read(decode: Callable[..., Any], body: bytes, what: Any) -> Any:
    try:
        return decode(body, type=what)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"the body cannot be read: {error}") from error


def _refusal(status: int, message: str, hint: str = "") -> Response:
    refusal = Refusal(message, hint)
    return Response(status, msgspec.json.encode(refusal), {"content-type": "application/json"})
