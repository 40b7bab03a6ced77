"""HTTP for functions that sleep: a request is held until there is a pod, and then carried on to it.

Nothing that can be refused wakes a function: what is for no trigger, what is paused, what there is no room for. What is
held is bounded by count, bytes and time. A connection is for one request: the next one goes to the pods themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import resource
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import h11
from fleetfn_spec.cluster import HTTP_PORT
from fleetfn_spec.gateway import GatewayFunction

from fleetfn_gateway.cluster import forwarding, http_answers, http_routes
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.forwarding import PAUSE, BrokenOffError, NotReachedError
from fleetfn_gateway.cluster.http_answers import Answer
from fleetfn_gateway.cluster.http_peer import READ, EndedError, Peer
from fleetfn_gateway.cluster.http_routes import Absent
from fleetfn_gateway.cluster.pods import Pods, Seen
from fleetfn_gateway.cluster.ports import Ports
from fleetfn_gateway.serving import all_addresses

log = logging.getLogger("fleetfn.gateway")

WAKE_LIMIT = 60.0
"""Seconds that a request waits for a pod; as at a node's front door, like the other bounds here."""

WAITING = 1000
"""Requests of one function that wait."""

OPEN = 4096
"""Connections, unless half of the descriptors are fewer."""

KEPT = 64 * 1024 * 1024
"""Bytes of all requests that wait."""

HEAD = 10.0
"""Seconds for a head."""

_AGAIN = 0.05
"""Seconds until pods are looked for again after one that was ready could not be reached."""

_HOLD = 2 * READ
"""Bytes of one request that are read while it waits; the rest waits where it is."""

_BACKLOG = 1024
_TELL = 60.0
"""Seconds until the log says once more that callers are refused."""

What = Literal["connections", "waiting", "bytes"]


class Activator:
    """Use on one loop, from `open` to `close`. `functions`: as they are now; `why`: why one has no pod."""

    def __init__(
        self,
        functions: Callable[[], Mapping[str, GatewayFunction]],
        pods: Pods,
        demand: Demand,
        ports: Ports,
        why: Callable[[str], str],
        *,
        host: str = "",
        http_port: int = HTTP_PORT,
        wake_limit: float = WAKE_LIMIT,
        most_waiting: int = WAITING,
        most_open: int = OPEN,
        most_kept: int = KEPT,
    ) -> None:
        self.held: Counter[str] = Counter()
        """Requests that were held, by function, since the start."""
        self.refused: Counter[tuple[str, What]] = Counter()
        self.pods = pods
        self.demand = demand
        self.why = why
        self.http_port = http_port
        self.wake_limit = wake_limit
        self.most_waiting = most_waiting
        self.most_kept = most_kept
        self.kept = 0
        """Bytes of requests that wait."""
        self._functions = functions
        self._ports = ports
        self._host = host
        self._most_open = min(most_open, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._doors: dict[str, _Door] = {}
        self._unusable: set[int] = set()
        self._visits: set[asyncio.Task[None]] = set()
        self._tell_at = 0.0

    async def change(self) -> None:
        """Doors for the functions that there are now. Raises StoreError."""
        serving = {
            name for name, each in self._functions().items() if any(one.http for one in each.function.spec.triggers)
        }
        given = await self._ports.give(serving, self._unusable)
        for name in [name for name, door in self._doors.items() if given.get(name) != door.port]:
            await self._doors.pop(name).close()
        for name in given.keys() - self._doors.keys():
            await self._open(name, given[name])

    def port(self, function: str) -> int | None:
        """Where requests for it are held; None: nowhere."""
        door = self._doors.get(function)
        return None if door is None else door.port

    def function(self, name: str) -> GatewayFunction | None:
        return self._functions().get(name)

    async def close(self) -> None:
        for door in self._doors.values():
            await door.close()
        self._doors.clear()
        visits = list(self._visits)
        for each in visits:
            each.cancel()
        await asyncio.gather(*visits, return_exceptions=True)

    async def _open(self, function: str, port: int) -> None:
        try:
            sock = socket.create_server((self._host, port)) if self._host else all_addresses(port)
        except OSError as error:
            log.warning("%s: port %d cannot be used: %s", function, port, error.strerror or error)
            self._unusable.add(port)
            await self.change()
            return
        sock.listen(_BACKLOG)
        self._doors[function] = _Door(function, sock, self._accepted)

    def _accepted(self, function: str, sock: socket.socket) -> None:
        if len(self._visits) >= self._most_open:
            self.tell(function, "connections", f"{self._most_open} connections are open already")
            with contextlib.suppress(OSError):
                sock.send(http_answers.encoded(http_answers.no_room(503, "too many connections are open already")))
            sock.close()
            return
        task = asyncio.create_task(_Visit(self, function, sock).run())
        self._visits.add(task)
        task.add_done_callback(self._visits.discard)

    def tell(self, function: str, what: What, why: str) -> None:
        """A caller was refused."""
        self.refused[function, what] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            self._tell_at = now + _TELL
            log.warning("%s: callers are refused: %s (said once a minute at most)", function, why)


class _Door:
    """One function's port."""

    def __init__(self, function: str, sock: socket.socket, accepted: Callable[[str, socket.socket], None]) -> None:
        self.port: int = sock.getsockname()[1]
        self._function = function
        self._sock = sock
        self._accepted = accepted
        sock.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name=f"activator {function}")

    async def close(self) -> None:
        self._accepting.cancel()
        await asyncio.wait({self._accepting})
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as error:  # descriptors are used up, or the caller has left again
                log.warning("%s: a connection could not be accepted: %s", self._function, error)
                await asyncio.sleep(_AGAIN)
                continue
            sock.setblocking(False)
            self._accepted(self._function, sock)


