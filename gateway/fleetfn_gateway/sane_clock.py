"""Whether the machine's clock can be believed now. A box without a battery boots in 1970; a clock is moved by hand, by
NTP, by a suspend. Who goes by it asks here first, every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

BUILT = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
"""This code did not exist before. To be moved on with each release."""

LITTLE = 60.0
"""Seconds that a clock may be behind what was seen of it before."""

JUMP = 5.0
"""Seconds by which the clock differs from what has really passed when it has been moved."""

SETTLE = 10.0
"""Seconds that a moved clock must go on evenly before it is believed: what moves it may move it again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`doubt`: why the clock is not believed, for people; '' if it is."""

    now: float
    doubt: str = ""


class SaneClock:
    """`now`: Unix seconds. `monotonic`: seconds that go on evenly, standing still while the machine is suspended."""

    def __init__(self, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._last: tuple[float, float] | None = None
        self._moved = ""
        self._believed_from = 0.0

    def look(self, recorded: float = 0.0) -> Seen:
        """`recorded`: a time that has been, as somebody noted when the clock was believed."""
        now, even = self._now(), self._monotonic()
        self._notice_jump(now, even)
        if now < BUILT:
            return Seen(now, f"the clock says {shown(now)}, which is before FleetFn was built: set it")
        if now < recorded - LITTLE:
            return Seen(
                now,
                f"the clock says {shown(now)}, and {shown(recorded)} has been already: set it; where it is right, "
                "write the schedule in another way, which begins anew",
            )
        return Seen(now, self._moved if even < self._believed_from else "")

    def _notice_jump(self, now: float, even: float) -> None:
        last, self._last = self._last, (now, even)
        if last is None:
            return
        by = (now - last[0]) - (even - last[1])
        if abs(by) > JUMP:
            self._believed_from = even + SETTLE
            self._moved = (
                f"the clock was moved by {by:+.0f} s, or the machine slept: waiting {SETTLE:g} s to see it go on"
            )


def shown(instant: float) -> str:
    return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M:%S} UTC"
