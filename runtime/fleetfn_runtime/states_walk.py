"""How walks over all states (`ctx.states`) read the worker's store: plain `def` handlers are not on its loop."""

from __future__ import annotations

import asyncio
import time

from fleetfn.errors import FleetError, SealedError
from fleetfn.states import Stretch, stretch
from fleetfn.store import Store


class StoreWalk:
    """Implements fleetfn.states.Reader. Made on the store's loop, used on any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()

    def read(self, after: str | None, deadline: float | None) -> Stretch:
        if _running() is self._loop:
            raise FleetError(
                "a `for` over ctx.states would stop the worker's loop", hint="write `async for` in an `async def`"
            )
        reading = asyncio.run_coroutine_threadsafe(stretch(self._store, after), self._loop)
        try:
            return reading.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            reading.cancel()
            raise SealedError("this invocation timed out; it can no longer walk states") from None

    async def read_async(self, after: str | None) -> Stretch:
        if _running() is self._loop:
            return await stretch(self._store, after)
        # The handler's code runs a loop of its own, in a thread.
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(stretch(self._store, after), self._loop))


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
