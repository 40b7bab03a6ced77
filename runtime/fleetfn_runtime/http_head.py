"""The head of an HTTP/1 request: found in bytes, and read strictly.

Node and worker read heads by this one parser, so that both see the same request; and it says at which byte a request
ends, so that a connection can change hands between two requests.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

HEAD_LIMIT = 64 * 1024
"""Bytes of the longest head that is taken; a longer one gets 431. It must fit into one packet of the channel."""

HEADERS_LIMIT = 256
"""Header lines of one head."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)")
_PATH = re.compile(r"(/[\x21\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21\x22\x24-\x7e]*))?")
_URL = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+([^#]*)")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN = bytes([9, 10, 13, *range(32, 127), *range(128, 256)])
_ONCE = frozenset({"host", "content-length", "content-type", "authorization"})
_COMMON = (
    "Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Length Content-Type Cookie "
    "Date Expect Host Idempotency-Key Retry-After Transfer-Encoding User-Agent X-Forwarded-For X-Request-Id "
    "ce-specversion ce-id ce-source ce-type ce-subject ce-time ce-dataschema ce-partitionkey fn-invocation"
)
_NAMES = {spelling: name.lower() for name in _COMMON.split() for spelling in (name, name.lower(), name.title())}
"""Spellings met -> names in lower case."""

_NAMES_KEPT = 1024
_DIGITS = 18
"""Of a Content-Length."""

_TARGET_KEPT = 256
"""Characters of a request line that is remembered."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HeadError(Exception):
    """A request that cannot be served: the status it gets, and why."""

    def __init__(self, status: int, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.hint = hint


class Head:
    """One request's head. Header names are lower-case; repeated headers are joined by ", "."""

    __slots__ = (
        "chunked",
        "expects",
        "headers",
        "http11",
        "keep_alive",
        "length",
        "method",
        "query",
        "raw_path",
        "size",
    )

    def __init__(self, method: str, raw_path: str, query: str, *, http11: bool) -> None:
        self.method = method
        self.raw_path = raw_path
        """As it was sent: percent-encoded, without the query."""
        self.query = query
        self.http11 = http11
        self.headers: dict[str, str] = {}
        self.size = 0
        """Bytes, the empty line included."""
        self.length = 0
        """Of the body, where it is not chunked."""
        self.chunked = False
        self.keep_alive = http11
        self.expects = False
        """The client waits for `100 Continue` before it sends the body."""


def read(received: bytes) -> Head | None:
    """The head that `received` begins with; None: it is not all there yet. Raises HeadError.

    `received` begins at the request line: see `skipped`.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0 or end + 4 > HEAD_LIMIT:
        _check_begun(received, whole=end >= 0)
        return None
    head = received[:end]
    lines = head.decode("latin-1").split("\r\n")
    parsed = _plain(lines)
    if parsed is None:
        if not is_plain(head, len(lines) - 1):
            raise HeadError(400, "the head holds control characters, or a line that does not end with CR LF")
        parsed = _request_line(lines[0])
        parsed.headers = _headers(lines[1:])
    parsed.size = end + 4
    _framing(parsed)
    return parsed


def is_plain(lines: bytes, ends: int) -> bool:
    """No control characters but for tabs and `ends` times CR LF."""
    return not lines.translate(None, _PLAIN) and lines.count(b"\r") == lines.count(b"\n") == ends


def skipped(received: bytes) -> bytes:
    """Without the empty lines that some clients send after a body."""
    return received.lstrip(b"\r\n") if received[:1] in (b"\r", b"\n") else received


def segments(raw_path: str) -> tuple[str, ...]:
    """The path's parts between slashes, each percent-decoded once. Raises HeadError.

    Splitting goes before decoding, so `%2F` is part of a segment. Dot segments are refused: clients resolve them.
    """
    if not raw_path.startswith("/"):
        raise HeadError(404, f'"{raw_path[:80]}" is no path')
    parts = tuple(raw_path[1:].split("/"))
    if "%" in raw_path:
        parts = tuple(decoded(part) for part in parts)
    if "." in parts or ".." in parts:
        raise HeadError(400, "the path holds . or .. segments", "resolve them before sending")
    return parts


def decoded(text: str) -> str:
    if _PERCENT.search(text):
        raise HeadError(400, f'"{text[:80]}" holds a % without two hexadecimal digits', "send a % itself as %25")
    try:
        plain = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise HeadError(400, f'"{text[:80]}" is not percent-encoded UTF-8') from None
    if _CONTROL.search(plain):
        raise HeadError(400, f'"{text[:80]}" holds control characters')
    return plain


def header_name(name: str) -> str:
    """In lower case. Raises HeadError for what is none."""
    known = _NAMES.get(name)
    if known is not None:
        return known
    if not _TOKEN.fullmatch(name):
        raise HeadError(400, f'"{name[:80]}" is no name of a header')
    lower = name.lower()
    if len(_NAMES) < _NAMES_KEPT:
        _NAMES[name] = lower
    return lower


def _check_begun(received: bytes, *, whole: bool) -> None:
    """Refuse early what cannot become a head, so that nobody waits for it to time out."""
    if whole or len(received) >= HEAD_LIMIT:
        raise HeadError(431, f"the head is longer than {HEAD_LIMIT} bytes", "send less in headers and query")
    if received[:2] == b"\x16\x03":
        raise HeadError(400, "this port speaks plain HTTP, not TLS", "use http://")
    if received.count(b"\n") != received.count(b"\r\n"):
        raise HeadError(400, "a line of the head does not end with CR LF")


# Most heads are plain: printable, `METHOD /path HTTP/1.1`, names met before, none of them twice. They are read in half
# the time; what is not plain in any way is left to the exact way of reading, which also says what is wrong.


def _plain(lines: list[str]) -> Head | None:
    if len(lines) > HEADERS_LIMIT or not "".join(lines).isprintable():
        return None
    first, *rest = lines
    target = _target(first) if len(first) <= _TARGET_KEPT else None
    if target is None:
        return None
    try:
        headers = {_NAMES[name]: value.strip() for name, value in [line.split(":", 1) for line in rest]}
    except (KeyError, ValueError):
        return None
    if len(headers) != len(rest):
        return None
    head = Head(*target, http11=True)
    head.headers = headers
    return head


@lru_cache(maxsize=1024)
def _target(line: str) -> tuple[str, str, str] | None:
    """Method, path and query of a plain request line. Callers ask for the same few, over and over."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1" or parts[0] not in _METHODS:  # noqa: PLR2004 - those three
        return None
    target = parts[1]
    if target[:1] != "/" or "#" in target or not target.isascii():
        return None
    path, _, query = target.partition("?")
    return parts[0], path, query


def _request_line(line: str) -> Head:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HeadError(400, "the request line is not `METHOD target HTTP/1.1`")
    method, target, major, minor = match.groups()
    if major != "1":
        raise HeadError(505, f"HTTP/{major}.{minor} is not spoken here", "use HTTP/1.1")
    parts = _PATH.fullmatch(target)
    if parts is None:
        url = _URL.fullmatch(target)
        parts = _PATH.fullmatch(url[1] if url[1].startswith("/") else f"/{url[1]}") if url is not None else None
    if parts is None:
        raise HeadError(400, f'the target "{target[:80]}" is neither a path nor a URL')
    return Head(method, parts[1], parts[2] or "", http11=minor != "0")


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > HEADERS_LIMIT:
        raise HeadError(431, f"the head has more than {HEADERS_LIMIT} headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise HeadError(400, f'the header line "{line[:80]}" has no colon')
        known = header_name(name)
        value = value.strip(" \t")
        if known in headers:
            if known in _ONCE:
                raise HeadError(400, f'the header "{known}" stands twice')
            value = f"{headers[known]}{'; ' if known == 'cookie' else ', '}{value}"
        headers[known] = value
    return headers


def _framing(head: Head) -> None:
    """Where the body ends. Two answers to that in one request are how requests get smuggled: refused."""
    headers = head.headers
    if head.http11 and "host" not in headers:
        raise HeadError(400, "an HTTP/1.1 request needs a Host header")
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise HeadError(400, "Content-Length and Transfer-Encoding are both there", "send one of them")
        if coding.lower() != "chunked" or not head.http11:
            status = 501 if head.http11 else 400
            raise HeadError(status, f'the transfer coding "{coding[:80]}" is not taken', "send chunked, or a length")
        head.chunked = True
    elif length is not None:
        if not (length.isascii() and length.isdigit() and len(length) <= _DIGITS):
            raise HeadError(400, f'Content-Length "{length[:80]}" is no number')
        head.length = int(length)
    connection = headers.get("connection")
    if connection is not None:
        tokens = [token.strip().lower() for token in connection.split(",")]
        head.keep_alive = "close" not in tokens and (head.http11 or "keep-alive" in tokens)
    expect = headers.get("expect")
    if expect is not None and head.http11:
        if expect.lower() != "100-continue":
            raise HeadError(417, f'the expectation "{expect[:80]}" cannot be met')
        head.expects = True
