"""Whether ages of dead letters can be believed: a clock that is set wrong would have all of them be too old at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("fleetfn.gateway")

STEADY = 3600.0
"""Seconds that the clock must have gone on evenly. What sets a wrong clock right (NTP, people) has come by then."""

_PART = 0.1
"""Of how long letters are kept: by so much the clock may be moved, all in all."""


class Ages:
    """`kept`: seconds that letters are kept. `clock`: Unix seconds. `monotonic`: seconds that go on evenly."""

    def __init__(
        self, kept: float, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = kept * _PART
        self._clock = clock
        self._monotonic = monotonic
        self._since = monotonic()
        self._apart = clock() - self._since

    def believed(self) -> bool:
        """To be asked every minute or so. False for the first hour, too: it may have been wrong from the start."""
        even = self._monotonic()
        moved = self._clock() - even - self._apart
        if abs(moved) > self._limit:
            log.warning(
                "the clock was moved by %+.0f s, or the machine slept: for %.0f s no dead letter is too old",
                moved,
                STEADY,
            )
            self._since = even
            self._apart += moved
        return even - self._since >= STEADY