class _Visit:
    """One connection, and its one request."""

    def __init__(self, activator: Activator, function: str, sock: socket.socket) -> None:
        self._activator = activator
        self._function = function
        self._client = Peer(sock, h11.SERVER)
        self._method = ""

    async def run(self) -> None:
        try:
            async with asyncio.timeout(HEAD):
                request = await self._client.event(None)
            if isinstance(request, h11.Request):
                self._method = request.method.decode()
                await self._serve(request)
            await self._client.leave()
        except h11.RemoteProtocolError as error:
            await self._answer(http_answers.unreadable(str(error)))
            await self._client.leave()
        except (EndedError, TimeoutError):
            pass  # it has left, or never asked anything
        except Exception:
            log.exception("%s: a request failed in the gateway", self._function)
        finally:
            self._client.close()

    async def _serve(self, request: h11.Request) -> None:
        refusal = self._refusal(request)
        if refusal is not None:
            await self._answer(refusal)
            return
        try:
            async with asyncio.timeout(self._activator.wake_limit) as limit:
                sock = await self._connected()
                limit.reschedule(None)
        except TimeoutError:
            why = self._activator.why(self._function)
            await self._answer(http_answers.nobody(self._function, self._activator.wake_limit, why))
            return
        try:
            await forwarding.forward(self._client, request, sock)
        except BrokenOffError:
            await self._answer(http_answers.broken_off(self._function))

    def _refusal(self, request: h11.Request) -> Answer | None:
        function = self._activator.function(self._function)
        if function is None:
            return http_answers.absent(self._method, Absent(http_routes.path_of(request.target.decode())))
        if self._activator.pods.ready(self._function):
            return None  # it knows best itself
        target = request.target.decode("latin-1")
        if http_routes.path_of(target) == http_answers.HEALTH:
            return http_answers.healthy()
        found = http_routes.find(function.function, self._method, target)
        if isinstance(found, Absent):
            return http_answers.absent(self._method, found)
        if found.name in function.paused and not _prefers_async(request):
            return http_answers.paused(self._function, found.name)
        return self._no_room()

    def _no_room(self) -> Answer | None:
        activator, function = self._activator, self._function
        if activator.demand.requests[function] >= activator.most_waiting:
            why = f"{activator.most_waiting} requests wait for a worker of {function} already"
            activator.tell(function, "waiting", why)
            return http_answers.no_room(429, why)
        if activator.kept + self._client.held > activator.most_kept:
            why = "the requests that wait for workers hold too much already"
            activator.tell(function, "bytes", why)
            return http_answers.no_room(503, why)
        return None

    async def _connected(self) -> socket.socket:
        """To a pod that is ready, waited for. Raises EndedError."""
        activator = self._activator
        while True:
            ready = activator.pods.ready(self._function) or await self._held()
            if ready:
                pod = random.choice(ready)
                try:
                    return await forwarding.connect(pod.address, activator.http_port)
                except NotReachedError as error:
                    log.info("%s: pod %s cannot be reached: %s", self._function, pod.name, error)
                    await asyncio.sleep(_AGAIN)

    async def _held(self) -> Sequence[Seen]:
        """Pods that are ready, waited for; none: there came none. Raises EndedError: the client has left."""
        activator, function, client = self._activator, self._function, self._client
        activator.held[function] += 1
        activator.demand.requests[function] += 1
        kept = 0
        waiting = asyncio.create_task(activator.pods.first(function, activator.wake_limit))
        try:
            with activator.demand.waiting(function):
                while not waiting.done():
                    activator.kept += client.held - kept
                    kept = client.held
                    await _first(waiting, client if kept < _HOLD else None)
            return waiting.result()
        finally:
            waiting.cancel()
            activator.kept -= kept
            activator.demand.requests[function] -= 1

    async def _answer(self, answer: Answer) -> None:
        await self._client.write(http_answers.encoded(answer, bodiless=self._method == "HEAD"), PAUSE)


async def _first(waiting: asyncio.Task[Any], client: Peer | None) -> None:
    """Until either has something new. Raises EndedError."""
    more = None if client is None else asyncio.create_task(client.more())
    try:
        await asyncio.wait({waiting} if more is None else {waiting, more}, return_when=asyncio.FIRST_COMPLETED)
        if more is not None and more.done():
            more.result()
    finally:
        if more is not None:
            more.cancel()
            await asyncio.wait({more})


def _prefers_async(request: h11.Request) -> bool:
    return any(name == b"prefer" and b"respond-async" in value.lower() for name, value in request.headers)
