"""What a caller is told while a function has no pod, in the words of a node's front door."""

from __future__ import annotations

import http
from typing import NamedTuple

import msgspec
from fleetfn_triggers import paths

from fleetfn_gateway.cluster.http_routes import Absent

PAUSED = 30
"""Seconds after which a caller of a paused trigger may ask again."""

SOON = 1
"""Seconds after which a caller may come again for whom there was no room, or no pod."""

HEALTH = f"{paths.RESERVED}healthz"


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def encoded(answer: Answer, *, bodiless: bool = False) -> bytes:
    """The connection ends with it. `bodiless`: to HEAD."""
    lines = [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [f"content-length: {len(answer.body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (b"" if bodiless else answer.body)


def problem(status: int, error: str, hint: str = "", *, again: int | None = None) -> Answer:
    body = {"error": error, "hint": hint} if hint else {"error": error}
    return Answer(status, msgspec.json.encode(body), () if again is None else (("retry-after", str(again)),))


def healthy() -> Answer:
    return Answer(200, b'{"status":"ok"}')


def absent(method: str, found: Absent) -> Answer:
    """404, or 405 where other methods are served at the path."""
    path = found.path[:200]
    if not found.allowed:
        hint = "a function is served at the path of its http trigger; is it deployed, and the path spelled so?"
        return problem(404, f"no function is served at {path}", hint)
    allowed = ", ".join(found.allowed)
    return problem(405, f"{path} does not take {method}", f"it takes {allowed}")._replace(headers=(("allow", allowed),))


def paused(function: str, trigger: str) -> Answer:
    return problem(503, f"trigger {trigger} of {function} is paused", "resume it", again=PAUSED)


def nobody(function: str, limit: float, why: str) -> Answer:
    """It has no pod after `limit` seconds."""
    return problem(504, f"no worker of {function} was ready within {limit:g} s", why, again=SOON)


def broken_off(function: str) -> Answer:
    """The pod had got something of the request by then."""
    error = f"the worker of {function} ended the connection before it had answered"
    return problem(502, error, "it may have run: send again what may be run twice")


def no_room(status: int, why: str) -> Answer:
    return problem(status, why, "send again later", again=SOON)


def unreadable(why: str) -> Answer:
    return problem(400, f"the request cannot be read: {why}")
