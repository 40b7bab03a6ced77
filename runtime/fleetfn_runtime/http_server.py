"""The worker's HTTP source: connections handed over by a node, or by the door of a lone worker, become deliveries.

A connection stays while its requests are for this function. A request for another one, or a drain, hands it back to
the node between two requests, so no caller sees a connection end because a function sleeps or is redeployed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from fleetfn.http import Request, Response
from fleetfn.invocation import Outcome
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.http import Http
from fleetfn_triggers.trigger import Reader

from fleetfn_runtime import http_async, http_head, http_keys, http_listener, http_replies
from fleetfn_runtime.http_head import Head, HeadError
from fleetfn_runtime.http_protocol import Connection, Connections, Limits, Phase
from fleetfn_runtime.routes import Absent, Match, Route, Routes

HandBack = Callable[[int, bytes], None]
"""Takes a connection's descriptor and the bytes read of it. Raises BufferError if it cannot now."""

IN_FLIGHT = 1000
"""Requests run at a time by one worker; more get 429."""

HELD = 64 * 1024 * 1024
"""Bytes of their bodies; more get 429."""

UNREAD = 64 * 1024 * 1024
"""Bytes of replies that callers have not read yet; while there are more, new requests get 429."""

OPEN = 4096
"""Connections of one worker, unless half of its descriptors are fewer. More get 429, where no idle one can go."""

IDLE = 512
"""Idle connections that a worker keeps; the node has the others back, and a lone worker closes them."""

QUERY_FIELDS = 1000
PAUSED = 30.0
"""Seconds after which a caller of a paused trigger may ask again."""

_NOT_NOW = 0.05
"""Seconds until a connection is offered again that the node could not take back."""


@dataclass(frozen=True, slots=True)
class HttpTrigger:
    name: str
    spec: Http
    reader: Reader


