"""Tick: what a handler of a clock is told, and how its tests make one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import msgspec
import pytest
from fleetfn import Context, Event, Tick, testing

AT = datetime(2026, 3, 29, 1, tzinfo=UTC)


def test_local_is_the_instant_by_the_triggers_clock() -> None:
    tick = Tick(at=datetime(2026, 3, 28, 23, 30, tzinfo=UTC), timezone="Europe/Berlin")
    assert tick.local.isoformat() == "2026-03-29T00:30:00+01:00"
    assert tick.local.date() == date(2026, 3, 29)


def test_times_become_utc() -> None:
    tick = Tick(at=datetime(2026, 3, 29, 3, tzinfo=timezone(timedelta(hours=2))), previous=AT)
    assert tick == Tick(at=AT, previous=AT)
    assert tick.at.tzinfo is UTC


@pytest.mark.parametrize("field", ["at", "previous"])
def test_a_time_without_a_zone_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} = 2026-03-29T01:00:00 has no time zone"):
        Tick(**{"at": AT, field: datetime(2026, 3, 29, 1)})  # type: ignore[arg-type]  # noqa: DTZ001 - the point


def test_it_is_read_back_as_it_was_written() -> None:
    tick = Tick(at=AT, previous=AT - timedelta(days=1), missed=3, timezone="Europe/Berlin")
    assert msgspec.json.decode(msgspec.json.encode(tick), type=Tick) == tick


def test_a_handler_of_a_clock_runs_in_a_test_with_a_tick() -> None:
    def nightly(tick: Tick, ctx: Context) -> str:
        return f"{tick.at:%d %H:%M} {tick.missed} {ctx.trigger}"

    run = testing.Function(nightly, trigger="daily")
    assert run(Tick(at=AT, missed=2)).returned == "29 01:00 2 daily"


def test_the_event_of_a_tick_has_its_time() -> None:
    def nightly(event: Event[Tick]) -> tuple[datetime | None, datetime]:
        return event.time, event.data.at

    assert testing.Function(nightly)(Tick(at=AT)).returned == (AT, AT)


def test_a_handler_of_a_clock_may_take_nothing() -> None:
    def nightly() -> str:
        return "ran"

    assert testing.Function(nightly)(Tick(at=AT)).returned == "ran"
