"""A client for HTTP/1.1 with one other process of ours: keeps connections, streams answers. How a connection is made is
for the kinds of client (unix_http, tls_http); servers there are ours, so nothing but content-length and chunked bodies
has to be understood.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from fleetfn.errors import FleetError

HEAD_LIMIT = 64 * 1024
"""Bytes of an answer's head."""

IDLE = 30.0
"""Seconds that a connection is kept without a request: servers keep theirs longer, so that none ends as it is used."""


class UnreachableError(FleetError):
    """Nobody answers there, or the answer ended early. What was asked may have been done or not."""


class NotAskedError(UnreachableError):
    """No connection came about, so nothing was asked."""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    chunks: AsyncIterator[bytes]
    """Chunks as they were sent, each once it is whole; raises UnreachableError where they end early."""


class Streams(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def end(self) -> None:
        """At once: there is nothing left to say, and over TLS the other side would be waited for."""
        self.writer.transport.abort()


class _Kept(NamedTuple):
    connection: Streams
    since: float


class HttpClient(abc.ABC):
    """Use on one loop. Several requests at once have a connection each. `place`: who is asked, for people; `keeps`:
    connections kept for the next request, at most.
    """

    def __init__(self, place: str, *, keeps: int) -> None:
        self.place = place
        self._keeps = keeps
        self._idle: list[_Kept] = []
        self._closings = 0

    @abc.abstractmethod
    async def connect(self) -> Streams:
        """A connection, with heads limited to HEAD_LIMIT. Raises UnreachableError."""

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        limit: float | None = None,
    ) -> Reply:
        """`limit`: seconds for the whole. Raises UnreachableError."""
        try:
            async with asyncio.timeout(limit), self.stream(method, path, body, content_type=content_type) as answer:
                return Reply(answer.status, answer.headers, b"".join([chunk async for chunk in answer.chunks]))
        except TimeoutError:
            raise UnreachableError(f"{self.place} did not answer {method} {path} within {limit:g} s") from None

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, path: str, body: bytes = b"", *, content_type: str = "application/json"
    ) -> AsyncIterator[Answer]:
        """The answer from its head on. Leaving before its end closes the connection. Raises UnreachableError."""
        closings = self._closings
        connection, status, headers = await self._ask(method, path, body, content_type)
        whole = False

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal whole
            with self._errors():
                async for chunk in _chunks(connection.reader, status, headers):
                    yield chunk
            whole = True

        try:
            yield Answer(status, headers, chunks())
        finally:
            keeps = whole and headers.get("connection", "").lower() != "close" and closings == self._closings
            if keeps and len(self._idle) < self._keeps:
                self._keep(connection)
            else:
                connection.end()

    async def close(self) -> None:
        """Keep no connection, nor those whose answers are under way. A later request opens another one."""
        self._closings += 1
        for connection, _ in self._idle:
            connection.end()
        self._idle.clear()

    async def _ask(self, method: str, path: str, body: bytes, content_type: str) -> tuple[Streams, int, dict[str, str]]:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: fleetfn\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode("latin-1")
        connection = self._kept() or await self._opened()
        try:
            with self._errors():
                connection.writer.write(head + body)
                await connection.writer.drain()
                status, headers = parsed_head(await connection.reader.readuntil(b"\r\n\r\n"))
        except BaseException:  # not asked again: who ended the connection may have done it
            connection.end()
            raise
        return connection, status, headers

    async def _opened(self) -> Streams:
        try:
            return await self.connect()
        except UnreachableError as error:
            raise NotAskedError(error.message, hint=error.hint) from error

    def _keep(self, connection: Streams) -> None:
        now = time.monotonic()
        self._idle.append(_Kept(connection, now))
        while self._idle[0].since < now - IDLE:
            self._idle.pop(0).connection.end()

    def _kept(self) -> Streams | None:
        """The one that was used last."""
        oldest = time.monotonic() - IDLE
        while self._idle:
            connection, since = self._idle.pop()
            if since > oldest and not (connection.reader.at_eof() or connection.writer.is_closing()):
                return connection
            connection.end()
        return None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise UnreachableError(f"the answer of {self.place} ended early: {error}") from error


def parsed_head(text: bytes) -> tuple[int, dict[str, str]]:
    """Status, and headers by their names in lower case. Raises ValueError, IndexError."""
    first, *lines = text.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(first.split(" ", 2)[1]), headers


async def _chunks(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    elif status not in (204, 304):
        yield await reader.readexactly(int(headers.get("content-length", "0")))
