"""A Dapr sidecar in the test's own process: its state API as redis, postgresql and sqlite have it, and what goes wrong.

What each answers was taken from sidecars of Dapr 1.14 (tests/contract/test_store.py runs over those, too).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

KINDS = ("redis", "postgresql", "sqlite")

Failure = Callable[[str, str, bytes], str | None]
"""Given method, path and body: None, `before` (the connection breaks, nothing was done), `after` (it was done, and the
connection breaks), or the message of a 500.
"""


class Stored(NamedTuple):
    value: Any
    etag: str


@dataclass
class FakeDaprd:
    """Components are named like their kind. `token`: what callers must present."""

    url: str = ""
    token: str = ""
    ready: bool = True
    largest: int = 4 * 1024 * 1024
    capabilities: tuple[str, ...] = ("ETAG", "TRANSACTIONAL", "TTL")
    forgets: Callable[[str], bool] = lambda _key: False
    """Keys that a bulk read leaves out, as postgresql's does when its connection breaks meanwhile."""
    fails: Failure = lambda _method, _path, _body: None
    stores: dict[str, dict[str, Stored]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    asked: list[tuple[str, str]] = field(default_factory=list)

    def puts(self, store: str, key: str, value: object, etag: str | None) -> tuple[int, str]:
        """One first-write. 204, or what the component says."""
        records = self.stores[store]
        there = records.get(key)
        if etag is None and there is not None:
            if store == "sqlite":
                return 409, "possible etag mismatch. error from state store"
            return 500, f"failed to set key {key}" if store == "redis" else "no item was updated"
        if etag is not None and there is None and store != "redis":  # which makes it anew
            return 409, "possible etag mismatch. error from state store"
        if etag is not None and there is not None and there.etag != etag:
            return 409, "possible etag mismatch. error from state store"
        new = str(int(there.etag) + 1 if there is not None else 1) if store == "redis" else str(uuid.uuid4())
        records[key] = Stored(value, new)
        return 204, ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:  # noqa: PLR0911 - one per call
        path = path.partition("?")[0]
        if path == "/v1.0/healthz/outbound":
            return (204, None) if self.ready else (500, said("ERR_OUTBOUND_HEALTH_NOT_READY", "dapr is not ready"))
        if path == "/v1.0/metadata":
            components = [{"name": kind, "type": f"state.{kind}", "capabilities": self.capabilities} for kind in KINDS]
            return 200, {"id": "fake", "components": components}
        _, _, rest = path.partition("/v1.0/state/")
        store, _, of = rest.partition("/")
        if store not in self.stores:
            return 400, said("ERR_STATE_STORE_NOT_FOUND", f"state store {store} is not found")
        if len(body) > self.largest:
            return 400, "error reading request body: stream too large"
        records = self.stores[store]
        if method == "DELETE":
            records.pop(unquote(of), None)
            return 204, None
        if method == "GET":
            one = records.get(unquote(of))
            return (204, None) if one is None else (200, one.value)
        asked = json.loads(body)
        if of == "bulk":
            found = [(key, None if self.forgets(key) else records.get(key)) for key in asked["keys"]]
            return 200, [
                {"key": key} | ({"data": one.value, "etag": one.etag} if one is not None else {}) for key, one in found
            ]
        results = [self.puts(store, each["key"], each["value"], each.get("etag")) for each in asked]
        wrong = [result for result in results if result[0] != 204]
        if not wrong:
            return 204, None
        status = 500 if any(status == 500 for status, _ in wrong) else 409
        return status, said("ERR_STATE_SAVE", f"failed saving state in state store {store}: {wrong[0][1]}")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._serve_one(reader, writer):
                pass
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append((method, path))
        failure = self.fails(method, path, body)
        if failure == "before":
            return False
        if self.token and headers.get("dapr-api-token") != self.token:
            status, reply = 401, "invalid api token"
        elif failure is not None and failure != "after":
            status, reply = 500, said("ERR_STATE_SAVE", failure)
        else:
            status, reply = self.answer(method, path, body)
        if failure == "after":
            return False
        content = b"" if reply is None else reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
        head = f"HTTP/1.1 {status} X\r\n"
        if len(content) > 2048:  # as Go's server does
            head += "Transfer-Encoding: chunked\r\n\r\n"
            content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        else:
            head += f"Content-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        return True


def said(code: str, message: str) -> dict[str, str]:
    return {"errorCode": code, "message": message}


@contextlib.asynccontextmanager
async def running(**fields: Any) -> AsyncIterator[FakeDaprd]:
    fake = FakeDaprd(**fields)
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving[asyncio.create_task(fake.serve(reader, writer))] = writer

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()
        await asyncio.sleep(0.01)  # who has just connected is served
        for task, writer in serving.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*serving, return_exceptions=True)
