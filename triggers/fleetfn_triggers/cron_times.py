"""When a schedule's instants are: a pure function of schedule, time zone and where to start.

Instants are Unix seconds, whole ones. Fields are read by cronsim, on a clock that knows no zone; what becomes of them
where a zone's clock is put forward or back is decided here, as Debian's cron does:

- A schedule with fixed times (neither minute nor hour begins with `*`) comes once a day that it names: in an hour that
  is skipped, right after it; in one that is repeated, the first time.
- One that begins with `*` there goes by real time: in a repeated hour it comes twice as often, in a skipped one never.

`@every` is counted from 1970 on, so a restart changes nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

from fleetfn.errors import FleetError

EXAMPLE = "30 2 * * *"

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, or L for the last"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of week", "0 to 7 (0 and 7 are Sunday), or SUN to SAT"),
)
_EVERY = re.compile(r"(?=[0-9])(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
_DAY = 86400
_LONGEST = 366 * _DAY
_ANY_DAY = 1_767_225_600
"""2026-01-01: a schedule that has no instant in the 50 years from here has none."""


class ScheduleError(FleetError):
    """Text that is no schedule, or one that never comes; or a time zone that nobody knows."""


class Schedule(Protocol):
    def after(self, start: float) -> Iterator[int]:
        """Every instant later than `start`, the soonest first; ends where 50 years have none."""
        ...

    def until(self, start: float) -> Iterator[int]:
        """Every instant not later than `start`, the latest first."""
        ...


def parse(schedule: str, timezone: str = "UTC") -> Schedule:
    """Raises ScheduleError."""
    zone = zone_of(timezone)
    text = schedule.strip()
    if not text.startswith("@"):
        return _fields(text, zone)
    word, _, rest = text.partition(" ")
    if word == "@every":
        return _every(rest.strip())
    if rest or word not in _NAMED:
        near = difflib.get_close_matches(word, [*_NAMED, "@every"], 1)
        known = f"write {', '.join(_NAMED)} or @every and a duration"
        raise ScheduleError(f'"{schedule}" is no schedule', hint=f"did you mean {near[0]}?" if near else known)
    return Fields(_NAMED[word], zone)


def zone_of(name: str) -> ZoneInfo:
    """Raises ScheduleError."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        near = difflib.get_close_matches(name, available_timezones(), 1)
        hint = f"did you mean {near[0]}?" if near else "write an IANA name, e.g. Europe/Berlin"
        raise ScheduleError(f'there is no time zone "{name}"', hint=hint) from None


