"""The clock on the gateway's own queue: what is durable together, and what a next process finds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from clock_doubles import Machine, clock
from fleetfn_gateway.queue import Queue
from fleetfn_triggers.inbox import Letter, Row, Which

MINUTE = 60.0
EVERY = {"schedule": "@every 1m"}


@pytest.fixture
def machine() -> Machine:
    return Machine("2026-12-01 10:00:30")


@pytest.fixture
async def queue(tmp_path: Path, machine: Machine) -> AsyncIterator[Queue]:
    opened = await Queue.open(tmp_path / "inbox.db", quota=10**8, clock=machine.now)
    yield opened
    await opened.close()


async def taken(queue: Queue) -> Sequence[Row]:
    return await queue.take("report", ["daily"], 100, 10**7)


def instants(rows: Sequence[Row]) -> list[str]:
    return [row.event.id.rpartition("T")[2] for row in rows]


async def test_a_fire_is_a_row_and_the_next_waits_behind_it(queue: Queue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, **EVERY, overlap="queue"), 3 * MINUTE)
    first = await taken(queue)
    assert instants(first) == ["10:01:00Z"]
    assert await taken(queue) == []
    await queue.done([first[0].sequence])
    assert instants(await taken(queue)) == ["10:02:00Z"]
    assert queue.counts()["report"]["daily"].waiting == 2


async def test_a_fire_under_way_has_the_next_left_out(queue: Queue, machine: Machine) -> None:
    one = clock(queue, machine, **EVERY)
    await machine.run(one, MINUTE)
    (row,) = await taken(queue)
    await machine.run(one, MINUTE)
    assert one.left_out == 1
    await queue.done([row.sequence])
    await machine.run(one, MINUTE)
    assert instants(await taken(queue)) == ["10:03:00Z"]


async def test_a_dead_fire_holds_up_nothing(queue: Queue, machine: Machine) -> None:
    one = clock(queue, machine, **EVERY)
    await machine.run(one, MINUTE)
    (row,) = await taken(queue)
    await queue.bury([letter(row)])
    queue.release(row.sequence)
    await machine.run(one, MINUTE)
    assert instants(await taken(queue)) == ["10:02:00Z"]


async def test_a_dead_fire_is_redriven_as_it_was(queue: Queue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, **EVERY), MINUTE)
    (row,) = await taken(queue)
    await queue.bury([letter(row)])
    queue.release(row.sequence)
    assert await queue.redrive(Which(function="report")) == 1
    (again,) = await taken(queue)
    assert again.event == row.event


async def test_the_next_process_goes_on_where_this_one_ended(tmp_path: Path, queue: Queue, machine: Machine) -> None:
    await machine.run(clock(queue, machine, **EVERY), 2 * MINUTE)
    await queue.close()
    machine.off(3 * MINUTE)
    again = await Queue.open(tmp_path / "inbox.db", quota=10**8, clock=machine.now)
    one = clock(again, machine, **EVERY)
    await machine.run(one, 1)
    assert one.last_fire is not None
    assert one.left_out == 1  # the first fire has not been taken yet
    (row,) = await again.take("report", ["daily"], 100, 10**7)
    assert row.event.id.endswith("10:01:00Z")
    await again.close()


async def test_a_full_inbox_takes_no_fire_and_the_clock_says_so(tmp_path: Path, machine: Machine) -> None:
    queue = await Queue.open(tmp_path / "small.db", quota=1, clock=machine.now)
    one = clock(queue, machine, **EVERY)
    await machine.run(one, 2 * MINUTE)
    assert one.problem.startswith("the inbox takes no fire since 2026-12-01 10:01:00 UTC: ")
    assert queue.counts() == {}
    await queue.close()


async def test_a_deleted_trigger_has_no_note(queue: Queue, machine: Machine) -> None:
    one = clock(queue, machine, **EVERY)
    await machine.run(one, MINUTE)
    await one.close(forget=True)
    assert queue.note("cron/report/daily/") is None


def letter(row: Row) -> Letter:
    fields: dict[str, Any] = {name: getattr(row, name) for name in ("function", "trigger", "key", "event", "position")}
    return Letter(**fields, attempts=5, revision="r1", reason="attempts", detail="", failure=None, created=0.0)
