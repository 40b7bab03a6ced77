"""What a pod's gateway asks of its worker on the delivery port, beside what it pushes. Nobody else is let in.

GET /activity       Activity: whether it serves, so that nobody puts it to sleep meanwhile
GET /state          StatePage: keys from `after` on, `limit` at most
GET /state/KEY      StateEntry
POST /send          SendRecords (MessagePack) -> SendReply, once the broker has acknowledged them
POST /pause, POST /resume   {"triggers": [...]}, an empty list means all -> 204; a trigger that is so already stays so
"""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

import msgspec
from fleetfn.errors import UsageError
from fleetfn.http import Response
from fleetfn.store import Store
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_spec import cluster
from fleetfn_spec.control import Refusal, StatePage
from fleetfn_spec.gateway import SendRecords, SendReply, Triggers

from fleetfn_runtime import http_listener, state_entries
from fleetfn_runtime.http_head import Head
from fleetfn_runtime.http_server import HttpSource
from fleetfn_runtime.tls_listener import TlsListener

T = TypeVar("T")

PAGE = 1000
"""Keys of one answer."""

_STATE = "/state"
_JSON = {"content-type": "application/json"}


class PodCalls:
    """A Remote (deliver.py). Use on one loop."""

    def __init__(
        self,
        port: int,
        certificates: TlsFolder,
        *,
        triggers: tuple[str, ...],
        http: HttpSource | None,
        store: Store,
        pause: Callable[[tuple[str, ...]], None],
        resume: Callable[[tuple[str, ...]], None],
        figures: Callable[[], cluster.Figures],
        send: Callable[[SendRecords], Awaitable[SendReply]],
    ) -> None:
        """`port`: 0 takes a free one. `triggers`: all names. `send`: raises FleetError where nothing can be."""
        self.port = port
        self._certificates = certificates
        self._triggers = triggers
        self._http = http
        self._store = store
        self.draining = False
        self.paused: set[str] = set()
        """As far as it was told."""
        self._pause = pause
        self._resume = resume
        self._figures = figures
        self._send = send
        self._listener: TlsListener | None = None

    def listen(self, accepted: Callable[[socket.socket, str], None]) -> None:
        sock = http_listener.everywhere(self.port)
        self.port = sock.getsockname()[1]
        self._listener = TlsListener(sock, self._certificates, lambda asker, name: accepted(asker, _refused(name)))

    def close(self) -> None:
        self.draining = True
        if self._listener is not None:
            self._listener.close()

    async def answer(self, head: Head, body: bytes) -> Response | None:
        match head.method, head.raw_path:
            case "GET", "/activity":
                return _json(self._activity())
            case "GET", "/state":
                return await self._page(parse_qs(head.query))
            case "GET", path if path.startswith(f"{_STATE}/"):
                return await self._entry(unquote(path.removeprefix(f"{_STATE}/")))
            case "POST", "/send":
                return _json(await self._send(_read(msgspec.msgpack.decode, body, SendRecords)))
            case "POST", "/pause" | "/resume" as which:
                (self.pause if which == "/pause" else self.resume)(self._named(body))
                return Response(204)
        return None

    def pause(self, triggers: tuple[str, ...]) -> None:
        self.paused.update(triggers)
        self._pause(self._known(triggers))

    def resume(self, triggers: tuple[str, ...]) -> None:
        self.paused.difference_update(triggers)
        self._resume(self._known(triggers))

    def _known(self, triggers: tuple[str, ...]) -> tuple[str, ...]:
        """Another revision may have others, whose names are told to all."""
        return tuple(each for each in triggers if each in self._triggers)

    def _activity(self) -> cluster.Activity:
        last = None if self._http is None else self._http.last
        return cluster.Activity(
            in_flight=0 if self._http is None else self._http.in_flight,
            last=None if last is None else max(0.0, time.monotonic() - last),
            ready=not self.draining,
            paused=tuple(sorted(self.paused)),
            figures=self._figures(),
        )

    async def _page(self, query: dict[str, list[str]]) -> Response:
        after, limit = query.get("after", [None])[-1], query.get("limit", [str(PAGE)])[-1]
        if not (limit.isascii() and limit.isdigit()):
            raise UsageError(f"limit={limit!r} is no whole number")
        page = await self._store.keys(after=after, limit=min(max(1, int(limit)), PAGE))
        return _json(StatePage(keys=list(page.keys), after=page.after))

    async def _entry(self, key: str) -> Response:
        (loaded,) = await self._store.load([key])
        if loaded.etag is None:
            return _json(Refusal(f"nothing is kept of key {key!r}", "list the keys it has"), 404)
        return _json(state_entries.entry(key, loaded.record))

    def _named(self, body: bytes) -> tuple[str, ...]:
        return _read(msgspec.json.decode, body, Triggers).triggers or self._triggers


def _refused(name: str) -> str:
    """Why requests of who has this common name are; "" where they are not."""
    return "" if name == cluster.GATEWAY else f"{name!r} may not ask here: {cluster.GATEWAY} may"


def _read(decode: Callable[..., T], body: bytes, what: type[T]) -> T:
    try:
        return decode(body, type=what)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"the body cannot be read: {error}") from error


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(value), _JSON)
