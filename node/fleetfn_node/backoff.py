"""When a worker that died is started again: at once after a healthy while, else ever later."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST = 1.0
"""Seconds of the first wait."""

LONGEST = 60.0

HEALTHY = 10.0
"""Seconds after which a worker's death says nothing about the next one."""


@dataclass(slots=True)
class Backoff:
    """Counts deaths in a row. The first may be an accident and costs no wait; what never got ready waits at once."""

    jitter: Callable[[], float] = random.random
    failures: int = 0

    def died(self, *, lived: float, worked: bool) -> float:
        """Seconds to wait after a worker's death; `lived`: seconds since ready, `worked`: it ended a run well."""
        if lived >= HEALTHY or worked:
            self.failures = 0
            return 0.0
        self.failures += 1
        return self._wait(self.failures - 1)

    def failed(self) -> float:
        """Seconds to wait after a worker that did not become ready."""
        self.failures += 1
        return self._wait(self.failures)

    def reset(self) -> None:
        self.failures = 0

    def _wait(self, count: int) -> float:
        """Between half and all of the doubled wait, so that functions broken by one cause do not come back together."""
        if count <= 0:
            return 0.0
        return min(LONGEST, FIRST * 2.0 ** min(count - 1, 10)) * (0.5 + self.jitter() / 2)
