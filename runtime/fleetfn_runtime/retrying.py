"""When a failed event is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fleetfn.invocation import Again

JITTER = 0.2
"""A delay differs from the policy's by up to this share: many keys that failed together do not return together."""


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `attempts` runs; seconds between them: `initial`, then times `factor`, up to `longest`."""

    attempts: int = 5
    initial: float = 1.0
    factor: float = 2.0
    longest: float = 60.0

    def delay(self, outcome: Again, attempt: int) -> float:
        """Seconds until the next run after this one, the `attempt`-th. What the handler named is kept to exactly."""
        if outcome.after is not None:
            return max(0.0, outcome.after)
        return self.backoff(attempt) * random.uniform(1 - JITTER, 1 + JITTER)

    def backoff(self, attempt: int) -> float:
        # The exponent is bounded, so that a hundred attempts do not overflow a float.
        return min(self.longest, self.initial * self.factor ** min(attempt - 1, 64))
