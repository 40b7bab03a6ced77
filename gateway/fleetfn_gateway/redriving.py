"""Dead letters on their way back: all at once, or so many a second. Those that nobody would run stay."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

import msgspec
from fleetfn.errors import StoreError, UsageError
from fleetfn_spec.gateway import Redrive
from fleetfn_triggers.inbox import DeadLetters, Which

log = logging.getLogger("fleetfn.gateway")

_TICK = 0.1
"""Seconds between two portions, unless one letter takes longer."""

_RETRY = 5.0
"""Seconds before the inbox is asked again that could not."""


class Redriving:
    """Use on one loop. A redrive with a rate goes on by itself until its letters are redriven, and ends with this
    process: what it has not come to by then stays a dead letter.
    """

    def __init__(
        self,
        letters: DeadLetters,
        *,
        check: Callable[[Which], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`check` raises UsageError where nobody would run some of these."""
        self._letters = letters
        self._check = check
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def redrive(self, asked: Redrive) -> int:
        """How many letters that are. Raises UsageError, StoreError."""
        if asked.rate is not None and not (math.isfinite(asked.rate) and asked.rate > 0):
            raise UsageError(f"rate={asked.rate} is no number of events a second", hint="leave it out for all at once")
        if not asked.dry_run:
            await self._check(asked.which)
        if asked.rate is None and not asked.dry_run:
            return await self._letters.redrive(asked.which)
        # Those that die again meanwhile are no part of it: it would never end.
        now = self._clock()
        before = now if asked.which.before is None else min(now, asked.which.before)
        which = msgspec.structs.replace(asked.which, before=before)
        count = await self._letters.count(which)
        if count and asked.rate is not None and not asked.dry_run:
            task = asyncio.create_task(self._go_on(which, asked.rate, count))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return count

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _go_on(self, which: Which, rate: float, left: int) -> None:
        portion = max(1, round(rate * _TICK))
        while left > 0:
            try:
                await self._check(which)
                redriven = await self._letters.redrive(which, limit=min(portion, left))
            except UsageError as error:
                log.warning("a redrive ends with %d letters left: %s", left, error.message)
                return
            except StoreError as error:
                log.warning("a redrive waits: %s", error.message)
                await asyncio.sleep(_RETRY)
                continue
            left -= redriven
            if redriven == 0:
                return
            await asyncio.sleep(redriven / rate)
