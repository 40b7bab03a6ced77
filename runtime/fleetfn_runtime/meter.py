"""What the road counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol


class Meter(Protocol):
    """Called on the worker's loop, for each event or each few, so each call is cheap."""

    def done(self, trigger: str, seconds: Sequence[float], age: float | None = None) -> None:
        """Events of one key that ended together. `seconds`: of each in the handler, below 0: another event tells, which
        was in a batch with this one; `age`: seconds since the last event's own time, where it has one.
        """
        ...

    def duplicate(self, trigger: str) -> None: ...

    def retried(self, trigger: str) -> None: ...

    def batch(self, trigger: str, outcome: Literal["done", "retry", "reject"]) -> None:
        """A run of a handler that takes batches. Its events are told of besides, each by itself."""
        ...

    def ended(self, trigger: str) -> int:
        """Runs of events that ended so far, in whatever way."""
        ...

    def rejected(self, trigger: str) -> None: ...

    def dead(self, trigger: str) -> None: ...

    def emitted(self, output: str) -> None: ...
