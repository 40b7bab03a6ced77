"""A worker's delivery socket, as a gateway sees it: takes pushes, runs each row by `handle`, tells as rows end.

Rows of one key run one after the other; when one of them is not done, those behind it are given back. `handle(row)`
returns what is told of it: a Told, or None for a row of which nothing is ever told, nor of those behind it. Instead of
serving pushes it may answer `instead`, a whole HTTP answer.
"""

import asyncio
import itertools
from pathlib import Path

import msgspec
from fleetfn_triggers.push import OUTCOME, Pushed, Told


def done(row):
    return Told(row.sequence, "done")


async def at_once(row):
    return done(row)


async def never(row):
    await asyncio.Event().wait()


LET_IN = 3
"""Turns of the loop: asyncio's own task of a connection, its protocol, and the task that serves it."""


class PushWorker:
    def __init__(self, path, handle=at_once):
        self.path = str(path)
        self.handle = handle
        self.instead = None
        self.pushes = []
        """Rows of each push, as they came."""
        self.open = 0
        """Pushes that are not answered to their end."""
        self._server = None
        self._tasks = set()

    @property
    def rows(self):
        return [row for push in self.pushes for row in push]

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._accepted, self.path, limit=2**20)
        return self

    async def __aexit__(self, *_):
        await self.vanish()

    async def vanish(self):
        """As a process that is killed: no more connections, and those there are end."""
        await self._let_in()
        self._stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _let_in(self):
        """Whoever was accepted just now: asyncio never closes what it accepted for a server that is closed before it
        goes on.
        """
        for each in self._server.sockets:
            asyncio.get_running_loop().remove_reader(each.fileno())
        for _ in range(LET_IN):
            await asyncio.sleep(0)

    def _stop_listening(self):
        self._server.close()
        Path(self.path).unlink(missing_ok=True)

    async def _accepted(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the server's own task: it ends here
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        pushed = msgspec.msgpack.decode(await reader.readexactly(size), type=list[Pushed])
        self.pushes.append(pushed)
        if self.instead is not None:
            writer.write(self.instead)
            await writer.drain()
            return b"content-length" in self.instead
        self.open += 1
        try:
            await self._tell(pushed, writer)
        finally:
            self.open -= 1
        return True

    async def _tell(self, pushed, writer):
        writer.write(f"HTTP/1.1 200 OK\r\n{OUTCOME}: {len(pushed)}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        async with asyncio.TaskGroup() as group:
            for lane in lanes(pushed):
                group.create_task(self._run_lane(lane, writer))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _run_lane(self, lane, writer):
        while lane:
            row = lane.pop(0)
            told = await self.handle(row)
            if told is None:
                return
            all_told = [told]
            if told.outcome != "done":
                all_told += [Told(each.sequence, "behind") for each in lane]
                lane.clear()
            body = msgspec.msgpack.encode(all_told)
            writer.write(b"%x\r\n%b\r\n" % (len(body), body))
            await writer.drain()


def lanes(pushed):
    keyed = itertools.groupby(pushed, key=lambda row: (row.trigger, row.key or row.sequence))
    return [list(rows) for _, rows in keyed]
