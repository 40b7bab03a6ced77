"""Replies: what an outcome means to an HTTP caller, and a reply's bytes.

Callers outside never see an exception's text or traceback; the function's log has them, under the invocation's id.
"""

from __future__ import annotations

import http
import math
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import cache, lru_cache

import msgspec
from fleetfn.http import Response
from fleetfn.invocation import Again, Done, Outcome, Rejected

from fleetfn_runtime import http_head
from fleetfn_runtime.http_head import Head
from fleetfn_runtime.routes import Absent

INVOCATION = "fn-invocation"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

LAST_CHUNK = b"0\r\n\r\n"

_NOTHING = Response(204)
_BODILESS = frozenset({204, 304})
_OURS = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"})
"""Headers that say how a message is carried: a handler's are left out, the server writes its own."""


def problem(
    status: int,
    error: str,
    hint: str = "",
    *,
    retry_after: float | None = None,
    headers: Mapping[str, str] = {},
) -> Response:
    """`{"error": ..., "hint": ...}`, in words for whoever called."""
    body = {"error": error, "hint": hint} if hint else {"error": error}
    later = {} if retry_after is None else {"retry-after": _whole_seconds(retry_after)}
    return _json(status, body, {**later, **headers})


def of_refusal(refused: http_head.HeadError) -> Response:
    return problem(refused.status, refused.reason, refused.hint)


def absent(head: Head, found: Absent) -> Response:
    """404, or 405 where other methods are served at the path."""
    path = head.raw_path[:200]
    if not found.allowed:
        hint = "a function is served at the path of its http trigger; is it deployed, and the path spelled so?"
        return problem(404, f"no function is served at {path}", hint)
    allowed = ", ".join(found.allowed)
    return problem(405, f"{path} does not take {head.method}", f"it takes {allowed}", headers={"allow": allowed})


def of_outcome(outcome: Outcome, invocation: str = "") -> Response:
    """The handler's reply, or 204; Retry: 503, Reject: 422, unreadable: 400, crash: 500, timeout: 504."""
    match outcome:
        case Done():
            return outcome.reply or _NOTHING
        case Rejected():
            return problem(outcome.status, outcome.reason or "the handler rejected it")
        case Again(timed_out=True):
            return _json(504, _with_id("the handler ran longer than its timeout", invocation), {})
        case Again(failure=None):
            error = outcome.reason if outcome.counted and outcome.reason else "not now, try again later"
            return problem(503, error, retry_after=outcome.after or 1.0)
        case _:
            return failed(invocation)


def failed(invocation: str = "") -> Response:
    return _json(500, _with_id("handler failed", invocation), {})


def encoded(
    response: Response, *, keep: bool, http11: bool = True, bodiless: bool = False, invocation: str = ""
) -> bytes:
    """A reply with its body as bytes. `bodiless`: to HEAD. Raises ValueError and TypeError for what no reply can be."""
    status = response.status
    body = b"" if response.body is None else response.body
    if not isinstance(body, bytes):
        raise TypeError(f"its body is {type(body).__name__}, not bytes")
    head = _first_lines(response)
    if invocation:
        head += f"{INVOCATION}: {invocation}\r\n"
    if status not in _BODILESS:
        head += f"content-length: {len(body)}\r\n"
    if not keep:
        head += "connection: close\r\n"
    elif not http11:
        head += "connection: keep-alive\r\n"
    raw = f"{head}\r\n".encode("latin-1")
    return raw if bodiless or status in _BODILESS else raw + body


def begun(response: Response) -> bytes:
    """The head of a reply whose body follows in chunks; its own body is left out. Raises ValueError."""
    return f"{_first_lines(response)}transfer-encoding: chunked\r\n\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _first_lines(response: Response) -> str:
    lines = _status_line(response.status) + _date(int(time.time()))
    for name, value in response.headers.items():
        lines += _line(name, value)
    return lines


def _json(status: int, body: object, headers: dict[str, str]) -> Response:
    return Response(status, msgspec.json.encode(body), {"content-type": "application/json", **headers})


def _with_id(error: str, invocation: str) -> dict[str, str]:
    return {"error": error, "invocation": invocation} if invocation else {"error": error}


def _whole_seconds(after: float) -> str:
    return str(max(1, math.ceil(after)))


@cache
def _status_line(status: int) -> str:
    if not 200 <= status <= 599:  # noqa: PLR2004 - 1xx are not final
        raise ValueError(f"{status} is no status of a reply: 200 to 599 are")
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n"


@lru_cache(maxsize=512)
def _line(name: str, value: str) -> str:
    """A header's line with its end; '' for one of ours. Few differ from reply to reply."""
    try:
        lower = http_head.header_name(name)
    except http_head.HeadError as error:
        raise ValueError(error.reason) from None
    line = f"{lower}: {value}"
    if not http_head.is_plain(line.encode("latin-1"), 0):
        raise ValueError(f"the header {lower} holds control characters")
    return "" if lower in _OURS else f"{line}\r\n"


class _Clock:
    second = -1
    line = ""


def _date(second: int) -> str:
    if second != _Clock.second:
        _Clock.second, _Clock.line = second, f"date: {formatdate(second, usegmt=True)}\r\n"
    return _Clock.line
