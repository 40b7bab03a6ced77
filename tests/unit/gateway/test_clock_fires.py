"""The clock of a trigger: which rows it makes, over restarts, outages, and clocks that are moved."""

from __future__ import annotations

import logging

import pytest
from clock_doubles import Machine, MemoryQueue, at, clock
from fleetfn.errors import UsageError
from fleetfn_gateway.feeds import EARLY
from fleetfn_gateway.pulse import STEP
from fleetfn_gateway.sane_clock import BUILT, SETTLE

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
def machine() -> Machine:
    return Machine("2026-12-01 10:00:30")


async def test_each_instant_becomes_one_row(queue: MemoryQueue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, schedule="*/5 * * * *"), 960)
    assert queue.fires == ["2026-12-01 10:05:00", "2026-12-01 10:10:00", "2026-12-01 10:15:00"]
    first = queue.rows[1]
    assert first.event.id == "report/daily/2026-12-01T10:05:00Z"
    assert (first.function, first.trigger, first.key) == ("report", "daily", "cron:report/daily")


async def test_a_fire_tells_the_one_before_it(queue: MemoryQueue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, schedule="@every 1h", timezone="Europe/Berlin"), 2 * HOUR)
    assert queue.data(1)["previous"] is None
    assert queue.data(2)["previous"] == "2026-12-01T11:00:00Z"
    assert queue.data(2)["timezone"] == "Europe/Berlin"


async def test_rows_come_when_they_are_due_and_not_before(queue: MemoryQueue, machine: Machine) -> None:
    one = clock(queue, machine, schedule="@every 1h")
    await machine.run(one, at("2026-12-01 11:00:00") - machine.wall - 0.5)
    assert queue.fires == []
    assert one.next_fire == at("2026-12-01 11:00:00")
    await machine.run(clock(queue, machine, schedule="@every 1h"), 1)
    assert queue.fires == ["2026-12-01 11:00:00"]


async def test_a_worker_is_woken_a_little_before_each_row(queue: MemoryQueue, machine: Machine) -> None:
    until = at("2026-12-01 10:05:00") - EARLY - machine.wall
    await machine.run(clock(queue, machine, schedule="*/5 * * * *"), until - 0.01)
    assert queue.announced == []
    await machine.run(clock(queue, machine, schedule="*/5 * * * *"), 960 - until)
    assert queue.announced == [("report", "daily", rows) for rows in range(3)]


async def test_the_first_deploy_has_missed_nothing(queue: MemoryQueue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, schedule="0 3 * * *", missed="all"), HOUR)
    assert queue.fires == []


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("once", ["2026-12-04 03:00:00 +2"]),
        ("all", ["2026-12-02 03:00:00", "2026-12-03 03:00:00", "2026-12-04 03:00:00"]),
        ("skip", []),
    ],
)
async def test_what_was_missed_while_nothing_ran(
    queue: MemoryQueue, machine: Machine, missed: str, expected: list[str]
) -> None:
    await machine.run(clock(queue, machine, schedule="0 3 * * *", missed=missed), 60)
    machine.off(3 * DAY)
    await machine.run(clock(queue, machine, schedule="0 3 * * *", missed=missed), 60)
    assert queue.fires == expected
    await machine.run(clock(queue, machine, schedule="0 3 * * *", missed=missed), DAY)
    assert queue.fires == [*expected, "2026-12-05 03:00:00"]


async def test_a_short_restart_over_an_instant_is_no_miss(queue: MemoryQueue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, schedule="@every 1h", missed="skip"), HOUR - 60)
    machine.off(45)
    await machine.run(clock(queue, machine, schedule="@every 1h", missed="skip"), 10)
    assert queue.fires == ["2026-12-01 11:00:00"]


async def test_of_very_many_missed_the_latest_are_made(
    queue: MemoryQueue, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    await machine.run(clock(queue, machine, schedule="* * * * *", missed="all"), 10)
    machine.off(1500 * 60)
    await machine.run(clock(queue, machine, schedule="* * * * *", missed="all"), 5)
    assert len(queue.fires) == 1000
    assert queue.fires[-1] == "2026-12-02 11:00:00"
    assert "1500 instants have passed; missed: all makes 1000 of them fires" in caplog.text


async def test_a_year_of_seconds_is_counted_quickly(queue: MemoryQueue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, schedule="@every 1s"), 0)
    machine.off(365 * DAY)
    await machine.run(clock(queue, machine, schedule="@every 1s"), 0)
    assert queue.fires[-1].endswith(" +9999")


async def test_a_kill_between_two_steps_makes_no_fire_twice(queue: MemoryQueue, machine: Machine) -> None:
    for _ in range(6):
        await machine.run(clock(queue, machine, schedule="* * * * *"), 25)
    assert queue.fires == ["2026-12-01 10:01:00", "2026-12-01 10:02:00", "2026-12-01 10:03:00"]


