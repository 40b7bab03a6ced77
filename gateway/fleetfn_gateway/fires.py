"""Which fires are due: a pure function of a schedule, what its clock remembers, and the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import msgspec
from fleetfn_triggers.cron import Fire
from fleetfn_triggers.cron_times import Schedule

ON_TIME = 60.0
"""Seconds after its instant that a fire is still on time: the grain of cron, longer than a restart takes."""

MOST = 1000
"""Fires made for missed instants at once (`missed: all`): the latest are kept."""

COUNTED = 10_000
"""Missed instants that are counted: a year of minutes would take seconds."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a clock keeps of its trigger."""

    schedule: str
    """Schedule and zone: where they change, the clock begins anew."""
    through: float
    """All instants up to this time have been seen to."""
    last: int | None = None
    """Instant of the last fire."""
    row: int | None = None
    """Of the last fire. Fires of one trigger are one lane, so when it has ended all before it have."""


@dataclass(frozen=True, slots=True)
class Due:
    """`passed`: instants since the last look, at most COUNTED; `caught_up`: the fires are one for each of several."""

    fires: tuple[Fire, ...]
    passed: int
    caught_up: bool = False


def due(schedule: Schedule, missed: Literal["once", "all", "skip"], memory: Memory, now: float) -> Due:
    newest = list(islice(_since(schedule, memory.through, now), MOST))
    if not newest:
        return Due((), 0)
    passed = len(newest)
    if passed == MOST:
        passed = sum(1 for _ in islice(_since(schedule, memory.through, now), COUNTED))
    latest = newest[0]
    match missed:
        case "once":
            return Due((Fire(at=latest, previous=memory.last, missed=passed - 1),), passed)
        case "skip":
            return Due((Fire(at=latest, previous=memory.last),) if now - latest <= ON_TIME else (), passed)
        case "all":
            befores = [memory.last, *newest[:0:-1]]
            each = zip(befores, reversed(newest), strict=True)
            return Due(tuple(Fire(at=at, previous=before) for before, at in each), passed, caught_up=passed > 1)


def _since(schedule: Schedule, through: float, now: float) -> Iterator[int]:
    """Instants later than `through`, up to `now`; the latest first."""
    for instant in schedule.until(now):
        if instant <= through:
            return
        yield instant