def _every(text: str) -> Every:
    match = _EVERY.fullmatch(text)
    if match is None:
        raise ScheduleError(f'"@every {text}": "{text}" is no duration', hint="write e.g. @every 15m, or @every 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    period = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not 1 <= period <= _LONGEST:
        raise ScheduleError(f'"@every {text}" is out of range', hint="from 1s to 366d")
    return Every(period)


def _fields(text: str, zone: ZoneInfo) -> Fields:
    fields = text.split()
    if len(fields) != len(_FIELDS):
        seconds = len(fields) == len(_FIELDS) + 1
        raise ScheduleError(
            f'"{text}" has {len(fields)} fields' + (": there are no seconds" if seconds else ""),
            hint="write @every 10s for what comes more often than each minute"
            if seconds
            else f"five are needed: minute, hour, day of month, month, day of week, e.g. {EXAMPLE}",
        )
    for place, (field, (name, values)) in enumerate(zip(fields, _FIELDS, strict=True)):
        alone = ["*"] * len(_FIELDS)
        alone[place] = field
        if not _readable(" ".join(alone)):
            raise ScheduleError(
                f'"{text}": "{field}" is no {name}',
                hint=f"{name}: {values}; several as 1,3 or 1-5 or */2",
            )
    if not _readable(text) or next(Fields(text, zone).after(_ANY_DAY), None) is None:
        raise ScheduleError(f'"{text}" never comes', hint="no month has such a day: change day or month")
    return Fields(text, zone)


def _readable(text: str) -> bool:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only who has a schedule needs it

    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except (CronSimError, AssertionError, TypeError, ValueError):  # the library checks some forms by assertions
        return False
    return True


class Every:
    """A fixed number of seconds apart."""

    def __init__(self, period: int) -> None:
        self._period = period

    def after(self, start: float) -> Iterator[int]:
        instant = (int(start // self._period) + 1) * self._period
        while True:
            yield instant
            instant += self._period

    def until(self, start: float) -> Iterator[int]:
        instant = int(start // self._period) * self._period
        while True:
            yield instant
            instant -= self._period


class Fields:
    """Five fields, by the clock of a zone. `text` has been checked."""

    def __init__(self, text: str, zone: ZoneInfo) -> None:
        self._text = text
        self._zone = zone
        minute, hour, *_ = text.split()
        self._fixed = not (minute.startswith("*") or hour.startswith("*"))

    def after(self, start: float) -> Iterator[int]:
        return self._fixed_after(int(start // 1)) if self._fixed else self._real_after(int(start // 1))

    def until(self, start: float) -> Iterator[int]:
        return self._fixed_until(int(start // 1)) if self._fixed else self._real_until(int(start // 1))

    # Fixed times: each time of day that the fields name becomes one instant

    def _fixed_after(self, start: int) -> Iterator[int]:
        last = start
        for local in self._locals(start + self._offset(start)):
            instant = self._instant(local)
            if instant > last:
                yield instant
                last = instant

    def _fixed_until(self, start: int) -> Iterator[int]:
        # The second time that a clock shows 02:10, the 02:30 of the first time is past.
        repeated = datetime.fromtimestamp(start, self._zone).fold
        last = start + 1
        for local in self._locals_back(start + self._offset(start) + repeated * _DAY):
            instant = self._instant(local)
            if instant < last:
                yield instant
                last = instant

    def _instant(self, local: int) -> int:
        """When the zone's clock shows this first, or would have shown it: the moment it skipped it."""
        naive = datetime.fromtimestamp(local, UTC).replace(tzinfo=None)
        early = int(naive.replace(tzinfo=self._zone, fold=0).timestamp())
        late = int(naive.replace(tzinfo=self._zone, fold=1).timestamp())
        return early if late >= early else self._change(late, early) or early

    # Real time: wherever the clock shows what the fields name

    def _real_after(self, start: int) -> Iterator[int]:
        last, offset = start, self._offset(start)
        walk = self._locals(start + offset)
        while (local := next(walk, None)) is not None:
            instant = local - offset
            change = self._change(last, instant)
            if change is None:
                yield instant
                last = instant
            else:
                last, offset = change, self._offset(change)
                walk = self._locals(change + offset - 1)

    def _real_until(self, start: int) -> Iterator[int]:
        last, offset = start, self._offset(start)
        walk = self._locals_back(start + offset)
        while (local := next(walk, None)) is not None:
            instant = local - offset
            change = self._change_back(instant, last)
            if change is None:
                yield instant
                last = instant
            else:
                last, offset = change - 1, self._offset(change - 1)
                walk = self._locals_back(last + offset)

    # The clock of the zone

    def _offset(self, instant: int) -> int:
        shift = datetime.fromtimestamp(instant, self._zone).utcoffset()
        return 0 if shift is None else int(shift.total_seconds())

    def _change(self, start: int, end: int) -> int | None:
        """The first instant in (start, end] whose offset is not that of `start`."""
        offset = self._offset(start)
        for low in range(start, end, _DAY):
            high = min(low + _DAY, end)
            if self._offset(high) != offset:
                return _first(low, high, lambda instant: self._offset(instant) != offset)
        return None

    def _change_back(self, start: int, end: int) -> int | None:
        """The first instant of the stretch of equal offsets that `end` is in; None where it reaches back to `start`."""
        offset = self._offset(end)
        for high in range(end, start, -_DAY):
            low = max(high - _DAY, start)
            if self._offset(low) != offset:
                return _first(low, high, lambda instant: self._offset(instant) == offset)
        return None

    # Fields on a clock without a zone, as seconds since its 1970

    def _locals(self, after: int) -> Iterator[int]:
        from cronsim import CronSim  # noqa: PLC0415 - as above

        for found in CronSim(self._text, datetime.fromtimestamp(after, UTC)):
            yield int(found.timestamp())

    def _locals_back(self, until: int) -> Iterator[int]:
        from cronsim import CronSim  # noqa: PLC0415 - as above

        for found in CronSim(self._text, datetime.fromtimestamp(until + 1, UTC), reverse=True):
            yield int(found.timestamp())


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first in (low, high] where `holds` is true, which it is at `high` and from there back to one place."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
