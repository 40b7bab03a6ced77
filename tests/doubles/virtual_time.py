"""A loop whose time passes when it is told to, or when nothing is left to do: hours in a moment, and nothing by chance.

What waits for something that can never come is found at once: with no timer left and nothing to do, `Stalled` is
raised. Time passes a little whenever somebody reads it, too, as far as `drift` says, and timers fire a little early, as
those of uvloop do: what was asked a moment ago may be otherwise by now. Everything has to be on this loop: a thread's
work takes no time here.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EARLY = 0.0005
"""Seconds before its time that a timer may fire: uvloop rounds to milliseconds."""


class Stalled(AssertionError):  # noqa: N818 - what has happened
    """Nothing is left to do, and nothing will ever happen."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`drift`: seconds that pass by themselves at a reading of the time."""

    def __init__(self, drift: Callable[[], float] = lambda: 0.0, *, limit: float = 120.0) -> None:
        """`limit`: real seconds after which whatever goes on is taken for endless."""
        self.now = 1000.0
        self._drift = drift
        self._until = time.monotonic() + limit
        super().__init__(_Selector(self._rest))
        self._clock_resolution = EARLY * 1.01

    def time(self) -> float:
        self.now += self._drift()
        return self.now

    def _rest(self, seconds: float | None) -> None:
        if time.monotonic() > self._until:
            raise Stalled("it does not end")
        if seconds is None:
            raise Stalled("nothing is left to do, and nothing will ever happen")
        self.now += seconds - EARLY if seconds > EARLY else seconds


class _Selector(selectors.DefaultSelector):
    def __init__(self, rest: Callable[[float | None], None]) -> None:
        super().__init__()
        self._rest = rest

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self._rest(timeout)
        return ready


class LoopTime:
    """Stands for module `time` where code reads clocks of its own. `since`: Unix seconds at the loop's 0."""

    def __init__(self, loop: VirtualLoop, since: float = 1_800_000_000.0) -> None:
        self._loop = loop
        self.since = since

    def monotonic(self) -> float:
        return self._loop.time()

    def time(self) -> float:
        return self.since + self._loop.time()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], drift: Callable[[], float] = lambda: 0.0) -> T:
    """Run `main(loop)` to its end."""
    loop = VirtualLoop(drift)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main(loop))
    finally:
        asyncio.set_event_loop(None)
        _end(loop)


def _end(loop: VirtualLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(asyncio.sleep(0.01))  # connections end a turn after they are closed
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
