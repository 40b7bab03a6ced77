"""Who sleeps, and from which offset of which partition a record wakes them. Pure: the watch does what this says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(eq=False, slots=True)
class Sleeper:
    function: str
    trigger: str
    topic: str
    group: str
    problem: str = ""
    """Why it is not watched now; '' where it is."""
    since: float = 0.0
    """Monotonic seconds since its offsets were committed last, as far as the watch knows."""


class Sleepers:
    """Several may wait for one partition, each from its own offset: it is read from the lowest of them."""

    def __init__(self) -> None:
        self._offsets: dict[Place, dict[Sleeper, int]] = {}
        self._places: dict[Sleeper, set[Place]] = {}
        self._changed: set[Place] = set()
        self._read: dict[Place, int] = {}
        """Offset that each partition is read from next, as last told by `changes` and moved by records."""

    def __len__(self) -> int:
        return len(self._places)

    def add(self, sleeper: Sleeper, offsets: Mapping[int, int]) -> None:
        """It is woken by a record at its offset or later, in any of these partitions of its topic."""
        for number, offset in offsets.items():
            place = (sleeper.topic, number)
            self._places.setdefault(sleeper, set()).add(place)
            self._offsets.setdefault(place, {})[sleeper] = offset
            self._changed.add(place)

    def drop(self, sleeper: Sleeper) -> None:
        for place in self._places.pop(sleeper, ()):
            waiting = self._offsets[place]
            del waiting[sleeper]
            if not waiting:
                del self._offsets[place]
            self._changed.add(place)

    def offsets(self, sleeper: Sleeper) -> dict[int, int]:
        return {place[1]: self._offsets[place][sleeper] for place in self._places.get(sleeper, ())}

    def record(self, place: Place, offset: int) -> list[Sleeper]:
        """Whom this record wakes: they sleep no more. One from before where we read means that the log is another."""
        anew = offset < self._read.get(place, 0)
        if place in self._read:
            self._read[place] = offset + 1
        waiting = self._offsets.get(place, {})
        woken = [sleeper for sleeper, begin in waiting.items() if anew or begin <= offset]
        for sleeper in woken:
            self.drop(sleeper)
        return woken

    def reread(self) -> None:
        """A new consumer reads nothing yet: `changes` tells of all places again."""
        self._read.clear()
        self._changed.update(self._offsets)

    def changes(self) -> dict[Place, int | None]:
        """Since the last time: partitions to read anew from an offset, or (None) no longer."""
        found: dict[Place, int | None] = {}
        for place in self._changed:
            waiting = self._offsets.get(place)
            begin = min(waiting.values()) if waiting else None
            if begin != self._read.get(place):
                found[place] = begin
                if begin is None:
                    del self._read[place]
                else:
                    self._read[place] = begin
        self._changed.clear()
        return found
