"""What waits for a trigger that its function has no more. For a while a revision that has it again finds all as it was;
then it becomes dead letters, which people see, discard, or redrive where the trigger comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers.inbox import Letter, Row, letter_of

from fleetfn_gateway.queue import Queue

log = logging.getLogger("fleetfn.gateway")

KEPT = 3600.0
"""Seconds that it waits: who takes a revision back has done so by then."""

STEP = 100
"""Rows that are read at a time."""

TOLD = "there is no such trigger any more: its rows wait for it, and become dead letters after an hour"


class Removed:
    """Use on one loop. The time counts from when this process has noticed."""

    def __init__(self, queue: Queue, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._queue = queue
        self._clock = clock
        self._monotonic = monotonic
        self._since: dict[tuple[str, str], float] = {}

    async def bury_due(self, functions: Mapping[str, GatewayFunction]) -> None:
        """To be called now and then. Rows of functions that are not here are left alone. Raises StoreError."""
        now = self._monotonic()
        self._since = {each: self._since.get(each, now) for each in self._missing(functions)}
        for (function, trigger), since in self._since.items():
            if now - since >= KEPT:
                await self._bury(function, trigger)

    def _missing(self, functions: Mapping[str, GatewayFunction]) -> list[tuple[str, str]]:
        found = []
        for name, rows in self._queue.counts().items():
            function = functions.get(name)
            if function is not None:
                known = {each.name for each in function.function.spec.triggers}
                found += [(name, trigger) for trigger, each in rows.items() if each.waiting and trigger not in known]
        return found

    async def _bury(self, function: str, trigger: str) -> None:
        count = 0
        while rows := await self._queue.left(function, trigger, STEP):
            await self._queue.bury([self._letter(row) for row in rows])
            count += len(rows)
        log.warning("%s/%s is removed: %d events that waited for it are dead letters now", function, trigger, count)

    def _letter(self, row: Row) -> Letter:
        detail = f"the function has no trigger {row.trigger!r} any more"
        return letter_of(row, "removed", detail, self._clock())
