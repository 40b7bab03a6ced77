"""Schedules against a clock that is watched minute by minute, over the days when clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim
from fleetfn_triggers.cron_times import Schedule, ScheduleError, parse
from hypothesis import given
from hypothesis import strategies as st

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca"]
CHANGES = [
    datetime(2026, month, day, tzinfo=UTC).timestamp()
    for month, day in [(2, 14), (3, 7), (3, 22), (3, 28), (4, 4), (10, 3), (10, 24), (10, 31)]
]
DAY = 86400


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(
        st.just("*"),
        number.map(str),
        span,
        st.integers(1, 30).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=2, max_size=4).map(lambda numbers: ",".join(map(str, numbers))),
    )


schedules = st.builds(" ".join, st.tuples(field(0, 59), field(0, 23), st.just("*"), st.just("*"), st.just("*")))
starts = st.builds(lambda change, shift: change + shift, st.sampled_from(CHANGES), st.integers(0, DAY))


def watched(schedule: str, zone: str, start: float, end: float) -> list[int]:
    """What a cron that looks at the wall clock each minute would run; Debian's rules for fixed times."""
    minutes, hours = _named(schedule)
    fixed = not any(part.startswith("*") for part in schedule.split()[:2])
    found: list[int] = []
    done: set[datetime] = set()
    before = _wall(int(start // 60) * 60 - 2 * DAY, zone)
    for instant in range(int(start // 60) * 60 - 2 * DAY + 60, int(end) + 1, 60):
        now = _wall(instant, zone)
        if not fixed:
            hit = now.minute in minutes and now.hour in hours
        else:
            # All wall times that were reached or jumped over since the last look, each of them once.
            passed = [before + _MINUTE * n for n in range(1, max(0, int((now - before) / _MINUTE)) + 1)]
            due = {each for each in passed if each.minute in minutes and each.hour in hours} - done
            done |= due
            hit = bool(due)
            now = max(now, before)
        before = now
        if hit and instant > start:
            found.append(instant)
    return found


_MINUTE = datetime(2026, 1, 1, 0, 1) - datetime(2026, 1, 1)  # noqa: DTZ001 - wall clocks


def _wall(instant: int, zone: str) -> datetime:
    return datetime.fromtimestamp(instant, ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def _named(schedule: str) -> tuple[set[int], set[int]]:
    simulated = CronSim(schedule, datetime(2026, 1, 1, tzinfo=UTC))
    return simulated.minutes, simulated.hours


@given(schedules, st.sampled_from(ZONES), starts)
def test_instants_are_those_of_a_cron_that_watches_the_clock(schedule: str, zone: str, start: float) -> None:
    end = start + DAY
    found = list(takewhile(lambda instant: instant <= end, islice(parse(schedule, zone).after(start), 2000)))
    assert found == watched(schedule, zone, start, end)


@given(schedules, st.sampled_from(ZONES), starts)
def test_backward_is_forward_reversed(schedule: str, zone: str, start: float) -> None:
    one = parse(schedule, zone)
    forward = list(islice(one.after(start), 60))
    backward = list(takewhile(lambda instant: instant > start, one.until(forward[-1])))
    assert backward == forward[::-1]


@given(st.text(max_size=30) | st.from_regex(r"@?[a-z0-9*/,#L -]{0,20}", fullmatch=True), st.text(max_size=20))
def test_any_text_is_a_schedule_or_says_why_not(schedule: str, zone: str) -> None:
    for named in (zone, "UTC"):
        found = tried(schedule, named)
        if isinstance(found, ScheduleError):
            assert found.hint
        else:
            assert next(found.after(0)) > 0


def tried(schedule: str, zone: str) -> Schedule | ScheduleError:
    try:
        return parse(schedule, zone)
    except ScheduleError as error:
        return error
