"""SqliteStores in a process of their own: pickled calls on stdin, pickled answers on stdout."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fleetfn.errors import StoreError
from fleetfn.store import Conflict, Loaded, Page, Saved, Write
from fleetfn_runtime.sqlite_store import SqliteStore


class StoreProcess:
    """One child process and the way to call the stores it opens."""

    def __init__(self) -> None:
        self._child = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, path: Path, now: float, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        pickle.dump((path, now, method, arguments, options), self._child.stdin)
        self._child.stdin.flush()
        answer = pickle.load(self._child.stdout)  # noqa: S301 - our own child
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        self._child.stdin.close()
        self._child.wait(60)
        self._child.stdout.close()


class SharedStore:
    """A Store whose calls go to two processes in turn, both with the same file."""

    def __init__(self, processes: Sequence[StoreProcess], path: Path, clock: Callable[[], float]) -> None:
        self._processes = processes
        self._turn = itertools.cycle(processes)
        self._path = path
        self._clock = clock

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        return await self._call("load", keys)

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        return await self._call("save", writes)

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return await self._call("keys", after=after, limit=limit)

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return await self._call("unsent", after=after, limit=limit)

    async def close(self) -> None:
        for process in self._processes:
            process.call(self._path, self._clock(), "close", (), {})

    async def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        process = next(self._turn)
        return process.call(self._path, self._clock(), method, arguments, options)


async def serve() -> None:
    clock = [0.0]
    stores: dict[Path, SqliteStore] = {}
    while True:
        try:
            path, clock[0], method, arguments, options = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent
        except EOFError:
            break
        if path not in stores:
            stores[path] = await SqliteStore.open(path, clock=lambda: clock[0])
        try:
            answer: Any = await getattr(stores[path], method)(*arguments, **options)
        except StoreError as error:
            answer = StoreError(error.message)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(serve())
