"""When schedules come, zone by zone, over the hours that clocks skip and repeat."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from fleetfn_triggers.cron_times import ScheduleError, parse

BERLIN = "Europe/Berlin"
"""2026-03-29 02:00 +01:00 -> 03:00 +02:00, 2026-10-25 03:00 +02:00 -> 02:00 +01:00."""

NEW_YORK = "America/New_York"
"""2026-03-08 02:00 -05:00 -> 03:00 -04:00, 2026-11-01 02:00 -04:00 -> 01:00 -05:00."""

LORD_HOWE = "Australia/Lord_Howe"
"""Half an hour: 2026-04-05 02:00 +11:00 -> 01:30 +10:30, 2026-10-04 02:00 +10:30 -> 02:30 +11:00."""


def stamp(text: str, zone: str = "UTC") -> float:
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))).timestamp()


def local(instants: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(each, ZoneInfo(zone)).isoformat(timespec="minutes") for each in instants]


@pytest.mark.parametrize(
    ("schedule", "zone", "start", "expected"),
    [
        pytest.param(
            "30 2 * * *", "UTC", "2026-03-28T12:00",
            ["2026-03-29T02:30+00:00", "2026-03-30T02:30+00:00"], id="UTC skips nothing",
        ),
        pytest.param(
            "30 2 * * *", BERLIN, "2026-03-28T12:00",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"], id="a skipped time comes right after",
        ),
        pytest.param(
            "15,45 2 * * *", BERLIN, "2026-03-28T12:00",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:15+02:00"], id="several skipped times come once",
        ),
        pytest.param(
            "0 2,3 * * *", BERLIN, "2026-03-28T12:00",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"], id="a skipped time that falls on another comes once",
        ),
        pytest.param(
            "30 2 * * *", BERLIN, "2026-10-24T12:00",
            ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"], id="a repeated time comes the first time",
        ),
        pytest.param(
            "30 2 * * *", BERLIN, "2026-10-25T02:10+01:00",
            ["2026-10-26T02:30+01:00"], id="from within the repeated hour a time of it is past",
        ),
        pytest.param(
            "*/30 * * * *", BERLIN, "2026-03-29T01:15",
            ["2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"],
            id="each half hour goes by real time in spring",
        ),
        pytest.param(
            "*/30 * * * *", BERLIN, "2026-10-25T01:45",
            [
                "2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00",
                "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00",
            ],
            id="each half hour goes by real time in autumn",
        ),
        pytest.param(
            "0 * * * *", NEW_YORK, "2026-11-01T00:30",
            ["2026-11-01T01:00-04:00", "2026-11-01T01:00-05:00", "2026-11-01T02:00-05:00"],
            id="hourly comes in both repeated hours",
        ),
        pytest.param(
            "*/20 2 * * *", NEW_YORK, "2026-03-07T12:00",
            ["2026-03-09T02:00-04:00", "2026-03-09T02:20-04:00"], id="a step of a skipped hour is left out",
        ),
        pytest.param(
            "5 2 * * *", NEW_YORK, "2026-03-07T12:00",
            ["2026-03-08T03:00-04:00", "2026-03-09T02:05-04:00"], id="New York skips two o'clock",
        ),
        pytest.param(
            "5 1 * * *", NEW_YORK, "2026-10-31T12:00",
            ["2026-11-01T01:05-04:00", "2026-11-02T01:05-05:00"], id="New York repeats one o'clock",
        ),
        pytest.param(
            "15 2 * * *", LORD_HOWE, "2026-10-03T12:00",
            ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"], id="half an hour is skipped",
        ),
        pytest.param(
            "*/10 2 * * *", LORD_HOWE, "2026-10-03T12:00",
            ["2026-10-04T02:30+11:00", "2026-10-04T02:40+11:00", "2026-10-04T02:50+11:00", "2026-10-05T02:00+11:00"],
            id="what is left of an hour",
        ),
        pytest.param(
            "*/15 1 * * *", LORD_HOWE, "2026-04-05T01:20+11:00",
            [
                "2026-04-05T01:30+11:00", "2026-04-05T01:45+11:00", "2026-04-05T01:30+10:30",
                "2026-04-05T01:45+10:30", "2026-04-06T01:00+10:30",
            ],
            id="half an hour is repeated",
        ),
        pytest.param(
            "45 1 * * *", LORD_HOWE, "2026-04-04T12:00",
            ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"], id="a repeated half hour comes once",
        ),
        pytest.param(
            "@every 90m", BERLIN, "2026-03-29T00:10",
            ["2026-03-29T01:00+01:00", "2026-03-29T03:30+02:00"], id="@every knows no zone",
        ),
        pytest.param("@daily", BERLIN, "2026-03-28T23:59", ["2026-03-29T00:00+01:00"], id="@daily"),
        pytest.param("0 6 L * *", "UTC", "2026-02-01T00:00", ["2026-02-28T06:00+00:00"], id="the last of a month"),
        pytest.param("0 6 * * MON#1", "UTC", "2026-02-01", ["2026-02-02T06:00+00:00"], id="the first Monday"),
        pytest.param("0 0 13 * FRI", "UTC", "2026-02-10", ["2026-02-13T00:00+00:00", "2026-02-20T00:00+00:00"],
                     id="day of month or day of week"),
        pytest.param("0 0 29 2 *", "UTC", "2026-02-10", ["2028-02-29T00:00+00:00"], id="leap day"),
    ],
)  # fmt: skip
def test_instants(schedule: str, zone: str, start: str, expected: list[str]) -> None:
    begin = stamp(start, zone)
    found = parse(schedule, zone)
    instants = list(islice(found.after(begin), len(expected)))
    assert local(instants, zone) == expected
    assert list(islice(found.until(instants[-1]), len(expected))) == instants[::-1]


def test_an_instant_is_not_after_itself_but_until_itself() -> None:
    schedule = parse("0 12 * * *")
    noon = stamp("2026-01-01T12:00")
    assert next(schedule.after(noon - 0.001)) == noon
    assert next(schedule.after(noon)) == noon + 86400
    assert next(schedule.until(noon)) == noon
    assert next(schedule.until(noon - 0.001)) == noon - 86400


def test_every_is_counted_from_1970_so_that_restarts_change_nothing() -> None:
    schedule = parse("@every 7m")
    instants = list(islice(schedule.after(1_000_000), 3))
    assert [each % 420 for each in instants] == [0, 0, 0]
    assert next(schedule.after(1_000_010)) == instants[0]
    assert list(islice(schedule.until(instants[2]), 3)) == instants[::-1]


@pytest.mark.parametrize(
    ("schedule", "message", "hint"),
    [
        ("61 * * * *", '"61 * * * *": "61" is no minute', "minute: 0 to 59; several as 1,3 or 1-5 or */2"),
        ("0 24 * * *", '"0 24 * * *": "24" is no hour', "hour: 0 to 23"),
        ("0 0 0 * *", '"0 0 0 * *": "0" is no day of month', "1 to 31, or L for the last"),
        ("0 0 * JANUARY *", '"JANUARY" is no month', "1 to 12, or JAN to DEC"),
        ("0 0 * * 8", '"8" is no day of week', "0 to 7 (0 and 7 are Sunday), or SUN to SAT"),
        ("0 0 * * MON#1/2", '"MON#1/2" is no day of week', ""),
        ("*/0 * * * *", '"*/0" is no minute', ""),
        ("5-1 * * * *", '"5-1" is no minute', ""),
        ("* * * *", '"* * * *" has 4 fields', "five are needed: minute, hour, day of month, month, day of week"),
        ("* * * * * *", '"* * * * * *" has 6 fields: there are no seconds', "@every 10s"),
        ("", '"" has 0 fields', "e.g. 30 2 * * *"),
        ("0 0 30 2 *", '"0 0 30 2 *" never comes', "no month has such a day"),
        ("@dayly", '"@dayly" is no schedule', "did you mean @daily?"),
        ("@reboot", '"@reboot" is no schedule', "write @hourly"),
        ("@daily 5", '"@daily 5" is no schedule', "did you mean @daily?"),
        ("@every", '"@every ": "" is no duration', "@every 15m"),
        ("@every 500ms", '"500ms" is no duration', ""),
        ("@every 1m30", '"1m30" is no duration', ""),
        ("@every 0s", '"@every 0s" is out of range', "from 1s to 366d"),
        ("@every 367d", '"@every 367d" is out of range', ""),
    ],
)
def test_what_is_no_schedule_is_told_with_its_field(schedule: str, message: str, hint: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(schedule)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("", "IANA"),
        ("/etc/passwd", "IANA"),
        ("../zone", ""),
        ("zone.tab", ""),
    ],
)
def test_what_is_no_zone_is_told(zone: str, hint: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse("@daily", zone)
    assert caught.value.message == f'there is no time zone "{zone}"'
    assert hint in caught.value.hint
