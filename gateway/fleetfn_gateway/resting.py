"""Triggers that one worker runs nothing of for now: its breaker is open, it is paused there, the revision lacks it.

Each rests for as long as the worker said; a few of its rows are pushed as probes then, until one is told anything else.
So what a refusal costs does not depend on how much waits.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetfn_triggers.inbox import Row

PROBES = 8
"""Rows of such a trigger that are in flight as probes at most."""

LONGEST = 15.0
"""Seconds that a worker may ask for; a longer time is taken for this one. No worker has a reason to."""


class Rests:
    """Of one worker. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self._rests: dict[str, _Rest] = {}

    def __iter__(self) -> Iterator[str]:
        """Triggers that rest or are probed."""
        return iter(self._rests)

    def refused(self, trigger: str, after: float, now: float) -> None:
        """It may be pushed again `after` seconds from now."""
        self._rests.setdefault(trigger, _Rest()).until = now + min(after, LONGEST)

    def taken(self, row: Row) -> None:
        """It was told anything but `lost`; if it was a probe, the trigger goes on."""
        rest = self._rests.get(row.trigger)
        if rest is not None and row.sequence in rest.probes:
            del self._rests[row.trigger]

    def limit(self, trigger: str, room: int, now: float) -> int:
        """How many of `room` rows may be of that trigger."""
        rest = self._rests.get(trigger)
        if rest is None:
            return room
        return 0 if now < rest.until else min(room, PROBES - len(rest.probes))

    def left(self, now: float) -> list[float]:
        """Seconds until each that rests may be probed."""
        return [rest.until - now for rest in self._rests.values() if rest.until > now]

    def begin(self, row: Row) -> None:
        rest = self._rests.get(row.trigger)
        if rest is not None:
            rest.probes.add(row.sequence)

    def ended(self, row: Row) -> None:
        rest = self._rests.get(row.trigger)
        if rest is not None:
            rest.probes.discard(row.sequence)

    def clear(self) -> None:
        self._rests.clear()


class _Rest:
    __slots__ = ("probes", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.probes: set[int] = set()
        """Rows pushed since it began to rest that are in flight."""