async def test_another_schedule_begins_anew(queue: MemoryQueue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, schedule="0 3 * * *"), DAY)
    machine.off(3 * DAY)
    await machine.run(clock(queue, machine, schedule="0 4 * * *"), DAY)
    assert queue.fires == ["2026-12-02 03:00:00", "2026-12-06 04:00:00"]
    assert queue.data(2)["previous"] == "2026-12-02T03:00:00Z"


async def test_a_deleted_trigger_leaves_nothing(queue: MemoryQueue, machine: Machine) -> None:
    one = clock(queue, machine, schedule="@every 1m")
    await machine.run(one, 120)
    queue.notes["cron/report/daily-too/"] = b""
    await one.close(forget=True)
    assert list(queue.notes) == ["cron/report/daily-too/"]


class TestOverlap:
    @pytest.fixture(autouse=True)
    def rows_stay(self, queue: MemoryQueue) -> None:
        queue.by_itself = False

    async def test_a_fire_is_left_out_while_one_before_it_waits(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="* * * * *")
        await machine.run(one, 180)
        assert queue.fires == ["2026-12-01 10:01:00"]
        assert one.left_out == 2
        queue.done(1)
        await machine.run(clock(queue, machine, schedule="* * * * *"), 60)
        assert queue.fires == ["2026-12-01 10:01:00", "2026-12-01 10:04:00"]
        assert queue.data(2)["previous"] == "2026-12-01T10:01:00Z"

    async def test_it_is_left_out_after_a_restart_too(self, queue: MemoryQueue, machine: Machine) -> None:
        await machine.run(clock(queue, machine, schedule="* * * * *"), 60)
        await machine.run(clock(queue, machine, schedule="* * * * *"), 60)
        assert queue.fires == ["2026-12-01 10:01:00"]

    async def test_what_was_left_out_is_not_missed(self, queue: MemoryQueue, machine: Machine) -> None:
        await machine.run(clock(queue, machine, schedule="* * * * *"), 180)
        queue.done(1)
        await machine.run(clock(queue, machine, schedule="* * * * *"), 20)
        assert queue.fires == ["2026-12-01 10:01:00"]

    async def test_or_it_waits(self, queue: MemoryQueue, machine: Machine) -> None:
        await machine.run(clock(queue, machine, schedule="* * * * *", overlap="queue"), 180)
        assert len(queue.fires) == 3

    async def test_one_for_each_missed_is_not_left_out(self, queue: MemoryQueue, machine: Machine) -> None:
        await machine.run(clock(queue, machine, schedule="0 3 * * *", missed="all"), 1)
        machine.off(3 * DAY)
        await machine.run(clock(queue, machine, schedule="0 3 * * *", missed="all"), 1)
        assert len(queue.fires) == 3

    async def test_a_fire_by_hand_is_never_left_out(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="* * * * *")
        await machine.run(one, 60)
        await one.fire()
        await one.fire()
        assert len(queue.rows) == 3


class TestByHand:
    async def test_a_fire_is_for_now_or_for_an_instant(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="0 3 * * *")
        fired = await one.fire()
        again = await one.fire(at("2026-11-30 03:00:00"))
        assert (fired.sequence, fired.at) == (1, at("2026-12-01 10:00:30"))
        assert queue.fires == ["2026-12-01 10:00:30", "2026-11-30 03:00:00"]
        assert again.id.startswith("report/daily/2026-11-30T03:00:00Z/")
        assert queue.rows[2].event.id == again.id

    @pytest.mark.parametrize("number", [1e30, -1e30, float("nan"), float("inf")])
    async def test_what_is_no_time_is_refused(self, queue: MemoryQueue, machine: Machine, number: float) -> None:
        with pytest.raises(UsageError, match="is no time"):
            await clock(queue, machine, schedule="0 3 * * *").fire(number)
        assert queue.rows == {}

    async def test_an_instant_that_fired_may_be_fired_again(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="0 3 * * *")
        await machine.run(one, DAY)
        await one.fire(at("2026-12-02 03:00:00"))
        assert queue.fires == ["2026-12-02 03:00:00"] * 2

    async def test_the_schedule_goes_on_as_if_nothing_were(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="0 3 * * *")
        await one.fire(at("2026-12-02 03:00:00"))
        await machine.run(clock(queue, machine, schedule="0 3 * * *"), DAY)
        assert queue.fires == ["2026-12-02 03:00:00"] * 2
        assert queue.data(2)["previous"] is None