class HttpSource:
    """Use on one loop. `take` gets deliveries; their outcomes come back through Delivery.source."""

    def __init__(
        self,
        function: str,
        triggers: Sequence[HttpTrigger],
        take: Callable[[Sequence[Delivery]], None],
        *,
        accepting: http_async.Accepting | None = None,
        key: bytes | None = None,
        hand_back: HandBack | None = None,
        limits: Limits | None = None,
        most_in_flight: int = IN_FLIGHT,
        most_held: int = HELD,
        most_unread: int = UNREAD,
        most_idle: int = IDLE,
        most_open: int = OPEN,
    ) -> None:
        """`accepting`: for callers who need not wait; None: they do. `key`: bearer key of callers. `hand_back`: None
        where there is no node. `most_held`, `most_unread`: bytes of bodies, of replies.
        """
        self.triggers = {trigger.name: trigger for trigger in triggers}
        self.routes = Routes(Route(function, each.name, each.spec.path, tuple(each.spec.methods)) for each in triggers)
        self.take = take
        self.accepting = accepting
        self.key = key
        self.hand_back = hand_back
        self.most_in_flight = most_in_flight
        self.most_held = most_held
        self.most_unread = most_unread
        self.most_idle = most_idle
        self.most_open = min(most_open, http_listener.allow_descriptors() // 2)
        self.paused: set[str] = set()
        self.in_flight = 0
        """Requests that are run."""
        self.last: float | None = None
        """When one was taken or answered; monotonic. None: none was."""
        self.held = 0
        """Bytes of bodies, arriving ones counted by what they announce."""
        self.leaving = False
        """Nobody is to ask again on the same connection."""
        self.draining = False
        self._connections = Connections(limits)
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, fd: int, head: bytes) -> None:
        """A connection from the node, with what was read of it. `fd` is this side's now."""
        sock = socket.socket(fileno=fd)
        if self.draining and self.hand_back is not None:
            _Caller(sock, self._connections, self, head).leave()
        else:
            self._begin(sock, head)

    @property
    def crowded(self) -> bool:
        """More connections than may stay while they are idle."""
        return len(self._connections) - self.in_flight > self.most_idle

    def pause(self, trigger: str) -> None:
        """Its callers get 503."""
        self.paused.add(trigger)

    def resume(self, trigger: str) -> None:
        self.paused.discard(trigger)

    def refusal(self, head: Head, trigger: str, announced: int, *, waits: bool) -> Response | None:
        """Why a request with a body of `announced` bytes cannot be taken, now or from this caller; None: it can."""
        if self.key is not None and (refusal := http_keys.refusal(head, self.key)):
            return refusal
        if waits and trigger in self.paused:
            return http_replies.problem(503, f"trigger {trigger} is paused", "resume it", retry_after=PAUSED)
        if self.in_flight >= self.most_in_flight or (self.held and self.held + announced > self.most_held):
            return _too_many("too many requests are in flight")
        if self._connections.unsent > self.most_unread:
            return _too_many("too many replies wait to be read by their callers")
        return None

    def waits(self, head: Head) -> bool:
        """Whether the reply has to tell what came of the request."""
        return "prefer" not in head.headers or self.accepting is None or not http_async.preferred(head.headers)

    def accept(self, caller: _Caller, delivery: Delivery) -> None:
        """Answer once it is in the inbox."""
        task = asyncio.get_running_loop().create_task(self._accept(caller, delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, caller: _Caller, delivery: Delivery) -> None:
        if self.accepting is not None:
            caller.reply(await self.accepting.accept(delivery))

    async def drain(self, linger: float = 0.0) -> None:
        """Take nothing more; returns when every request is answered and every connection is handed back or closed.
        `linger`: seconds in which requests are still taken, each as the last of its connection.
        """
        if linger:
            self.leaving = True
            await asyncio.sleep(linger)
        self.draining = True
        self._connections.hurry()
        for connection in self._connections.snapshot():
            if isinstance(connection, _Caller) and connection.idle:
                connection.leave()
        await self._connections.empty()

    def close(self) -> None:
        """End every connection at once."""
        self._connections.close()

    def _begin(self, sock: socket.socket, received: bytes) -> None:
        has_room = len(self._connections) < self.most_open or self._connections.make_room()
        caller = _Caller(sock, self._connections, self, received)
        if has_room:
            caller.start()
            return
        caller.answer(_too_many(f"{self.most_open} connections are open already"), keep=False)
        self._connections.turned_away(caller, max(8, self.most_open // 8))


class _Caller(Connection):
    """One caller's connection: the source of one delivery at a time."""

    __slots__ = ("_fresh", "_held", "_match", "_of", "_runs", "_waits")

    def __init__(self, sock: socket.socket, connections: Connections, of: HttpSource, received: bytes) -> None:
        super().__init__(sock, connections, received)
        self._of = of
        self._match: Match
        self._held = 0
        self._runs = False
        self._waits = True
        """The reply has to tell what came of the request."""
        self._fresh = True
        """The node gave this very request to this function, so it is not given back for want of a route."""

    # A request

    def begin(self, head: Head) -> None:
        source = self._of
        if source.draining and source.hand_back is not None:
            self.leave()
            return
        match = source.routes.match(head.method, head.raw_path)
        if isinstance(match, Absent):
            if source.hand_back is not None and not self._fresh:
                self.leave()
                return
            self._fresh = False
            self.answer_unread(http_keys.refusal(head, source.key) or http_replies.absent(head, match))
            return
        self._fresh = False
        trigger = source.triggers[match.route.trigger]
        limit = trigger.spec.max_body
        announced = limit if head.chunked else min(head.length, limit)
        self._waits = waits = source.waits(head)
        refusal = source.refusal(head, trigger.name, announced, waits=waits)
        if refusal is not None:
            self.answer_unread(refusal)
            return
        self._match = match
        source.last = time.monotonic()
        self._hold(announced)
        self.read_body(limit)

    def run(self, head: Head, body: bytes) -> None:
        match = self._match
        source = self._of
        request = Request(
            method=head.method,
            path=http_head.decoded(head.raw_path) if "%" in head.raw_path else head.raw_path,
            path_params=match.params,
            query=_query(head.query) if head.query else {},
            headers=head.headers,
            body=body,
        )
        delivery = source.triggers[match.route.trigger].reader(request, self)
        if head.chunked:
            self._hold(len(body))
        self._runs = True
        source.in_flight += 1
        if self._waits:
            source.take((delivery,))
        else:
            source.accept(self, delivery)

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        invocation = delivery.invocation
        self.reply(http_replies.of_outcome(outcome, invocation), invocation)

    def reply(self, response: Response, invocation: str = "") -> None:
        source = self._of
        source.in_flight -= 1
        source.last = time.monotonic()
        self._runs = False
        self._hold(0)
        closing = source.leaving or (source.hand_back is None and (source.draining or source.crowded))
        self.answer(response, keep=not closing, invocation=invocation)

    def owns(self, delivery: Delivery) -> bool:  # noqa: ARG002 - the port's
        """Always: it is run to its end, even if its caller has gone."""
        return True

    def end(self) -> None:
        super().end()
        if not self._runs:
            self._hold(0)

    def _hold(self, size: int) -> None:
        self._of.held += size - self._held
        self._held = size

    # Between requests

    def between(self) -> None:
        if self._held:
            self._hold(0)
        if self._of.draining or (self._of.crowded and not self._buffer):
            self.leave()

    def spare(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Back to the node, or closed where there is none."""
        hand_back = self._of.hand_back
        if hand_back is None:
            self.end()
        elif not self.pass_on(hand_back):
            self._phase = Phase.RUNNING
            self._loop.call_later(_NOT_NOW, self._leave_again)

    def _leave_again(self) -> None:
        if not self.gone:
            self.leave()


def _too_many(error: str) -> Response:
    return http_replies.problem(429, error, "send again later", retry_after=1)


def _query(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS)
    except ValueError:
        raise HeadError(400, f"the query has more than {QUERY_FIELDS} fields") from None
