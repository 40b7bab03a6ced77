"""Later retries go to the inbox, and what comes behind them; nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fleetfn.errors import StoreError
from fleetfn.invocation import Again, Call, Done, Failure, Rejected
from fleetfn.position import At
from fleetfn_plumbing.memory_inbox import MemoryInbox
from fleetfn_runtime import burial, holds
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Which
from inbox_doubles import Clock, FarInbox, Pusher
from road_doubles import STREAM, Bench, PlainHandler, event, route, until

FULL = StoreError("the inbox is full")


class World:
    """A road, an inbox and who pushes from it. Events of the partition bear `epoch`."""

    def __init__(self, body: Callable[[Call], Any], **more: Any) -> None:
        self.clock = Clock()
        self.inbox = MemoryInbox(self.clock)
        self.far = FarInbox(self.inbox)
        self.ran: list[bytes] = []
        self.body = body
        self.epoch = 1
        park = more.pop("park", False)
        self.bench = Bench(route(PlainHandler(self._handle), park=park, **more), inbox=self.far, clock=self.clock)
        self.road, self.source = self.bench.road, self.bench.source
        self.pusher = Pusher(self.inbox, lambda: self.road)
        self._offset = 0

    def _handle(self, call: Call) -> Any:
        self.ran.append(call.event.data or b"")
        return self.body(call)

    async def claim(self) -> None:
        claimed = await self.road.claim("telemetry", STREAM, {0: self._offset})
        self.epoch = claimed.epochs[0]

    def deliver(self, key: str | None, *names: str, **more: Any) -> None:
        made = []
        for name in names:
            at = At(STREAM, 0, self._offset)
            made.append(Delivery("telemetry", key, event(name.encode(), name=name), at, self.source, **more))
            made[-1].epoch = self.epoch
            self._offset += 1
        self.road.take(made)

    @property
    def waiting(self) -> list[bytes | None]:
        return [row.event.data for row in self.inbox.rows if row.status == "waiting"]

    def settled(self, key: str | None = None) -> list[bytes]:
        return self.source.bodies(key)


def first_later(call: Call) -> Again | None:
    """The event `late` is to be run in an hour, once."""
    return Again(after=3600.0) if call.event.data == b"late" and call.attempt == 1 else None


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., World]]:
    for module in (burial, holds):
        monkeypatch.setattr(module, "BACKOFF", (0.01, 0.02))
    made: list[World] = []

    def make(body: Callable[[Call], Any] = first_later, **more: Any) -> World:
        made.append(World(body, **more))
        return made[-1]

    yield make
    for one in made:
        await one.road.close()


async def test_a_long_wait_is_the_inbox_and_settles_with_the_source(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late")
    one.deliver("b", "other")
    await until(lambda: sorted(one.settled()) == [b"late", b"other"])
    [row] = one.inbox.rows
    assert (row.key, row.attempts, row.due) == ("a", 1, one.clock.now + 3600)
    assert row.position == At(STREAM, 0, 0)
    assert one.road.in_flight == 0


async def test_a_short_wait_stays_in_its_lane(world: Callable[..., World]) -> None:
    one = world(lambda call: Again(after=0.05) if call.attempt == 1 else None)
    one.deliver("a", "1", "2")
    await until(lambda: one.settled() == [b"1", b"2"])
    assert not one.inbox.rows


async def test_later_events_of_its_key_join_it_in_order_and_come_after_it(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late", "2", "3")
    await until(lambda: len(one.settled("a")) == 3)
    one.deliver("a", "4")
    one.deliver("b", "other")
    await until(lambda: len(one.settled()) == 5)
    assert one.waiting == [b"late", b"2", b"3", b"4"]
    assert one.ran == [b"late", b"other"]
    one.clock.now += 3601
    while one.waiting:
        await one.pusher.push()
        await asyncio.sleep(0.001)
    assert one.ran == [b"late", b"other", b"late", b"2", b"3", b"4"]


async def test_free_ends_it_and_the_key_runs_here_again(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late")
    await until(lambda: bool(one.waiting))
    one.clock.now += 3601
    await one.pusher.push()
    await until(lambda: not one.waiting)
    one.deliver("a", "2", "3", "4")
    await until(lambda: len(one.settled("a")) == 4)
    assert one.ran == [b"late", b"late", b"2", b"3", b"4"]
    asked = len(one.far.offered)
    one.deliver("a", "5")
    await until(lambda: len(one.settled("a")) == 5)
    assert len(one.far.offered) == asked


async def test_keys_that_are_held_are_told_with_the_claim(world: Callable[..., World]) -> None:
    one, other = world(), world()
    await one.claim()
    one.deliver("a", "late")
    await until(lambda: bool(one.waiting))
    other.far.inbox = other.inbox = one.inbox
    other._offset = 1
    await other.claim()
    assert other.epoch == 2
    other.deliver("a", "2")
    await until(lambda: len(other.settled()) == 1)
    assert other.ran == []
    assert one.waiting == [b"late", b"2"]


async def test_what_is_somebody_elses_by_now_is_dropped(world: Callable[..., World]) -> None:
    one = world()
    await one.claim()
    one.epoch = 1
    await one.claim()
    one.epoch = 1
    one.deliver("a", "late", "2")
    await until(lambda: one.road.in_flight == 0)
    assert one.ran == [b"late"]
    assert not one.settled()
    assert not one.inbox.rows


async def test_while_the_inbox_is_away_the_lane_waits_by_itself_and_keeps_its_order(
    world: Callable[..., World],
) -> None:
    one = world()
    one.inbox.refusal = FULL
    one.deliver("a", "late", "2")
    one.deliver("b", "other")
    await until(lambda: bool(one.road.problems()))
    assert one.road.problems()[0][0] == "inbox"
    assert "the inbox is full" in one.road.problems()[0][1]
    await until(lambda: one.settled() == [b"other"])
    assert not one.source.paused
    one.clock.now += 3601
    await until(lambda: one.settled() == [b"other", b"late"])
    assert one.ran == [b"late", b"other", b"late"]
    one.inbox.refusal = None
    await until(lambda: one.settled() == [b"other", b"late", b"2"])
    assert one.ran == [b"late", b"other", b"late", b"2"]
    assert not one.road.problems()


async def test_a_row_that_is_pushed_does_not_wait_for_what_the_inbox_would_not_take(
    world: Callable[..., World],
) -> None:
    one = world()
    one.deliver("a", "late")
    await until(lambda: bool(one.waiting))
    real = one.inbox.offer

    async def full(_: Any) -> Any:
        raise FULL

    one.inbox.offer = full  # type: ignore[method-assign]  # it takes no more, but delivers what it has
    one.deliver("a", "2")
    await until(lambda: bool(one.road.problems()))
    one.clock.now += 3601
    await one.pusher.push()
    await until(lambda: one.ran == [b"late", b"late"])
    assert one.road.in_flight == 1
    one.inbox.offer = real  # type: ignore[method-assign]
    await until(lambda: one.ran == [b"late", b"late", b"2"])


async def test_a_caller_does_not_wait_behind_a_held_key(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late")
    await until(lambda: bool(one.waiting))
    one.inbox.refusal = FULL
    one.deliver("a", "2")
    result = await one.road.run_once(Delivery("telemetry", "a", event(b"asked"), None, one.source))
    assert result.outcome == Done()
    assert one.ran == [b"late", b"asked"]


async def test_a_backlog_takes_few_calls(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late", *map(str, range(1000)))
    await until(lambda: len(one.settled()) == 1001)
    assert len(one.far.offered) < 8
    assert one.waiting == [b"late", *(b"%d" % n for n in range(1000))]


async def test_a_parked_key_waits_for_people(world: Callable[..., World]) -> None:
    one = world(lambda call: Rejected("no") if call.event.data == b"bad" else None, park=True)
    one.deliver("a", "bad", "2", "3")
    one.deliver("b", "other")
    one.deliver(None, "bad")
    one.deliver(None, "free")
    await until(lambda: len(one.settled()) == 6)
    assert sorted(one.ran) == [b"bad", b"bad", b"free", b"other"]
    assert one.waiting == [b"2", b"3"]
    await one.inbox.discard(Which(key="a"))
    while one.waiting:
        await one.pusher.push()
        await asyncio.sleep(0.001)
    assert one.ran[-2:] == [b"2", b"3"]


async def test_an_unreadable_event_of_a_held_key_is_buried_at_once(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late")
    await until(lambda: bool(one.waiting))
    one.deliver("a", "bad", problem="no JSON")
    await until(lambda: len(one.settled()) == 2)
    assert [row.reason for row in one.inbox.rows if row.status == "dead"] == ["unreadable"]


async def test_a_pushed_row_that_has_to_wait_longer_is_offered_back_with_its_attempts(
    world: Callable[..., World],
) -> None:
    one = world(lambda _: Again(after=60.0, failure=Failure("E", "x")), attempts=3)
    one.deliver("a", "1")
    for attempts in (1, 2):
        await until(lambda: bool(one.waiting))
        assert [row.attempts for row in one.inbox.rows] == [attempts]
        one.clock.now += 61
        await one.pusher.push()
        await until(lambda: one.road.in_flight == 0)
    assert [(row.status, row.reason, row.attempts) for row in one.inbox.rows] == [("dead", "attempts", 3)]


async def test_events_without_a_key_wait_each_for_itself(world: Callable[..., World]) -> None:
    one = world()
    one.deliver(None, "late", "2", "3")
    await until(lambda: len(one.settled()) == 3)
    assert one.ran == [b"late", b"2", b"3"]
    assert one.waiting == [b"late"]


async def test_partitions_that_go_take_what_is_aside_with_them(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late")
    await until(lambda: bool(one.waiting))
    one.inbox.refusal = FULL
    one.deliver("a", "2", "3")
    await until(lambda: bool(one.road.problems()))
    one.source.owns = lambda _: False  # type: ignore[method-assign]  # it lost its partitions
    one.road.forget_lost()
    assert one.road.in_flight == 0


async def test_what_stops_leaves_what_is_aside_to_the_next_worker(world: Callable[..., World]) -> None:
    one = world()
    one.deliver("a", "late")
    await until(lambda: bool(one.waiting))
    one.inbox.refusal = FULL
    one.deliver("a", "2", "3")
    await until(lambda: bool(one.road.problems()))
    one.road.stop()
    await one.road.quiet()
    assert one.settled() == [b"late"]


async def test_what_came_along_with_an_event_that_was_lost_does_not_reach_the_inbox_before_it(
    world: Callable[..., World],
) -> None:
    loop = asyncio.get_running_loop()

    def lose(call: Call) -> Again | None:
        if call.event.data != b"late":
            return None
        one.source.owns = lambda _: False  # type: ignore[method-assign]  # its partition goes while it runs
        loop.call_soon_threadsafe(one.road.forget_lost)
        return Again(after=3600.0)

    one = world(lose)
    one.inbox.refusal = FULL
    one.deliver("a", "late", "2", "3")
    await until(lambda: one.road.in_flight == 0)
    one.inbox.refusal = None
    await asyncio.sleep(0.05)
    assert one.ran == [b"late"]
    assert not one.inbox.rows
