"""Group commit: one writer thread takes all that was submitted since its last commit and commits it at once.

An fsync costs the same for one row as for a thousand, and a hop to a thread (50 us) is paid once per batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from fleetfn.errors import StoreError

T = TypeVar("T")
R = TypeVar("R")

BATCH = 1024
"""Items of one commit, unless one submission alone is longer; beyond this, more gain nothing."""


class _Submission(NamedTuple, Generic[T, R]):
    items: Sequence[T]
    future: asyncio.Future[list[R]]


class GroupCommit(Generic[T, R]):
    """`commit` runs on the writer thread: items in, one result per item out, all or (when it raises) nothing.

    To be used from one event loop. The thread starts with the first submission, so that a function that saves
    nothing has none.
    """

    def __init__(self, commit: Callable[[Sequence[T]], list[R]], *, name: str) -> None:
        self._commit = commit
        self._name = name
        self._queue: queue.SimpleQueue[_Submission[T, R] | None] = queue.SimpleQueue()
        self._carried: _Submission[T, R] | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closed = False
        self.commits = 0
        """Batches committed so far."""
        self.items = 0
        """Items in them."""

    def submit(self, items: Sequence[T]) -> asyncio.Future[list[R]]:
        """The results once they are durable. Cancelling the future does not take the items back."""
        if self._closed:
            raise StoreError(f"{self._name} is closed", hint="nothing may be saved after closing")
        future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self._queue.put(_Submission(items, future))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return future

    async def close(self) -> None:
        """Commit what was submitted and end the thread."""
        if not self._closed:
            self._closed = True
            self._ended = asyncio.get_running_loop().create_future()
            if self._thread is None:
                self._ended.set_result(None)
            else:
                self._queue.put(None)
        if self._ended is not None:
            await asyncio.shield(self._ended)

    def _run(self) -> None:
        while batch := self._take():
            items: Sequence[T] = batch[0].items if len(batch) == 1 else [i for part in batch for i in part.items]
            try:
                results: list[R] | Exception = self._commit(items)
                self.commits += 1
                self.items += len(items)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait
                results = error
            _tell(batch[0].future, _resolve, batch, results)
        if self._ended is not None:
            _tell(self._ended, self._ended.set_result, None)

    def _take(self) -> list[_Submission[T, R]]:
        """What waits, at least one submission; empty at the end."""
        first = self._carried or self._queue.get()
        self._carried = None
        if first is None:
            return []
        batch, size = [first], len(first.items)
        while size < BATCH:
            try:
                part = self._queue.get_nowait()
            except queue.Empty:
                break
            if part is None:
                self._queue.put(None)  # nothing follows it: submitting is over
                break
            if size + len(part.items) > BATCH:
                self._carried = part
                break
            batch.append(part)
            size += len(part.items)
        return batch


def _tell(future: asyncio.Future[Any], call: Callable[..., object], *arguments: object) -> None:
    try:
        future.get_loop().call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more


def _resolve(batch: list[_Submission[T, R]], results: list[R] | Exception) -> None:
    start = 0
    for part in batch:
        if isinstance(results, Exception):
            if not part.future.done():
                part.future.set_exception(results)
            continue
        end = start + len(part.items)
        if not part.future.done():
            part.future.set_result(results[start:end])
        start = end
