"""For tests of HTTP: triggers, a road that answers as told, and a client that shows every byte it gets."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence

from fleetfn.http import Response
from fleetfn.invocation import Done, Outcome
from fleetfn_runtime import http_listener
from fleetfn_runtime.http_server import HttpSource, HttpTrigger
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.http import KIND, Http
from fleetfn_triggers.trigger import Reading


def trigger(path: str, *, methods: tuple[str, ...] = ("POST",), max_body: int = 1024 * 1024, key: str | None = None):
    spec = Http(path=path, methods=methods, max_body=max_body)
    reader = KIND.reader(spec, Reading(trigger=path, function="f", key=key))
    return HttpTrigger(path, spec, reader)


def echo(delivery: Delivery) -> Outcome:
    request = delivery.request
    return Done(Response(200, request.body or request.path.encode(), {"content-type": "text/plain"}))


class FakeRoad:
    """Settles what it took by `outcome`, a turn of the loop later, or when told so while `holds`."""

    def __init__(self, outcome: Callable[[Delivery], Outcome] = echo) -> None:
        self.outcome = outcome
        self.taken: list[Delivery] = []
        self.holds = False
        self._held: list[Delivery] = []
        self._loop = asyncio.get_running_loop()

    def take(self, deliveries: Sequence[Delivery]) -> None:
        self.taken.extend(deliveries)
        for delivery in deliveries:
            if self.holds:
                self._held.append(delivery)
            else:
                self._loop.call_soon(self._settle, delivery)

    def release(self) -> None:
        self.holds = False
        held, self._held = self._held, []
        for delivery in held:
            self._settle(delivery)

    def _settle(self, delivery: Delivery) -> None:
        delivery.invocation = "i-1"
        delivery.source.settle(delivery, self.outcome(delivery))


class ListeningSource(HttpSource):
    """With a port of its own, whose connections it adopts."""

    def listen(self) -> tuple[str, int]:
        sock = http_listener.tcp("127.0.0.1", 0)
        self._listener = http_listener.Listener(sock, lambda each: self.adopt(each.detach(), b""))
        self.address: tuple[str, int] = sock.getsockname()
        return self.address

    async def drain(self) -> None:
        self._listener.close()
        await super().drain()

    def close(self) -> None:
        self._listener.close()
        super().close()


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Client:
    """One connection. `raw` bytes out, whole answers in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: tuple[str, int] | str) -> "Client":
        if isinstance(address, str):
            return cls(*await asyncio.open_unix_connection(address))
        return cls(*await asyncio.open_connection(*address))

    @classmethod
    async def on(cls, sock: socket.socket) -> "Client":
        return cls(*await asyncio.open_connection(sock=sock))

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def answer(self, *, bodiless: bool = False) -> Answer:
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            length = 0 if bodiless else int(headers.get("content-length", 0))
            return Answer(int(first.split(" ")[1]), headers, await self.reader.readexactly(length))

    async def ask(self, raw: bytes) -> Answer:
        self.send(raw)
        return await self.answer()

    async def ended(self) -> bool:
        """The other side closed, having sent nothing more."""
        async with asyncio.timeout(30):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def request(path: str = "/x", body: bytes = b"", *, method: str = "POST", headers: str = "") -> bytes:
    length = f"content-length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{length}{headers}\r\n".encode() + body


async def until(condition: Callable[[], object], limit: float = 30.0) -> None:
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def descriptors() -> int:
    """Open in this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one system call less than iterdir
