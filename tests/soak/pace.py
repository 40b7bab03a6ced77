"""The clock of a run: load and disorder go by the seconds since it was started. It may be made to stand still."""

from __future__ import annotations

import threading
import time

LOOK = 0.2
"""Seconds: who waits for a time looks so often whether the clock goes."""


class Pace:
    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._held: float | None = None
        """Since when it stands still."""
        self._ended = threading.Event()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        held = self._held
        return (time.monotonic() if held is None else held) - self._begun

    @property
    def ended(self) -> bool:
        """The run is over, whether or not all was sent."""
        return self._ended.is_set()

    def end(self) -> None:
        self._ended.set()

    def hold(self) -> None:
        """Nothing more becomes due."""
        self._held = time.monotonic()

    def go_on(self) -> None:
        if self._held is not None:
            self._begun += time.monotonic() - self._held
            self._held = None

    def left(self, at: float) -> float:
        """Seconds; 0 where that is past, or the run is over."""
        return 0.0 if self.ended else max(0.0, at - self.now)

    def until(self, at: float) -> None:
        """At once, where that is past."""
        while (left := self.left(at)) > 0:
            self.rest(min(left, LOOK))

    def rest(self, seconds: float) -> None:
        if seconds > 0:
            self._ended.wait(seconds)
