"""What an asynchronous iterator gives, for plain code that waits: on a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Telling(Generic[T]):
    """Implements Answers. Nothing is asked for before it is wanted; closing it ends what is under way."""

    def __init__(self, begin: Callable[[], AsyncIterator[T]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fn-telling", daemon=True)
        self._thread.start()
        self._items = begin()
        self._asked: concurrent.futures.Future[list[T]] | None = None
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        self._asked = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        try:
            found = self._asked.result()
        except concurrent.futures.CancelledError:
            raise StopIteration from None
        except BaseException:
            self.close()
            raise
        if not found:
            self.close()
            raise StopIteration
        return found[0]

    async def _next(self) -> list[T]:
        async for item in self._items:
            return [item]
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """From any thread: a wait under way ends, too."""
        if self._closed:
            return
        self._closed = True
        if self._asked is not None:
            self._asked.cancel()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Whatever still runs is cancelled first: a generator cannot be closed while it waits."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
