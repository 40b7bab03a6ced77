"""Many HTTP clients at once for tests, on plain sockets, and what a process holds meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections import Counter

import psutil

Ended = Counter[int | str]
"""How many requests ended with which status; "lost": without one."""


def request(path: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def allow_descriptors(count: int) -> bool:
    """Whether this process may open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        return False
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return True


async def storm(port: int, raw: bytes, count: int, *, limit: float = 60.0) -> Ended:
    """`count` connections, all open before the first of them asks; each asks once. `limit`: seconds for all."""
    ended: Ended = Counter()
    async with asyncio.timeout(limit):
        opened = await asyncio.gather(*(_open(port) for _ in range(count)))
        for _, writer in opened:
            writer.write(raw)
        await asyncio.gather(*(_answer(reader, ended) for reader, _ in opened))
    for _, writer in opened:
        writer.close()
    return ended


async def ask(port: int, raw: bytes, *, limit: float = 60.0) -> int | str:
    """The status of one request."""
    ended: Ended = Counter()
    async with asyncio.timeout(limit):
        reader, writer = await _open(port)
        writer.write(raw)
        await _answer(reader, ended)
    writer.close()
    return next(iter(ended))


async def _open(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        with contextlib.suppress(TimeoutError, ConnectionError):
            return await asyncio.open_connection("127.0.0.1", port)


async def _answer(reader: asyncio.StreamReader, ended: Ended) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        ended["lost"] += 1
    else:
        ended[int(head.split(b" ", 2)[1])] += 1


class Watched:
    """What a process holds at most, compared with the beginning."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self.now()
        self.most = 0
        """Megabytes more than at the beginning, as far as was looked."""

    def now(self) -> float:
        """Megabytes in memory."""
        return self._process.memory_info().rss / 1e6

    def look(self) -> float:
        """Megabytes more than at the beginning."""
        grown = self.now() - self._before
        self.most = max(self.most, int(grown))
        return grown

    @property
    def descriptors(self) -> int:
        return self._process.num_fds()

    def processor(self) -> float:
        """Seconds of processor time, so far."""
        times = self._process.cpu_times()
        return times.user + times.system
