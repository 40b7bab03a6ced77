"""The side of the queue that delivers: which rows may be taken, in which order, and when again."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from fleetfn.event import Event
from fleetfn.position import At
from fleetfn_gateway import queue_rows
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.queue_heads import LANE, LANE_BYTES, Heads
from fleetfn_gateway.queue_names import Names
from fleetfn_gateway.queue_schema import DEAD, PARKED
from fleetfn_triggers.inbox import Arrival, Letter, Offer, Row, Which

T = ("t",)
MUCH = 1 << 30


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def queue(tmp_path: Path, clock: Clock) -> AsyncIterator[Queue]:
    queue = await Queue.open(tmp_path / "inbox.db", quota=MUCH, clock=clock)
    yield queue
    await queue.close()


def event(data: bytes = b"x") -> Event[bytes | None]:
    return Event(id="1", source="s", type="t", data=data)


def arrival(key: str | None, trigger: str = "t", data: bytes = b"x") -> Arrival:
    return Arrival(function="f", trigger=trigger, key=key, event=event(data))


def later(key: str, due: float, trigger: str = "t") -> Offer:
    """The inbox has not seen it before."""
    place = At("kafka:x:", 0, 1)
    return Offer(function="f", trigger=trigger, key=key, event=event(), position=place, attempts=1, due=due)


def back(row: Row, due: float | None) -> Offer:
    return Offer(
        function="f",
        trigger=row.trigger,
        key=row.key,
        event=row.event,
        position=row.position,
        attempts=1,
        due=due,
    )


def letter(row: Row, *, park: bool = False) -> Letter:
    return Letter(
        function="f",
        trigger=row.trigger,
        key=row.key,
        event=row.event,
        position=row.position,
        attempts=5,
        revision="r",
        reason="attempts",
        detail="",
        failure=None,
        created=1000.0,
        park=park,
    )


async def take(
    queue: Queue, rows: int = 100, triggers: tuple[str, ...] = T, size: int = MUCH, behind: int = 0
) -> list[int]:
    return [row.sequence for row in await queue.take("f", triggers, rows, size, behind)]


async def test_heads_of_lanes_are_taken_and_no_row_twice(queue: Queue) -> None:
    await queue.put([arrival(key) for key in ("a", "a", "b", None, None)])
    assert queue.ready("f", T) == 4
    assert await take(queue) == [1, 3, 4, 5]
    assert queue.ready("f", T) == 0
    assert await take(queue) == []
    await queue.done([1, 4])
    assert await take(queue) == [2]


async def test_a_row_is_gone_once_it_is_done(queue: Queue) -> None:
    await queue.put([arrival("a")])
    await queue.done(await take(queue))
    assert await queue.get(1) is None
    assert queue.counts() == {}


async def test_what_is_released_is_taken_again(queue: Queue) -> None:
    await queue.put([arrival("a"), arrival("b")])
    await take(queue)
    queue.release(1)
    assert await take(queue) == [1]


async def test_what_is_put_off_is_taken_after_its_time(queue: Queue, clock: Clock) -> None:
    await queue.put([arrival("a"), arrival("a")])
    await take(queue)
    queue.release(1, after=5.0)
    assert (queue.ready("f", T), queue.next_due("f", T)) == (0, 5.0)
    clock.now += 4.0
    assert (await take(queue), queue.next_due("f", T)) == ([], 1.0)
    clock.now += 1.0
    assert await take(queue) == [1]


async def test_a_clock_that_is_put_back_puts_nothing_off_for_longer(queue: Queue, clock: Clock) -> None:
    await queue.put([arrival("a")])
    await take(queue)
    queue.release(1, after=5.0)
    clock.now -= 3600.0
    assert await take(queue) == [1]
    await queue.put([arrival("b")])
    clock.now -= 3600.0
    assert await take(queue) == [2]


async def test_a_row_that_is_due_later_holds_its_lane_alone(queue: Queue, clock: Clock) -> None:
    await queue.offer([later("a", 1010.0)])
    await queue.put([arrival("a"), arrival("b")])
    assert await take(queue) == [3]
    assert queue.next_due("f", T) == 10.0
    clock.now = 1010.0
    assert queue.ready("f", T) == 1
    assert await take(queue) == [1]
    await queue.done([1])
    assert await take(queue) == [2]


async def test_what_is_offered_back_waits_for_its_time(queue: Queue, clock: Clock) -> None:
    await queue.put([arrival("a"), arrival("a")])
    (row,) = await queue.take("f", T, 1, MUCH)
    await queue.offer([back(row, 1010.0)])
    assert await take(queue) == []
    queue.release(row.sequence)
    assert await take(queue) == []
    clock.now = 1010.0
    (again,) = await queue.take("f", T, 1, MUCH)
    assert (again.sequence, again.attempts) == (row.sequence, 1)


async def test_the_oldest_is_first_whether_it_came_or_is_due(queue: Queue, clock: Clock) -> None:
    await queue.offer([later("a", 1003.0)])
    clock.now = 1002.0
    await queue.put([arrival("b")])
    clock.now = 1004.0
    await queue.put([arrival("c")])
    clock.now = 1005.0
    assert [await take(queue, 1) for _ in range(3)] == [[2], [1], [3]]


async def test_triggers_take_turns(queue: Queue) -> None:
    await queue.put([arrival(None) for _ in range(50)])
    await queue.put([arrival(None, trigger="u") for _ in range(3)])
    rows = await queue.take("f", ("t", "u"), 6, MUCH)
    assert sorted(row.trigger for row in rows) == ["t", "t", "t", "u", "u", "u"]


async def test_each_trigger_comes_first_some_time(queue: Queue) -> None:
    await queue.put([arrival(None, trigger=name) for name in "tu" for _ in range(4)])
    rows = [row for _ in range(4) for row in await queue.take("f", ("t", "u"), 1, MUCH)]
    assert {row.trigger for row in rows} == {"t", "u"}


async def test_a_paused_trigger_is_not_asked_for(queue: Queue) -> None:
    await queue.put([arrival("a")])
    await queue.offer([later("b", 1010.0, trigger="u")])
    assert (queue.ready("f", ("u",)), queue.next_due("f", ("u",))) == (0, 10.0)
    assert (queue.ready("f", ()), queue.ready("f", ("unknown",)), queue.ready("other", T)) == (0, 0, 0)
    assert await queue.take("other", T, 10, MUCH) == []


async def test_events_are_taken_up_to_a_size_but_always_one(queue: Queue) -> None:
    await queue.put([arrival(None, data=b"x" * 1000) for _ in range(10)])
    assert len(await take(queue, size=3500)) == 3
    assert len(await take(queue, size=1)) == 1


async def test_a_dead_row_lets_its_lane_go_on_once_the_worker_has_told(queue: Queue) -> None:
    await queue.put([arrival("a"), arrival("a")])
    (row,) = await queue.take("f", T, 1, MUCH)
    await queue.bury([letter(row)])
    assert queue.ready("f", T) == 0
    assert await take(queue) == []
    queue.release(row.sequence)
    assert await take(queue) == [2]


async def test_a_parked_lane_waits_until_its_letter_is_discarded(queue: Queue) -> None:
    await queue.put([arrival("a"), arrival("a"), arrival("b")])
    (row,) = await queue.take("f", T, 1, MUCH)
    await queue.bury([letter(row, park=True)])
    queue.release(row.sequence)
    assert await take(queue) == [3]
    assert queue.counts()["f"]["t"].held == 1
    await queue.discard(Which(key="a"))
    assert await take(queue) == [2]


async def test_a_parked_letter_is_redriven_before_what_waits_behind_it(queue: Queue) -> None:
    await queue.put([arrival("a"), arrival("a")])
    (row,) = await queue.take("f", T, 1, MUCH)
    await queue.bury([letter(row, park=True)])
    queue.release(row.sequence)
    assert await queue.redrive(Which()) == 1
    assert await queue.take("f", T, 10, MUCH) == [row]
    await queue.done([row.sequence])
    assert await take(queue) == [2]


async def test_any_other_letter_is_redriven_behind_what_waits(queue: Queue) -> None:
    await queue.put([arrival("a"), arrival("a")])
    (row,) = await queue.take("f", T, 1, MUCH)
    await queue.bury([letter(row)])
    queue.release(row.sequence)
    assert await queue.redrive(Which()) == 1
    assert await take(queue) == [2]
    await queue.done([2])
    (again,) = await queue.take("f", T, 10, MUCH)
    assert (again.sequence, again.position) == (3, At(f"inbox:{queue.file}", 0, 3))


async def test_after_a_restart_nothing_is_in_flight(tmp_path: Path, queue: Queue, clock: Clock) -> None:
    await queue.put([arrival("a"), arrival("a"), arrival(None)])
    assert await take(queue) == [1, 3]
    await queue.close()
    queue = await Queue.open(tmp_path / "inbox.db", quota=MUCH, clock=clock)
    assert queue.counts()["f"]["t"].in_flight == 0
    assert await take(queue) == [1, 3]
    await queue.close()


async def test_a_row_that_cannot_be_read_keeps_no_other(
    queue: Queue, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.put([arrival("a"), arrival("b"), arrival("c")])
    queue._file.writer.execute("UPDATE body SET event = x'c1' WHERE sequence = 2")
    assert await take(queue) == [1, 3]
    assert "row 2 of the inbox cannot be read" in caplog.text
    assert queue.ready("f", T) == 0
    clock.now += 60.0
    assert queue.ready("f", T) == 1


# Rows behind heads


async def test_rows_that_are_next_in_their_lanes_come_behind_their_heads(queue: Queue) -> None:
    await queue.put([arrival(key) for key in "aaabbc"])
    assert await take(queue, behind=30) == [1, 2, 3, 4, 5, 6]
    assert await take(queue, behind=30) == []
    await queue.done([1, 4])
    assert await take(queue, behind=30) == []  # of their lanes others are in flight
    await queue.done([2, 3])
    await queue.put([arrival("a")])
    assert await take(queue) == [7]


async def test_heads_share_how_many_may_come_behind_them(queue: Queue) -> None:
    await queue.put([arrival(key) for key in "aaabbbccc"])
    assert await take(queue, behind=5) == [1, 2, 4, 5, 7, 8]


async def test_no_lane_gives_more_than_runs_in_a_row(queue: Queue) -> None:
    await queue.put([arrival("a") for _ in range(2 * LANE)])
    assert await take(queue, behind=1000) == list(range(1, LANE + 1))


async def test_what_is_released_behind_its_head_waits_for_it(queue: Queue) -> None:
    await queue.put([arrival("a") for _ in range(3)])
    assert await take(queue, behind=2) == [1, 2, 3]
    queue.release(2)
    queue.release(3)
    assert await take(queue, behind=2) == []
    queue.release(1)
    assert await take(queue, behind=1) == [1, 2]


async def test_nothing_comes_behind_a_row_that_has_to_wait(queue: Queue, clock: Clock) -> None:
    await queue.put([arrival("a"), arrival("a")])
    assert await take(queue, behind=1) == [1, 2]
    await queue.offer([later("a", clock.now + 5.0)])
    await queue.put([arrival("a")])
    queue.release(1)
    queue.release(2)
    assert await take(queue, behind=3) == [1, 2]  # and not 4, which is behind 3
    queue.release(1)
    queue.release(2)
    clock.now += 5.0
    assert await take(queue, behind=3) == [1, 2, 3, 4]


async def test_nothing_comes_behind_a_row_that_cannot_be_read(queue: Queue) -> None:
    await queue.put([arrival("a"), arrival("a"), arrival("a"), arrival("b"), arrival(None), arrival(None)])
    queue._file.writer.execute("UPDATE body SET event = x'c1' WHERE sequence IN (2, 5)")
    assert await take(queue, behind=10) == [1, 4, 6]
    queue.release(1)
    assert await take(queue, behind=10) == [1]


async def test_no_row_comes_past_one_whose_event_is_not_in_the_file(queue: Queue) -> None:
    await queue.put([arrival("a"), arrival("a"), arrival("a")])
    queue._file.writer.execute("DELETE FROM body WHERE sequence = 2")
    assert await take(queue, behind=10) == [1]


@pytest.mark.parametrize("state", [DEAD, PARKED], ids=["buried", "parked"])
async def test_a_row_that_dies_while_its_lane_is_taken_stays_with_what_is_behind_it(
    queue: Queue, state: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.put([arrival("a"), arrival("a"), arrival("a"), arrival("b")])
    read = queue_rows.read_each

    def read_later(*args: Any) -> Any:  # by then, a worker that was lost sight of has buried it
        queue._file.writer.execute("UPDATE row SET state = ? WHERE sequence = 2", (state,))
        return read(*args)

    monkeypatch.setattr(queue_rows, "read_each", read_later)
    assert await take(queue, behind=10) == [1, 4]
    await queue.done([1])
    assert await take(queue, behind=10) == ([3] if state == DEAD else [])


async def test_rows_behind_a_head_are_bounded_in_bytes(queue: Queue) -> None:
    half = bytes(LANE_BYTES // 2)
    await queue.put([arrival("a", data=half) for _ in range(4)])
    assert await take(queue, behind=10) == [1, 2]  # an event is some bytes more than its data


# News


@pytest.fixture
def told(queue: Queue) -> list[str]:
    told: list[str] = []
    queue.on_ready = told.append
    return told


async def test_whatever_may_make_a_lane_ready_is_told(queue: Queue, told: list[str]) -> None:
    async def after(work: Awaitable[object]) -> list[str]:
        await work
        news = list(told)
        told.clear()
        return news

    assert await after(queue.put([arrival("a"), arrival("a")])) == ["f"]
    (row,) = await queue.take("f", T, 1, MUCH)
    assert await after(queue.offer([back(row, None)])) == ["f"]
    assert await after(queue.bury([letter(row, park=True)])) == ["f"]
    queue.release(row.sequence)
    assert told == ["f"]
    told.clear()
    assert await after(queue.redrive(Which())) == ["f"]
    (row,) = await queue.take("f", T, 1, MUCH)
    assert await after(queue.done([row.sequence])) == ["f"]
    (row,) = await queue.take("f", T, 1, MUCH)
    assert await after(queue.bury([letter(row, park=True)])) == ["f"]
    assert await after(queue.discard(Which())) == ["f"]


async def test_a_caller_that_is_gone_takes_no_news_with_it(queue: Queue, told: list[str]) -> None:
    putting = asyncio.ensure_future(queue.put([arrival("a")]))
    await asyncio.sleep(0)
    putting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await putting
    await queue.put([arrival("b")])  # of a later commit
    assert told == ["f", "f"]
    assert await take(queue) == [1, 2]
    finishing = asyncio.ensure_future(queue.done([1, 2]))
    await asyncio.sleep(0)
    finishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await finishing
    await queue.put([arrival("a")])
    assert queue.counts()["f"]["t"].in_flight == 0
    assert await take(queue) == [3]


async def test_rows_that_could_not_be_read_just_now_are_taken_another_time(
    queue: Queue, tmp_path: Path, clock: Clock
) -> None:
    await queue.put([arrival("a"), arrival("b")])
    with contextlib.closing(sqlite3.connect(tmp_path / "inbox.db")) as reader:
        heads = Heads(reader, Names(reader), clock)
        reader.set_authorizer(_deny_letters)
        with pytest.raises(sqlite3.DatabaseError):
            heads.take([1], 10, MUCH)
        reader.set_authorizer(None)
        assert [row.sequence for row in heads.take([1], 10, MUCH)] == [1, 2]


def _deny_letters(_: int, table: str | None, column: str | None, *__: object) -> int:
    """Whole rows alone have them."""
    return sqlite3.SQLITE_DENY if (table, column) == ("row", "letter") else sqlite3.SQLITE_OK
