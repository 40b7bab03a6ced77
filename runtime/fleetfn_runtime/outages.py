"""What cannot be reached now (the store, the inbox, an output), and the pull sources that stand still meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Protocol

log = logging.getLogger("fleetfn.road")

BACKOFF = (0.2, 5.0)
"""First and longest seconds between tries."""

FORGOTTEN = 15.0
"""Seconds after which an outage that nobody met again is over: whoever kept trying may have been taken away."""


class Pausable(Protocol):
    """A pull source: it may be paused for several reasons at once, and goes on when the last is gone."""

    @property
    def trigger(self) -> str: ...

    def pause(self, why: str) -> None: ...

    def resume(self, why: str) -> None: ...


class Outages:
    """Used on one loop."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        """Nothing more is tried again for the sake of events that another worker can take."""
        self._sources: list[Pausable] = []
        self._now: dict[str, str] = {}
        self._met: dict[str, asyncio.TimerHandle] = {}

    def __bool__(self) -> bool:
        return bool(self._now)

    def watch(self, source: Pausable) -> None:
        self._sources.append(source)
        for why in self._now.values():
            source.pause(why)

    def begin(self, what: str, error: Exception) -> None:
        """`what` is down: `store`, `output alerts`. Whoever says so keeps trying, and says so each time."""
        timer = self._met.pop(what, None)
        if timer is not None:
            timer.cancel()
        self._met[what] = asyncio.get_running_loop().call_later(FORGOTTEN, self.end, what)
        if what in self._now:
            return
        since = time.strftime("%H:%M:%S", time.gmtime())
        self._now[what] = why = f"{what} is down since {since} UTC: {error}"
        log.warning("%s; sources are paused, what runs is kept and tried again", why)
        for source in self._sources:
            source.pause(why)

    def end(self, what: str) -> None:
        why = self._now.pop(what, None)
        if why is None:
            return
        self._met.pop(what).cancel()
        log.info("%s is no longer known to be down", what)
        for source in self._sources:
            source.resume(why)

    def problems(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._now.items())

    async def rest(self, seconds: float) -> None:
        """Wait before the next try; shorter where the worker stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    def close(self) -> None:
        for timer in self._met.values():
            timer.cancel()
