"""What a front door has room for: connections, requests that wait for a worker, the bytes that they hold.

Of one function at most half as many requests wait as connections may be open, so that others have some. Where there is
no room, callers are told so at once, which takes a connection for a moment, too; the log says so now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

from fleetfn_runtime import http_listener
from fleetfn_runtime.http_protocol import Connections

log = logging.getLogger("fleetfn.node")

WAITING = 1000
"""Requests of one function that wait for its worker: as many as one runs at a time."""

OPEN = 4096
"""Connections that are with the node, idle or waiting, unless half of its descriptors are fewer."""

_TELL = 60.0
"""Seconds until the log says once more that callers are refused."""

What = Literal["connections", "waiting", "bytes"]


class Refusal(NamedTuple):
    status: int
    what: What
    """What there is too much of."""
    why: str


class Room:
    """Use on one loop. `refused` is told of each caller that there is no room for."""

    def __init__(
        self, connections: Connections, *, most_waiting: int, most_open: int, refused: Callable[[What], None]
    ) -> None:
        self.most_open = min(most_open, http_listener.allow_descriptors() // 2)
        self.most_waiting = min(most_waiting, max(1, self.most_open // 2))
        self.waiting: Counter[str] = Counter()
        """Requests that wait for a worker, by function."""
        self.most_refused = max(8, self.most_open // 8)
        """Connections beside the open ones, that are being told that there is no room for them."""
        self._connections = connections
        self._refused = refused
        self._tell_at = 0.0

    def for_connection(self) -> Refusal | None:
        """None: there is room for one more, since there was, or others that are idle have gone."""
        if len(self._connections) < self.most_open or self._connections.make_room():
            return None
        return Refusal(503, "connections", f"{self.most_open} connections are open already")

    def for_request(self, function: str, held: int) -> Refusal | None:
        """None: one that holds so many bytes may wait for the function's worker."""
        if self.waiting[function] >= self.most_waiting:
            return Refusal(429, "waiting", f"{self.most_waiting} requests wait for a worker of {function} already")
        if self._connections.kept + held > self._connections.most_kept:
            return Refusal(503, "bytes", "the requests that wait for workers hold too much already")
        return None

    def enter(self, function: str) -> None:
        self.waiting[function] += 1

    def leave(self, function: str) -> None:
        self.waiting[function] -= 1
        if not self.waiting[function]:
            del self.waiting[function]

    def tell(self, refusal: Refusal) -> None:
        """A caller was refused."""
        self._refused(refusal.what)
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            self._tell_at = now + _TELL
            log.warning("callers get %d: %s (said once a minute at most)", refusal.status, refusal.why)
