"""Open loops: events leave at the instants of a schedule, however long the ones before them take.

A sender that waited for answers would send less while the system stalls, and so leave out just those events that would
have waited (coordinated omission). What cannot leave at its instant, leaves late, and counts from its instant.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from confluent_kafka import KafkaError, Message, Producer
from mqtt_talk import Sender

LIMIT = 60.0
"""Seconds until all that was sent must have been taken."""

TICK = 0.001
"""Seconds: a loop that sleeps for less keeps a core busy by its waiting alone."""

REFUSED = (b"429", b"503")
"""Not now: it is sent again, and counts from its instant all the same."""

AGAIN = 0.05
"""Seconds until then."""

CONNECTIONS = 100
"""Of an HTTP sender: without a bound, each stall would open more, and measure that."""


class Open(Protocol):
    """`send` waits only where the protocol allows no more at once; `close` until all is taken. Raises RuntimeError."""

    async def send(self, key: str, payload: bytes) -> None: ...

    async def close(self) -> None: ...


async def pace(rate: float, count: int, send: Callable[[int, float], Awaitable[None]]) -> None:
    """`send(n, due)` at each due instant of the monotonic clock."""
    start = time.monotonic() + 0.05
    for number in range(count):
        due = start + number / rate
        while (left := due - time.monotonic()) > 0:  # noqa: ASYNC110 - it is time that is waited for
            await asyncio.sleep(max(left, TICK))
        await send(number, due)


class Mqtt:
    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.close = sender.close

    @classmethod
    async def open(cls, host: str) -> Mqtt:
        sender = Sender()
        await sender.open(host)
        return cls(sender)

    async def send(self, key: str, payload: bytes) -> None:
        await self._sender.send(f"bench/age/{key}", payload)


class Kafka:
    def __init__(self, brokers: str) -> None:
        # Each record leaves with the next turn of the client's thread: how long it gathers them is none of ours.
        self._producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0})
        self._failed: list[str] = []

    async def send(self, key: str, payload: bytes) -> None:
        self._producer.produce("bench-age", payload, key, on_delivery=self._delivered)
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(str(error))

    async def close(self) -> None:
        left = self._producer.flush(LIMIT)
        if left or self._failed:
            raise RuntimeError(f"{left} records were not taken: {self._failed[:1]}")


class Http:
    """Connections with one request at a time each. What finds none free, waits for one: `send` does not."""

    def __init__(self, port: int, headers: str = "") -> None:
        self._port = port
        self._headers = headers
        self._idle: list[_Client] = []
        self._waiting: deque[bytes] = deque()
        self._under_way = 0
        self._failed: list[bytes] = []
        self._answered = asyncio.Event()
        self._all: list[_Client] = []

    async def send(self, key: str, payload: bytes) -> None:
        head = (
            f"POST /age/{key} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{self._headers}"
            f"content-length: {len(payload)}\r\n\r\n"
        )
        request = head.encode() + payload
        self._under_way += 1
        if self._idle:
            self._idle.pop().ask(request)
        elif len(self._all) < CONNECTIONS:
            await self._connect(request)
        else:
            self._waiting.append(request)

    async def _connect(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _Client(self._done), "127.0.0.1", self._port)
        self._all.append(client)
        client.ask(request)

    def _done(self, client: _Client, status: bytes) -> None:
        self._under_way -= 1
        self._answered.set()
        if not status.startswith(b"2"):
            self._failed.append(status)
        elif self._waiting:
            client.ask(self._waiting.popleft())
        else:
            self._idle.append(client)

    async def close(self) -> None:
        async with asyncio.timeout(LIMIT):
            while self._under_way:
                self._answered.clear()
                await self._answered.wait()
        for client in self._all:
            client.close()
        if self._failed:
            raise RuntimeError(f"{len(self._failed)} requests failed, the first with {self._failed[0]!r}")


class _Client(asyncio.Protocol):
    """One connection. Replies are short and have a length."""

    def __init__(self, done: Callable[[_Client, bytes], None]) -> None:
        self._done = done
        self._text = b""
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> None:
        self._asked = True
        self._request = request
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._text += data
        head, ended, body = self._text.partition(b"\r\n\r\n")
        if not ended or len(body) < _length(head):
            return
        self._text = b""
        status = head.split(b" ", 2)[1]
        if status in REFUSED:
            asyncio.get_running_loop().call_later(AGAIN, self.ask, self._request)
            return
        self._asked = False
        self._done(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        if self._asked:
            self._done(self, f"a lost connection ({error})".encode())


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0
