"""Quota and free disk: no new rows, while what is there is worked off; and by itself again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from fleetfn.event import Event
from fleetfn.position import At
from fleetfn_gateway import queue_space
from fleetfn_gateway.queue import FullError, Queue
from fleetfn_triggers.inbox import Arrival, Claim, Letter, Offer, Row, Which

MIB = 1024 * 1024
TRIGGERS = ("t",)
EVENT: Event[bytes | None] = Event(id="1", source="s", type="t", data=b"x" * 100_000)
ARRIVAL = Arrival(function="f", trigger="t", key=None, event=EVENT)


class Disk:
    def __init__(self) -> None:
        self.free = 1 << 40

    def __call__(self, _: Path) -> int:
        return self.free


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def queue(tmp_path: Path, disk: Disk) -> AsyncIterator[Queue]:
    queue = await Queue.open(tmp_path / "inbox.db", quota=4 * MIB, free=disk)
    yield queue
    await queue.close()


async def fill(queue: Queue) -> list[Row]:
    """Up to the quota; what was taken, all of it in flight."""
    rows: list[Row] = []
    while len(rows) < 200:
        try:
            await queue.put([ARRIVAL])
        except FullError:
            return rows
        rows += await queue.take("f", TRIGGERS, 1, MIB)
    raise AssertionError("it takes more than its quota")


def offer_back(row: Row) -> Offer:
    return Offer(
        function="f",
        trigger="t",
        key=row.key,
        event=row.event,
        position=row.position,
        attempts=1,
        due=5.0,
    )


def letter(row: Row) -> Letter:
    return Letter(
        function="f",
        trigger="t",
        key=row.key,
        event=row.event,
        position=row.position,
        attempts=1,
        revision="r",
        reason="attempts",
        detail="",
        failure=None,
        created=1.0,
    )


async def test_a_full_inbox_says_its_size_its_quota_and_what_to_do(queue: Queue) -> None:
    assert queue.accepting
    assert queue.problem == ""
    rows = await fill(queue)
    assert 25 < len(rows) < 45  # 100 KB each, in 4 MiB
    assert not queue.accepting
    assert queue.bytes > queue.quota
    assert "over its quota of 4.0 MiB" in queue.problem
    assert "discard dead letters, or raise the quota" in queue.problem


async def test_what_a_full_inbox_has_is_worked_off_all_the_same(queue: Queue) -> None:
    one, two, three, *rest = await fill(queue)
    assert await queue.offer([offer_back(one)]) == ["queued"]
    assert await queue.bury([letter(two)]) == [two.sequence]
    unknown = msgspec.structs.replace(letter(three), position=At("kafka:x:", 0, 1))
    assert await queue.bury([unknown]) == [rest[-1].sequence + 1]
    await queue.claim(Claim(function="f", trigger="t", stream="kafka:x:", partitions={0: 1}))
    assert await queue.redrive(Which()) == 2
    assert await queue.put([], notes={"a": b"1"}) == []
    assert queue.note("a") == b"1"
    assert not queue.accepting
    await queue.done([row.sequence for row in rest])
    assert queue.accepting
    assert len(await queue.put([ARRIVAL])) == 1


async def test_an_offer_that_needs_no_row_is_answered_by_a_full_inbox(queue: Queue) -> None:
    await fill(queue)
    free = msgspec.structs.replace(offer_back(await _any(queue)), position=At("kafka:x:", 0, 1), due=None)
    assert await queue.offer([free]) == ["free"]


async def _any(queue: Queue) -> Row:
    row = await queue.get(1)
    assert row is not None
    return row


async def test_a_call_that_is_refused_has_done_nothing(queue: Queue) -> None:
    rows = await fill(queue)
    new = msgspec.structs.replace(offer_back(rows[0]), position=At("kafka:x:", 0, 1))
    with pytest.raises(FullError):
        await queue.offer([offer_back(rows[0]), new])
    assert await queue.get(rows[0].sequence) == rows[0]
    with pytest.raises(FullError):
        await queue.put([ARRIVAL], notes={"a": b"1"})
    assert queue.note("a") is None


async def test_what_is_refused_fails_nobody_in_the_same_commit(queue: Queue) -> None:
    rows = await fill(queue)
    put, done, back = await asyncio.gather(
        queue.put([ARRIVAL]), queue.done([rows[0].sequence]), queue.offer([offer_back(rows[1])]), return_exceptions=True
    )
    assert isinstance(put, FullError)
    assert (done, back) == (None, ["queued"])
    assert await queue.get(rows[0].sequence) is None


async def test_a_nearly_full_disk_refuses_new_rows_until_it_is_free_again(queue: Queue, disk: Disk) -> None:
    (first,) = await queue.put([ARRIVAL])
    disk.free = queue_space.MARGIN - 1
    assert not queue.accepting
    assert "has 64.0 MiB free, less than 64.0 MiB" in queue.problem
    with pytest.raises(FullError, match="the disk of the inbox"):
        await queue.put([ARRIVAL])
    await queue.done([first])
    disk.free = queue_space.MARGIN
    assert queue.accepting
    assert await queue.put([ARRIVAL]) == [first + 1]


async def test_a_disk_that_the_inbox_itself_has_filled_is_free_again_once_it_is_worked_off(
    queue: Queue, disk: Disk
) -> None:
    """Its file does not shrink: nobody else could free the disk."""
    rows = await fill(queue)
    disk.free = queue_space.MARGIN - MIB
    await queue.done([row.sequence for row in rows])
    assert await queue.put([ARRIVAL])
    disk.free = queue_space.LOG - 1
    assert not queue.accepting


async def test_a_full_inbox_is_full_after_a_restart(tmp_path: Path, queue: Queue, disk: Disk) -> None:
    await fill(queue)
    await queue.close()
    again = await Queue.open(tmp_path / "inbox.db", quota=MIB, free=disk)
    assert not again.accepting
    await again.close()


async def test_freed_space_is_used_again(tmp_path: Path, queue: Queue) -> None:
    sizes = []
    for _ in range(4):
        await queue.done([row.sequence for row in await fill(queue)])
        sizes.append((tmp_path / "inbox.db").stat().st_size)
    assert sizes[-1] <= sizes[0] + MIB
