"""Ever longer waits after failures in a row."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Waits double from `first` to `longest` seconds, each between half and all of it: what failed by one cause does
    not come back together.
    """

    def __init__(self, first: float, longest: float, *, jitter: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0

    def failed(self) -> float:
        """Seconds to wait now."""
        wait = min(self._longest, self._first * 2.0 ** min(self.failures, 20))
        self.failures += 1
        return wait * (0.5 + self._jitter() / 2)

    def reset(self) -> None:
        self.failures = 0
