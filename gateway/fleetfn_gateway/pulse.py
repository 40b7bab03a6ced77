"""One look at the machine's clocks for all who wait for a time of day. A clock that is moved, or a machine that slept,
has to be noticed soon; twenty clocks that each looked for themselves were most of what an idle gateway took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

STEP = 2.0
"""Seconds between two looks, while anybody waits."""

MOVED = 0.05
"""Seconds by which the time of day differs from what has really passed when it has been moved, if only a little: who
waits wakes then, and judges by itself.
"""


class Pulse:
    """Use on one loop. `now`: Unix seconds. `monotonic`: seconds that go on evenly."""

    def __init__(self, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._waiting: dict[asyncio.Future[None], float] = {}
        """Until which time of day."""
        self._seen = (0.0, 0.0)
        self._timer: asyncio.TimerHandle | None = None

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds, or sooner: what is left is less than `STEP` then, or the time was moved."""
        if seconds < STEP:
            await asyncio.sleep(seconds)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[woken] = self._now() + seconds
        if self._timer is None:
            self._seen = self._now(), self._monotonic()
            self._look_later()
        try:
            await woken
        finally:
            self._waiting.pop(woken, None)

    def look(self) -> None:
        """Wake who is to wake."""
        self._timer = None
        (before, even_before), self._seen = self._seen, (self._now(), self._monotonic())
        now, even = self._seen
        moved = abs((now - before) - (even - even_before)) > MOVED
        for woken in [each for each, until in self._waiting.items() if moved or until - now < STEP]:
            del self._waiting[woken]
            if not woken.done():
                woken.set_result(None)
        if self._waiting:
            self._look_later()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(STEP, self.look)
