"""The http trigger: fields, checks and reading a request."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fleetfn.cloudevents import http as codec
from fleetfn.errors import EventError
from fleetfn.event import Event
from fleetfn.http import Request
from fleetfn.position import Named
from msgspec import Meta

from fleetfn_triggers import keys, paths
from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.extract import Extract
from fleetfn_triggers.fields import Strict
from fleetfn_triggers.reading import OVERHEAD, Unreadable, decoded, looks_like_json, not_a_cloudevent, with_data
from fleetfn_triggers.secret import Resolve
from fleetfn_triggers.trigger import Complaint, Reader, Reading

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

TYPE = "http.request"
"""Type of the event that a request becomes which is no CloudEvent."""


_STRUCTURED = "application/cloudevents"
_CLAIMS = frozenset({"ce-specversion", "ce-id", "ce-source", "ce-type"})


class Http(Strict, frozen=True):
    """A function is called at a path of the front door; the caller waits for the reply."""

    path: Annotated[
        str,
        Meta(
            description="Path on the front door. `{name}` stands for one segment: the key expression `path.<name>` and "
            "`Request.path_params`. A fixed segment wins over a name. `/-/` is FleetFn's own.",
            examples=["/battery/{vehicle}"],
        ),
    ]
    methods: Annotated[
        tuple[Method, ...],
        Meta(description="HTTP methods that are taken; others get 405.", examples=[["GET"]], min_length=1),
    ] = ("POST",)
    max_body: Annotated[
        int,
        Meta(
            description="Bytes of the longest body that is taken; a longer one gets 413. Bodies are held in memory.",
            examples=[65536],
            ge=0,
            le=64 * 1024 * 1024,
        ),
    ] = 1024 * 1024


def clash(a: Http, b: Http) -> str | None:
    """The method and path of `b` that `a` of the same function takes too, or None."""
    common = [method for method in a.methods if method in b.methods]
    return f"{common[0]} {b.path}" if common and paths.shape(a.path) == paths.shape(b.path) else None


_ENVELOPE: keys.Envelope = {
    "path": lambda name: lambda request: request.path_params.get(name, keys.MISSING),
    "header": lambda name: lambda request: request.headers.get(name, keys.MISSING),
}


class HttpKind:
    name = "http"
    spec: type[msgspec.Struct] = Http
    connection: type[msgspec.Struct] | None = None
    envelope = frozenset(_ENVELOPE)
    natural_key: str | None = None
    unbatched = "each caller waits for a reply of its own"

    def check(self, spec: Http, key: str | None) -> Iterator[Complaint]:
        for message, hint in paths.problems(spec.path):
            yield Complaint("http.path", message, hint)
        named = paths.names(spec.path)
        if key is not None and key.startswith("path.") and key[5:] not in named:
            known = ", ".join(f"path.{name}" for name in named) or "none"
            yield Complaint("key", f'"{key}" names no part of the path "{spec.path}"', f"it has: {known}")
        for method in dict.fromkeys(spec.methods):
            if spec.methods.count(method) > 1:
                yield Complaint("http.methods", f'"{method}" stands twice', "name it once")

    def reader(self, spec: Http, reading: Reading) -> Reader:
        return HttpReader(spec, reading)

    async def backlog(self, spec: Http, *, connection: None, group: str, resolve: Resolve) -> None:
        """Callers wait with their requests; nothing waits at a source."""

    def scaler(self, spec: Http, *, connection: None, group: str, concurrency: int) -> None:
        """What waits is in the gateway."""


class HttpReader:
    """Request -> Delivery. The position is the caller's own id, where it gives one, so that a repeat is known."""

    def __init__(self, spec: Http, reading: Reading) -> None:
        self._trigger = reading.trigger
        self._source = f"http:{spec.path}"
        self._decode = reading.decode
        self._clock = reading.clock
        self._extract = Extract(reading, _ENVELOPE)

    def __call__(self, request: Request, source: Source) -> Delivery:
        event: Event[bytes | None] | None = None
        position: Named | None = None
        key: str | None = None
        problem: str | None = None
        values: tuple[object, ...] | None = None
        try:
            event = self._cloudevent(request)
            position = _position(request.headers, event)
            if event is None:
                event, values = self._bare(request)
            elif self._decode is not None and event.data is not None:
                event = with_data(event, self._decode)
            key = self._extract.key(request, event, values)
        except Unreadable as exc:
            problem = str(exc)
            event = event or self._raw(request)
        return Delivery(
            trigger=self._trigger,
            key=key,
            event=event,
            position=position,
            source=source,
            size=len(request.body) + OVERHEAD,
            request=request,
            problem=problem,
            waits=True,
        )

    def _cloudevent(self, request: Request) -> Event[bytes | None] | None:
        headers = request.headers
        kind = headers.get("content-type", "")
        if _CLAIMS.isdisjoint(headers) and _STRUCTURED not in kind.lower():
            return None
        try:
            event = codec.decode(headers, request.body)
        except EventError as exc:
            raise not_a_cloudevent(exc) from exc
        if isinstance(event, list):
            raise Unreadable(f"a batch ({kind}) is not taken here: send its events one by one")
        return event

    def _bare(self, request: Request) -> tuple[Event[bytes | None], tuple[object, ...]]:
        data: bytes | None = request.body or None
        kind = request.headers.get("content-type")
        if self._decode is not None and data is not None:
            data, is_json = decoded(self._decode, data)
            kind = "application/json" if is_json else None
        given, time, values = self._extract.bare(request, data)
        event: Event[bytes | None] = Event(
            id=given or request.headers.get("idempotency-key") or os.urandom(16).hex(),
            source=self._source,
            type=TYPE,
            subject=request.path,
            time=time or datetime.fromtimestamp(self._clock(), UTC),
            datacontenttype=kind or looks_like_json(data),
            headers=codec.carried(request.headers),
            data=data,
        )
        return event, values

    def _raw(self, request: Request) -> Event[bytes | None]:
        return Event(
            id=os.urandom(16).hex(),
            source=self._source,
            type=TYPE,
            subject=request.path,
            time=datetime.fromtimestamp(self._clock(), UTC),
            datacontenttype=request.headers.get("content-type"),
            headers=codec.carried(request.headers),
            data=request.body or None,
        )


def _position(headers: Mapping[str, str], event: Event[Any] | None) -> Named | None:
    """The caller's id, hashed: Idempotency-Key, else the pair of a CloudEvent's source and id."""
    given = headers.get("idempotency-key")
    if given is not None:
        if not given.strip():
            raise Unreadable("Idempotency-Key is empty: leave it out or make it unique")
        return Named(_hashed(b"idempotency-key\0" + given.encode(errors="surrogateescape")))
    if event is not None:
        return Named(_hashed(f"cloudevent\0{event.source}\0{event.id}".encode()))
    return None


def _hashed(name: bytes) -> str:
    """Short, since a record keeps many; BLAKE2, since it is quick."""
    return hashlib.blake2s(name, digest_size=16).hexdigest()


KIND = HttpKind()
