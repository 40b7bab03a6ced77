"""`Prefer: respond-async` (RFC 7240): the caller gets 202 once the request is in the inbox, and it runs as any push.

The row's event is what the handler would have got at once. Beside it, as a header that no request can carry (its name
begins with a colon), it keeps the request itself, for handlers that take a `Request`; credentials are left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import msgspec
from fleetfn.cloudevents import http as codec
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.http import Request, Response
from fleetfn.position import Named
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Arrival, Inbox
from fleetfn_triggers.reading import Unreadable

from fleetfn_runtime import http_replies

log = logging.getLogger("fleetfn.http")

PREFERENCE = "respond-async"
KEPT = ":request"
LATER = 5.0
"""Seconds after which a caller may come again where the inbox took nothing."""

_PREFERENCES = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
_ACCEPTED = {"content-type": "application/json", "preference-applied": PREFERENCE}


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request as its row keeps it."""

    method: str
    path: str
    path_params: dict[str, str] = {}
    query: dict[str, list[str]] = {}
    headers: dict[str, str] = {}
    body: bytes | None = None
    """None: it is the event's data."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Kept).decode


def preferred(headers: Mapping[str, str]) -> bool:
    """Whether the caller wants no more than the request's being taken."""
    given = headers.get("prefer")
    if given is None:
        return False
    names = (re.split("[;=]", one, maxsplit=1)[0] for one in _PREFERENCES.findall(given))
    return any(name.strip().lower() == PREFERENCE for name in names)


class Accepting:
    """Puts requests into the inbox."""

    def __init__(self, function: str, inbox: Inbox) -> None:
        self._function = function
        self._inbox = inbox
        self._down = False

    async def accept(self, delivery: Delivery) -> Response:
        """What the caller gets: 202; 400 for what can become no run; 503 where the inbox takes nothing."""
        if delivery.problem is not None:
            return http_replies.problem(400, delivery.problem)
        try:
            (sequence,) = await self._inbox.put([self._arrival(delivery)])
        except StoreError as down:
            self._tell(down)
            hint = f"send it again later, or without {PREFERENCE}, to wait for the reply"
            return http_replies.problem(503, "the request cannot be kept now", hint, retry_after=LATER)
        self._tell(None)
        return Response(202, msgspec.json.encode({"id": delivery.event.id, "sequence": sequence}), _ACCEPTED)

    def _tell(self, down: StoreError | None) -> None:
        """The log has what is no caller's business, once for all of them."""
        if down is not None and not self._down:
            log.warning("asynchronous requests get 503: %s; %s", down.message, down.hint)
        elif down is None and self._down:
            log.info("asynchronous requests are taken again")
        self._down = down is not None

    def _arrival(self, delivery: Delivery) -> Arrival:
        position = delivery.position
        return Arrival(
            function=self._function,
            trigger=delivery.trigger,
            key=delivery.key,
            event=_with_request(delivery.event, delivery.request),
            source=_source(position.id, delivery.key) if isinstance(position, Named) else None,
        )


def _source(id_: str, key: str | None) -> str:
    """A caller's id is one request of one key, as it is for a caller who waits."""
    return id_ if key is None else f"{id_}|{key}"


def restored(event: Event[bytes | None]) -> tuple[Event[bytes | None], Request | None]:
    """The event as it was, and the request that it came with; None where it came by other ways. Raises Unreadable."""
    kept = next((value for name, value in event.headers if name == KEPT), None)
    if kept is None:
        return event, None
    try:
        known = _decode(kept)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(f"the request that came with the event cannot be read: {error}") from error
    request = Request(
        method=known.method,
        path=known.path,
        path_params=known.path_params,
        query=known.query,
        headers=known.headers,
        body=(event.data or b"") if known.body is None else known.body,
    )
    headers = tuple((name, value) for name, value in event.headers if name != KEPT)
    return msgspec.structs.replace(event, headers=headers), request


def _with_request(event: Event[bytes | None], request: Request | None) -> Event[bytes | None]:
    if request is None:
        return event
    kept = _Kept(
        request.method,
        request.path,
        dict(request.path_params),
        dict(request.query),
        {name: value for name, value in request.headers.items() if name not in codec.SECRET},
        None if request.body == (event.data or b"") else request.body,
    )
    return msgspec.structs.replace(event, headers=(*event.headers, (KEPT, _encode(kept))))