class TestAClockThatIsMoved:
    async def test_forward_the_instants_between_are_missed(self, queue: MemoryQueue, machine: Machine) -> None:
        await machine.run(clock(queue, machine, schedule="0 * * * *"), 60)
        one = clock(queue, machine, schedule="0 * * * *")
        await machine.run(one, 4)
        machine.wall += 3 * HOUR
        await machine.run(one, 4)
        assert "the clock was moved by +10800 s" in one.problem
        assert queue.fires == []
        await machine.run(one, SETTLE)
        assert one.problem == ""
        assert queue.fires == ["2026-12-01 13:00:00 +2"]

    async def test_there_and_back_again_nothing_happens(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="0 * * * *")
        await machine.run(one, 4)
        machine.wall += 30 * DAY
        await machine.run(one, SETTLE - 4)
        machine.wall -= 30 * DAY
        await machine.run(one, 60)
        assert queue.fires == []

    async def test_backward_no_instant_comes_twice(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="* * * * *")
        await machine.run(one, 5 * 60)
        machine.wall -= 3 * 60
        await machine.run(one, 60)
        assert "2026-12-01 10:05:" in one.problem
        await machine.run(one, 4 * 60)
        assert queue.fires == [f"2026-12-01 10:0{minute}:00" for minute in range(1, 8)]
        assert one.problem == ""

    async def test_a_little_backward_is_no_problem(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="* * * * *")
        await machine.run(one, 31)
        machine.wall -= 4
        await machine.run(one, 60)
        assert one.problem == ""
        assert queue.fires == ["2026-12-01 10:01:00"]

    async def test_a_box_that_boots_in_1970_waits_for_the_time(self, queue: MemoryQueue) -> None:
        machine = Machine("1970-01-01 00:00:10")
        one = clock(queue, machine, schedule="* * * * *", missed="all")
        await machine.run(one, 300)
        assert one.problem == "the clock says 1970-01-01 00:05:10 UTC, which is before FleetFn was built: set it"
        assert (queue.rows, queue.notes, one.next_fire) == ({}, {}, None)
        machine.wall = at("2026-12-01 10:00:30")
        await machine.run(one, SETTLE + 60)
        assert queue.fires == ["2026-12-01 10:01:00"]

    async def test_a_box_that_lost_its_time_while_it_was_off_waits(self, queue: MemoryQueue, machine: Machine) -> None:
        await machine.run(clock(queue, machine, schedule="0 11 * * *"), 2 * HOUR)
        machine.wall = BUILT + 60
        one = clock(queue, machine, schedule="0 11 * * *")
        await machine.run(one, HOUR)
        assert "2026-12-01 11:00:00 UTC has been already" in one.problem
        machine.wall = at("2026-12-03 12:00:00")
        await machine.run(one, 60)
        assert queue.fires == ["2026-12-01 11:00:00", "2026-12-03 11:00:00 +1"]

    async def test_another_schedule_leaves_a_future_that_never_was(self, queue: MemoryQueue, machine: Machine) -> None:
        machine.wall += 1000 * DAY
        await machine.run(clock(queue, machine, schedule="0 * * * *"), 2 * HOUR)
        machine.wall -= 1000 * DAY
        one = clock(queue, machine, schedule="5 * * * *")
        await machine.run(one, HOUR)
        assert one.problem == ""
        assert queue.fires[-1] == "2026-12-01 12:05:00"
        assert queue.data(len(queue.rows))["previous"] is None

    async def test_a_suspended_machine_notices_within_seconds(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="0 * * * *")
        await machine.run(one, 10)
        machine.wall += 5 * HOUR  # and the even clock stood still
        await machine.run(one, SETTLE + 2 * STEP)
        assert queue.fires == ["2026-12-01 15:00:00 +4"]


class TestAnInboxThatTakesNothing:
    async def test_fires_wait_and_then_come_by_the_policy(self, queue: MemoryQueue, machine: Machine) -> None:
        one = clock(queue, machine, schedule="* * * * *")
        await machine.run(one, 60)
        queue.refuses = True
        await machine.run(one, 180)
        assert one.problem == "the inbox takes no fire since 2026-12-01 10:02:00 UTC: the disk is full"
        queue.refuses = False
        await machine.run(one, 20)
        assert one.problem == ""
        assert queue.fires == ["2026-12-01 10:01:00", "2026-12-01 10:04:00 +2"]

    async def test_a_fire_by_hand_says_so(self, queue: MemoryQueue, machine: Machine) -> None:
        queue.refuses = True
        with pytest.raises(Exception, match="the disk is full"):
            await clock(queue, machine, schedule="@daily").fire()


async def test_a_clock_that_fails_says_so_and_goes_on(queue: MemoryQueue, machine: Machine) -> None:
    one = clock(queue, machine, schedule="* * * * *")
    await machine.run(one, 10)
    now, machine.wall = machine.wall, 1e18
    await machine.run(one, 30)
    assert one.problem.startswith("the clock failed: ")
    machine.wall = now
    await machine.run(one, 90)
    assert one.problem == ""
    assert queue.fires == ["2026-12-01 10:01:00", "2026-12-01 10:02:00"]


async def test_notes_that_cannot_be_read_begin_anew(
    queue: MemoryQueue, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    queue.notes["cron/report/daily/"] = b"{"
    with caplog.at_level(logging.WARNING):
        await machine.run(clock(queue, machine, schedule="* * * * *"), 60)
    assert queue.fires == ["2026-12-01 10:01:00"]
    assert "what the clock noted cannot be read, it begins anew" in caplog.text
