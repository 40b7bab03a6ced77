"""What the queue tells of its rows, and what becomes of a deleted function, old letters and notes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetfn.event import Event
from fleetfn.position import At
from fleetfn_gateway import queue_letters
from fleetfn_gateway.queue import Queue
from fleetfn_spec.gateway import TriggerRows
from fleetfn_triggers.inbox import REMEMBER, Arrival, Letter, Offer, Which

MUCH = 1 << 30
STREAM = "kafka:topic:id"
EVENT: Event[bytes | None] = Event(id="1", source="s", type="t", data=b"x")


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


def arrival(key: str | None = None, **fields: Any) -> Arrival:
    return Arrival(**{"function": "f", "trigger": "t", "key": key, "event": EVENT, **fields})


def offer(offset: int, key: str | None, due: float | None, **fields: Any) -> Offer:
    given = {"function": "f", "trigger": "k", "event": EVENT, "attempts": 1, "position": At(STREAM, 0, offset)}
    return Offer(**{**given, "key": key, "due": due, **fields})


def letter(offset: int, key: str = "a", **fields: Any) -> Letter:
    given = {
        "function": "f",
        "trigger": "k",
        "key": key,
        "event": EVENT,
        "position": At(STREAM, 0, offset),
        "attempts": 5,
        "revision": "r",
        "reason": "attempts",
        "detail": "",
        "failure": None,
        "created": 1000.0,
    }
    return Letter(**{**given, **fields})


async def fill(queue: Queue, clock: Clock) -> None:
    await queue.put([arrival("a"), arrival("a"), arrival(None, function="g")])
    clock.now = 1001.0
    await queue.offer([offer(1, "a", 2000.0), offer(2, "a", None), offer(3, "b", 1500.0), offer(4, "c", 1000.5)])
    await queue.bury([letter(5, "d", park=True), letter(6, "d"), letter(7, "e")])
    clock.now = 1002.0
    await queue.offer([offer(8, "d", None), offer(9, "d", None)])


EXPECTED = {
    "f": {
        "t": TriggerRows(waiting=2, held=0, in_flight=1, dead=0, oldest=1000.0),
        "k": TriggerRows(waiting=6, held=3, parked=1, in_flight=0, dead=3, oldest=1001.0, next_due=1500.0),
    },
    "g": {"t": TriggerRows(waiting=1, oldest=1000.0)},
}


async def test_rows_are_counted_by_function_and_trigger(queue: Queue, clock: Clock) -> None:
    await fill(queue, clock)
    await queue.take("f", ["t"], 10, MUCH)
    assert queue.counts() == EXPECTED


async def test_the_counts_are_the_same_after_a_restart(tmp_path: Path, queue: Queue, clock: Clock) -> None:
    await fill(queue, clock)
    before = queue.counts()
    await queue.close()
    queue = await Queue.open(tmp_path / "inbox.db", quota=MUCH, clock=clock)
    assert queue.counts() == before
    await queue.close()


async def test_held_and_parked_are_keys(queue: Queue) -> None:
    later = [(None, 2000.0), ("a", 2000.0), ("a", 3000.0)]
    await queue.offer([offer(n, key, due, trigger="t") for n, (key, due) in enumerate(later)])
    await queue.bury([letter(1, "b", park=True), letter(2, "b", park=True), letter(3, "c", park=True)])
    counts = queue.counts()["f"]
    assert (counts["t"].held, counts["t"].parked) == (1, 0)
    assert (counts["k"].held, counts["k"].parked) == (2, 2)


async def test_the_oldest_may_wait_behind_a_letter(queue: Queue, clock: Clock) -> None:
    await queue.bury([letter(1, park=True)])
    await queue.offer([offer(2, "a", None)])
    clock.now = 1005.0
    await queue.offer([offer(3, "b", 2000.0)])
    assert queue.counts()["f"]["k"].oldest == 1000.0


# Deleting


async def test_a_deleted_function_leaves_nothing(queue: Queue, clock: Clock) -> None:
    await fill(queue, clock)
    await queue.put([arrival("a", source="1", problem="no")])
    await queue.take("f", ["t", "k"], 10, MUCH)
    await queue.drop("f")
    assert queue.counts() == {"g": EXPECTED["g"]}
    assert await queue.count(Which(function="f")) == 0
    (sequence,) = await queue.put([arrival("a", source="1")])
    assert [row.sequence for row in await queue.take("f", ["t"], 10, MUCH)] == [sequence]
    assert await queue.offer([offer(1, "a", None), offer(5, "d", None)]) == ["free", "free"]


async def test_more_rows_than_one_step_takes_are_dropped_redriven_and_discarded(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_letters, "STEP", 3)
    await queue.bury([letter(n, f"k{n}") for n in range(10)])
    assert await queue.redrive(Which(), limit=7) == 7
    assert queue.counts()["f"]["k"].waiting == 7
    assert await queue.discard(Which()) == 3
    await queue.bury([letter(n, f"k{n}") for n in range(20, 30)])
    await queue.drop("f")
    assert queue.counts() == {}


async def test_what_is_redriven_and_dies_meanwhile_is_not_redriven_twice(queue: Queue) -> None:
    await queue.bury([letter(n, park=True) for n in range(3)])
    assert await queue.redrive(Which()) == 3
    rows = await queue.take("f", ["k"], 10, MUCH)
    assert [row.position for row in rows] == [At(STREAM, 0, 0)]


# Retention


async def test_old_letters_expire_but_for_those_that_park(queue: Queue, clock: Clock) -> None:
    await queue.bury([letter(1, created=900.0), letter(2, created=950.0), letter(3, "p", created=900.0, park=True)])
    await queue.put([arrival("a")])
    clock.now = 1000.0
    assert await queue.expire(50.0) == 1
    assert [row.created for row in (await queue.dead(Which())).rows] == [950.0, 900.0]
    assert await queue.expire(50.0) == 0


async def test_letters_from_before_the_clock_was_set_are_kept_from_then_on(queue: Queue, clock: Clock) -> None:
    """A machine without a battery begins in 1970, until it hears the time."""
    await queue.bury([letter(1, created=clock.now)])
    clock.now = queue_letters.CREDIBLE + 1000.0
    assert await queue.expire(50.0) == 0
    clock.now += 49.0
    assert await queue.expire(50.0) == 0
    clock.now += 2.0
    assert await queue.expire(50.0) == 1


async def test_what_is_remembered_is_forgotten_in_the_end(queue: Queue, clock: Clock) -> None:
    await queue.put([arrival("a", source=str(n), problem="no") for n in range(5)])
    await queue.bury([letter(n) for n in range(5)])
    await queue.discard(Which())
    assert _remembered(queue) == (5, 5)
    await queue.passed("f", "k", STREAM, {0: 3})
    clock.now += 2.0
    await queue.put([arrival("b")])
    assert _remembered(queue) == (2, 5)
    clock.now += REMEMBER
    await queue.put([arrival("b")])
    assert _remembered(queue) == (2, 0)


def _remembered(queue: Queue) -> tuple[int, int]:
    query = "SELECT (SELECT count(*) FROM past), (SELECT count(*) FROM past_source)"
    places, sources = queue._reader.execute(query).fetchone()
    return places, sources


async def test_a_page_of_large_letters_is_shorter(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_letters, "PAGE_BYTES", 25_000)
    large: Event[bytes | None] = Event(id="1", source="s", type="t", data=b"x" * 10_000)
    await queue.bury([letter(n, event=large) for n in range(5)])
    pages = [await queue.dead(Which())]
    while pages[-1].after is not None:
        pages.append(await queue.dead(Which(), after=pages[-1].after))
    assert [[row.sequence for row in page.rows] for page in pages] == [[1, 2], [3, 4], [5]]


# Notes


async def test_notes_are_kept_over_a_restart(tmp_path: Path, queue: Queue) -> None:
    assert queue.note("a") is None
    assert await queue.put([arrival("a")], notes={"mqtt/f/t/1": b"1", "mqtt/f/t/2": b""}) == [1]
    await queue.put([], notes={"mqtt/f/t/1": b"new", "mqtt/f/tt": b"x"})
    await queue.close()
    queue = await Queue.open(tmp_path / "inbox.db", quota=MUCH)
    assert [queue.note(name) for name in ("mqtt/f/t/1", "mqtt/f/t/2", "mqtt/f/tt")] == [b"new", b"", b"x"]
    await queue.forget("mqtt/f/t/")
    assert [queue.note(name) for name in ("mqtt/f/t/1", "mqtt/f/t/2", "mqtt/f/tt")] == [None, None, b"x"]
    await queue.close()


async def test_what_was_asked_before_is_forgotten_and_dropped_too(tmp_path: Path) -> None:
    """Also where one commit has both."""
    go_on = threading.Event()

    def slow() -> float:
        assert go_on.wait(60)
        return 1000.0

    queue = await Queue.open(tmp_path / "busy.db", quota=MUCH, clock=slow)
    busy = asyncio.ensure_future(queue.put([arrival("a")]))
    await asyncio.sleep(0)  # its commit begins: what is asked from now on shares the next one
    putting = asyncio.ensure_future(queue.put([arrival("a", trigger="new")], notes={"cron/f/new/": b"1"}))
    await asyncio.sleep(0)
    ending = asyncio.gather(queue.forget("cron/f/new/"), queue.drop("f"))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(busy, putting, ending)
    assert queue.note("cron/f/new/") is None
    assert queue.counts() == {}
    await queue.close()
