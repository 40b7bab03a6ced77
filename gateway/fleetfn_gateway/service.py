"""The gateway's calls, as an ASGI application: fleetfn_spec.gateway lists them. Each is one call of the Gateway."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec
from fleetfn.errors import FleetError, StoreError, UsageError
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import FireRequest, GatewayFunction, Passed, Redrive, Triggers
from fleetfn_triggers.inbox import Arrival, Claim, Letter, Offer, Rows, Which
from fleetfn_triggers.push import BODY_LIMIT, MSGPACK

from fleetfn_gateway import registry
from fleetfn_gateway.gateway import AwayError, Gateway, UnknownError
from fleetfn_gateway.queue import FullError
from fleetfn_gateway.serving import Receive, Scope, Send, address, peer

log = logging.getLogger("fleetfn.gateway")

PAGE = 100
"""Dead letters of one answer, unless asked otherwise."""

PAGE_LIMIT = 10_000

_JSON = "application/json"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"

_pack = msgspec.msgpack.Encoder().encode


class Reply(NamedTuple):
    body: bytes = b""
    kind: str = _JSON
    status: int = 200


class Asked(NamedTuple):
    query: dict[str, list[str]]
    body: bytes
    peer: str = ""
    """Who asks, where that is known: see serving.peer."""
    address: str = ""
    """From where: see serving.address."""


NOTHING = Reply(status=204)


class TooLargeError(FleetError):
    """A body beyond BODY_LIMIT."""


class ForbiddenError(FleetError):
    """Who asks may not ask that."""


class Service:
    """An ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        inbox = gateway.queue
        self._inbox_calls: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            "put": (msgspec.msgpack.Decoder(list[Arrival]), inbox.put),
            "offer": (msgspec.msgpack.Decoder(list[Offer]), inbox.offer),
            "bury": (msgspec.msgpack.Decoder(list[Letter]), inbox.bury),
            "claim": (msgspec.msgpack.Decoder(Claim), inbox.claim),
            "passed": (msgspec.msgpack.Decoder(Passed), self._passed),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway serves HTTP alone, not {scope['type']!r}")
        try:
            body = await _body(receive)
            query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            asked = Asked(query, body, peer(scope), address(scope))
            reply = await self.answer(scope["method"], scope["path"], asked)
        except _Gone:
            return
        except FleetError as error:
            reply = refused(error)
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            reply = _refusal(500, f"the gateway failed: {type(error).__name__}: {error}", "its log says where")
        await say(send, reply)

    async def answer(self, method: str, path: str, asked: Asked) -> Reply:
        """Raises FleetError, UnknownError for what is not served."""
        match method, path.split("/")[1:]:
            case "POST", ["v1", name] if name in self._inbox_calls:
                return await self._inbox_call(name, asked)
            case _, ["v1", "functions", *rest]:
                return await self._functions(method, rest, asked)
            case _, ["v1", "dlq", *rest]:
                return await self._dead_letters(method, rest, asked)
            case "GET", ["v1", "gateway"]:
                return as_json(self._gateway.status())
            case "GET", ["metrics"]:
                return Reply(self._gateway.metrics(), _TEXT)
            case "GET", ["healthz"]:
                return Reply(b'{"status":"ok"}')
        raise unknown(method, path)

    def check(self, said: Any, peer: str) -> None:
        """Whether `peer` may say that in an inbox call. Raises ForbiddenError."""

    async def _inbox_call(self, name: str, asked: Asked) -> Reply:
        decoder, call = self._inbox_calls[name]
        said = read(decoder.decode, asked.body)
        self.check(said, asked.peer)
        answer = await call(said)
        return NOTHING if answer is None else Reply(_pack(answer), MSGPACK)

    async def _passed(self, said: Passed) -> None:
        await self._gateway.queue.passed(said.function, said.trigger, said.stream, said.offsets)

    async def _functions(self, method: str, rest: Sequence[str], asked: Asked) -> Reply:
        match method, rest:
            case "PUT", []:
                await self._gateway.replace(read(registry.decode, asked.body, list[GatewayFunction]))
            case "PUT", [name]:
                function = read(registry.decode, asked.body, GatewayFunction)
                if function.name != name:
                    raise UsageError(f"the body is function {function.name!r}, the path says {name!r}")
                await self._gateway.put(function)
            case "DELETE", [name]:
                rows = _one(asked, "rows") or "keep"
                if rows not in {"keep", "drop"}:
                    raise UsageError(f"rows={rows!r} is neither keep nor drop")
                await self._gateway.delete(name, drop=rows == "drop")
            case "GET", [name, "paused"]:
                function = self._gateway.functions.get(name)
                return as_json(Triggers(triggers=function.paused if function is not None else ()))
            case "POST", [name, "fire"]:
                request = read(msgspec.json.decode, asked.body, FireRequest)
                return as_json(await self._gateway.fire(name, request))
            case _:
                raise unknown(method, "/".join(["/v1/functions", *rest]))
        return NOTHING

    async def _dead_letters(self, method: str, rest: Sequence[str], asked: Asked) -> Reply:
        match method, rest:
            case "GET", []:
                after, limit = _whole(asked, "after"), _whole(asked, "limit")
                found = await self._gateway.queue.dead(
                    _which(asked), after=after, limit=PAGE if limit is None else min(max(limit, 1), PAGE_LIMIT)
                )
                return _page(found)
            case "GET", [sequence] if sequence.isascii() and sequence.isdigit():
                row = await self._gateway.queue.get(min(int(sequence), 2**63 - 1))
                if row is None:
                    raise UnknownError(f"there is no row {sequence}", hint="it may be done or discarded by now")
                return as_json(row)
            case "POST", ["redrive"]:
                asked_for = read(msgspec.json.decode, asked.body, Redrive)
                return as_json({"redriven": await self._gateway.redriving.redrive(asked_for)})
            case "POST", ["discard"]:
                which = read(msgspec.json.decode, asked.body, Which)
                return as_json({"discarded": await self._gateway.queue.discard(which)})
        raise unknown(method, "/".join(["/v1/dlq", *rest]))


