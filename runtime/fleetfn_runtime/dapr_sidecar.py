"""A client of the Dapr sidecar's HTTP API: keeps connections, waits until the sidecar is ready.

Dapr's own SDK takes 160 ms to import and holds up the loop while it waits for the sidecar.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import parsed_head

PORT = "DAPR_HTTP_PORT"
"""Environment variable that Dapr sets for the applications beside its sidecars."""

TOKEN = "DAPR_API_TOKEN"  # noqa: S105 - a name
"""Likewise: what a caller has to present, if anything."""

LIMIT = 15.0
"""Seconds for an answer. A save takes milliseconds; a store that fails over, a few seconds."""

CONNECT = 5.0
"""Seconds for a connection; the sidecar is in the same pod."""

READY = 60.0
"""Seconds until a sidecar that starts has loaded its components."""

AT_ONCE = 8
"""Requests under way. More find the sidecar's own connections to the store taken (redis: 10 per core)."""

_PAUSE = (0.02, 0.5)
"""First and longest seconds between looks at a sidecar that is not ready."""

_HEAD = 64 * 1024
"""Bytes of an answer's head, and of the lines of chunks."""

_OK, _FAILED, _TOO_LARGE = 200, 300, 413


class SidecarError(FleetError):
    """Nobody answers, or the answer ended early. What was asked may have been done or not."""


class Complaint(NamedTuple):
    """What an answer above 299 says."""

    code: str
    """Dapr's word for it, `ERR_STATE_SAVE`; empty where it has none."""
    text: str


class Reply(NamedTuple):
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return _OK <= self.status < _FAILED

    @property
    def too_large(self) -> bool:
        return self.status == _TOO_LARGE or (not self.ok and b"too large" in self.body)  # 1.14 says it with 400

    @property
    def complaint(self) -> Complaint:
        try:
            said = msgspec.json.decode(self.body, type=_Said)
        except msgspec.MsgspecError:
            said = _Said(message=" ".join(self.body.decode("utf-8", "replace").split())[:300])
        return Complaint(said.errorCode, said.message or f"status {self.status}")


class _Said(msgspec.Struct):
    errorCode: str = ""  # noqa: N815 - Dapr's
    message: str = ""


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Sidecar:
    """Used on one loop; connects when it is first asked. `url`: http://host:port."""

    def __init__(self, url: str, *, token: str = "", at_once: int = AT_ONCE, limit: float = LIMIT) -> None:
        parts = urlsplit(url)
        self.address = parts.netloc
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._limit = limit
        self._room = asyncio.Semaphore(at_once)
        self._idle: list[_Connection] = []
        self._head = f"host: {self.address}\r\n" + (f"dapr-api-token: {token}\r\n" if token else "")

    async def ready(self, seconds: float = READY) -> None:
        """Wait until components are loaded; not for us, who are not ready before. Raises SidecarError."""
        until = time.monotonic() + seconds
        pause, longest = _PAUSE
        while True:
            try:
                reply = await self.ask("GET", "/v1.0/healthz/outbound")
                if reply.ok:
                    return
                why = f"it says {reply.complaint.text}"
            except SidecarError as error:
                why = error.message
            if time.monotonic() > until:
                raise SidecarError(
                    f"the Dapr sidecar at {self.address} is not ready after {seconds:g} s: {why}",
                    hint="its log says which component it cannot load, or why it does not run",
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: Iterable[tuple[str, str]] = (),
        limit: float | None = None,
    ) -> Reply:
        """`path`: percent-encoded. Asked twice at most: an idle connection may have been closed meanwhile. Raises
        SidecarError.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = (
            f"{method} {path} HTTP/1.1\r\n{self._head}{lines}"
            f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode("latin-1")
        seconds = self._limit if limit is None else limit
        async with self._room:
            try:
                async with asyncio.timeout(seconds):
                    return await self._ask(head, body)
            except TimeoutError:
                raise SidecarError(
                    f"the Dapr sidecar at {self.address} did not answer {method} {path} within {seconds:g} s"
                ) from None

    async def close(self) -> None:
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()
        await asyncio.sleep(0)  # closed by the loop's next turn

    async def _ask(self, head: bytes, body: bytes) -> Reply:
        kept = self._kept()
        if kept is not None:
            with contextlib.suppress(SidecarError):
                return await self._on(kept, head, body)
        return await self._on(await self._connect(), head, body)

    async def _on(self, connection: _Connection, head: bytes, body: bytes) -> Reply:
        reader, writer = connection
        whole = False
        try:
            writer.write(head + body)
            status, said = parsed_head(await reader.readuntil(b"\r\n\r\n"))
            reply = Reply(status, await _body(reader, status, said))
            whole = said.get("connection", "").lower() != "close"
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
            raise SidecarError(f"the Dapr sidecar at {self.address} broke off its answer: {error}") from error
        finally:
            if whole:
                self._idle.append(connection)
            else:
                writer.close()
        return reply

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not (connection.reader.at_eof() or connection.writer.is_closing()):
                return connection
            connection.writer.close()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT):
                return _Connection(*await asyncio.open_connection(self._host, self._port, limit=_HEAD))
        except TimeoutError:
            raise SidecarError(f"no connection to the Dapr sidecar at {self.address} within {CONNECT:g} s") from None
        except OSError as error:
            raise SidecarError(
                f"no Dapr sidecar answers at {self.address}: {error.strerror or error}",
                hint=f"it runs beside the worker and listens on {PORT}",
            ) from error


def from_environment(environ: Mapping[str, str]) -> tuple[str, str]:
    """Url and token of the sidecar beside this process; url '': none is named."""
    port = environ.get(PORT, "")
    return f"http://127.0.0.1:{port}" if port else "", environ.get(TOKEN, "")


async def _body(reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        chunks = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return b"".join(chunks)
    if status in (204, 304):
        return b""
    return await reader.readexactly(int(headers.get("content-length", "0")))
