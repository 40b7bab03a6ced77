"""A request's body as it arrives: of a known length, or chunked. Both tell where it ends, and hold to a limit."""

from __future__ import annotations

import re
from typing import Protocol

from fleetfn_runtime.http_head import Head, HeadError

_LINE_LIMIT = 256
"""Bytes of a chunk's size with its extensions, and of one trailer line."""

_TRAILERS_LIMIT = 16
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Body(Protocol):
    def feed(self, data: bytes) -> bytes | None:
        """What comes after the body; None while it is not all there. Raises HeadError."""
        ...

    def whole(self) -> bytes: ...


def of(head: Head, limit: int) -> Body:
    """The body that follows `head`; a longer one than `limit` bytes raises HeadError as soon as that is known."""
    return Chunked(limit) if head.chunked else Sized(head.length, limit)


class Sized:
    """A body of `length` bytes."""

    __slots__ = ("_missing", "_parts")

    def __init__(self, length: int, limit: int) -> None:
        if length > limit:
            raise _too_large(limit)
        self._missing = length
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bytes | None:
        missing = self._missing
        if len(data) < missing:
            self._parts.append(data)
            self._missing = missing - len(data)
            return None
        self._parts.append(data[:missing])
        return data[missing:]

    def whole(self) -> bytes:
        return b"".join(self._parts)


class Chunked:
    """A body in chunks. Extensions and trailers are read over."""

    __slots__ = ("_at", "_body", "_ended", "_held", "_limit", "_missing", "_step", "_trailers")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._body = bytearray()
        self._held = b""
        self._at = 0
        """Where in `_held` reading goes on."""
        self._missing = 0
        self._trailers = 0
        self._ended = False
        self._step = self._read_size

    def feed(self, data: bytes) -> bytes | None:
        self._held = self._held[self._at :] + data
        self._at = 0
        while self._step():
            if self._ended:
                return self._held[self._at :]
        return None

    def whole(self) -> bytes:
        return bytes(self._body)

    def _line(self) -> bytes | None:
        end = self._held.find(b"\r\n", self._at)
        if (len(self._held) if end < 0 else end) - self._at > _LINE_LIMIT:
            raise HeadError(400, f"a line between chunks is longer than {_LINE_LIMIT} bytes")
        if end < 0:
            return None
        line = self._held[self._at : end]
        self._at = end + 2
        return line

    def _read_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        match = _SIZE.fullmatch(line)
        if match is None:
            raise HeadError(400, f"{line[:40]!r} is no size of a chunk")
        self._missing = int(match[1], 16)
        if len(self._body) + self._missing > self._limit:
            raise _too_large(self._limit)
        self._step = self._read_data if self._missing else self._read_trailer
        return True

    def _read_data(self) -> bool:
        data = self._held[self._at : self._at + self._missing]
        self._body += data
        self._at += len(data)
        self._missing -= len(data)
        if self._missing:
            return False
        self._step = self._read_end
        return True

    def _read_end(self) -> bool:
        end = self._held[self._at : self._at + 2]
        if end != b"\r\n"[: len(end)]:
            raise HeadError(400, "a chunk is longer than its size says")
        if len(end) < len(b"\r\n"):
            return False
        self._at += 2
        self._step = self._read_size
        return True

    def _read_trailer(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self._trailers += 1
        self._ended = not line
        if line and (self._trailers > _TRAILERS_LIMIT or not _TRAILER.fullmatch(line)):
            raise HeadError(400, "what follows the last chunk is no trailer")
        return True


def _too_large(limit: int) -> HeadError:
    return HeadError(413, f"the body is longer than {limit} bytes", "send less, or raise max_body of the trigger")