async def say(send: Send, reply: Reply) -> None:
    """The whole answer of an ASGI application."""
    headers = []
    if reply.body:  # all but 204 have one
        headers = [(b"content-length", str(len(reply.body)).encode()), (b"content-type", reply.kind.encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


class _Gone(Exception):  # noqa: N818 - nobody is left to be told
    """The caller left before its request was whole."""


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            raise TooLargeError(f"the body is larger than {BODY_LIMIT // 1024 // 1024} MiB", hint="send it in parts")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def read(decode: Callable[..., Any], body: bytes, kind: Any = None) -> Any:
    try:
        return decode(body) if kind is None else decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body cannot be read: {error}") from error


def _which(asked: Asked) -> Which:
    before = _one(asked, "before")
    return Which(
        function=_one(asked, "function"),
        trigger=_one(asked, "trigger"),
        key=_one(asked, "key"),
        reason=_one(asked, "reason"),
        before=None if before is None else _number(before),
    )


def _one(asked: Asked, name: str) -> str | None:
    """The last one where it is given; an empty one is none."""
    return asked.query.get(name, [""])[-1] or None


def _whole(asked: Asked, name: str) -> int | None:
    text = _one(asked, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):  # noqa: PLR2004 - fits SQLite's integers
        raise UsageError(f"{name}={text!r} is no whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"before={text!r} is no time in Unix seconds")
    return number


def as_json(value: Any) -> Reply:
    return Reply(registry.encode(value))


def _page(found: Rows) -> Reply:
    return as_json({"rows": found.rows, "after": found.after})


def unknown(method: str, path: str) -> UnknownError:
    return UnknownError(f"{method} {path} is not served here")


def refused(error: FleetError) -> Reply:
    return _refusal(_status(error), error.message, error.hint)


def _status(error: FleetError) -> int:
    match error:
        case UnknownError():
            return 404
        case ForbiddenError():
            return 403
        case TooLargeError():
            return 413
        case FullError():
            return 507
        case StoreError() | AwayError():
            return 503
        case _:
            return 400


def _refusal(status: int, message: str, hint: str = "") -> Reply:
    return as_json(Refusal(message, hint))._replace(status=status)
