"""How many workers a function needs now: from what waits, what runs and what one worker does.

Up quickly: two looks in a row that ask for more are enough. Down slowly: fewer must have been enough for all of
`scale.idle`, each of them within its concurrency. Between the two lies room, so that a load that stays changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOOK = 1.0
"""Seconds between looks: as often as workers tell their figures."""

AHEAD = 2
"""Times its concurrency that one worker may have before another one is worth its start."""

BEHIND = 1.0
"""Seconds of its own speed that may wait for one worker, where that is more: it has caught up before another starts.
What it holds already is no such backlog: where that is much more than its concurrency, it does not keep up.
"""

BUSY = 0.7
"""Cores that a worker may use of its one (a handler's Python runs on one at a time) for the others to go without it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What there is to do, over all workers."""

    lag: int = 0
    """Records of Kafka that are not handled yet, those under way included."""
    lagging: int = 0
    """Partitions that have such records: more workers than these cannot share them."""
    held: int = 0
    """Requests and pushed rows under way."""
    waiting: int = 0
    """Requests and rows that wait for a worker."""
    done: int = 0
    """Runs that ended since the look before."""
    cores: float = 0.0
    """Processor seconds per second, since the look before."""


class Scaling:
    """Pure: `look` is told the time. `idle`: seconds; `concurrency`: keys that one worker handles at the same time."""

    def __init__(self, *, least: int, most: int, idle: float, concurrency: int) -> None:
        self._least = max(1, least)
        self._most = most
        self._idle = idle
        self._concurrency = concurrency
        self._asked = 0
        """Workers that the look before asked for."""
        self._at = 0.0
        self._fewer_since: float | None = None
        self._peak = 0
        """The most that were needed since then."""

    def look(self, now: float, there: int, demand: Demand) -> int:
        """Workers to have from now on, of which `there` are there or on their way: at least one."""
        passed, self._at = max(LOOK / 2, now - self._at), now
        speed = demand.done / passed / max(1, there)
        ahead = AHEAD * self._concurrency
        asked = needed(demand, ahead, max(ahead, BEHIND * speed))
        wanted, self._asked = min(asked, self._asked, self._most), asked
        if wanted > there:
            self._fewer_since = None
            return wanted
        enough = max(needed(demand, self._concurrency, self._concurrency), math.ceil(demand.cores / BUSY))
        return max(self._least, self._fewer(now, there, enough))

    def _fewer(self, now: float, there: int, enough: int) -> int:
        if enough >= there:
            self._fewer_since = None
            return min(there, self._most)
        if self._fewer_since is None:
            self._fewer_since, self._peak = now, 0
        self._peak = max(self._peak, enough)
        if now - self._fewer_since < self._idle:
            return min(there, self._most)
        self._fewer_since = None
        return self._peak


def needed(demand: Demand, holds: float, waits: float) -> int:
    """Workers, if each may hold so many events, or have so many wait for it."""
    return math.ceil(min(demand.lag / waits, demand.lagging) + demand.waiting / waits + demand.held / holds)
