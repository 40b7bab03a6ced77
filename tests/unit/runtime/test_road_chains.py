"""Chains: what waits of one key runs in a row and is saved together, and counts as if each had been alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fleetfn.invocation import Again, Call, Done, Rejected, Result
from fleetfn.position import At
from fleetfn.store import Record
from fleetfn_runtime import invoker
from fleetfn_runtime.runs import CHAIN
from road_doubles import STREAM, AsyncHandler, Bench, FlakyStore, ListSource, PlainHandler, delivery, emit, route, until

Make = Callable[..., Bench]


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chain ends since the machine is busy; a test that wants it to says so."""
    monkeypatch.setattr(invoker, "LONG", 60.0)


@pytest.fixture
async def bench() -> AsyncIterator[Make]:
    made: list[Bench] = []

    def make(body: Any, handler: Any = PlainHandler, **more: Any) -> Bench:
        policy = {"attempts": 2, "initial": 0.0}
        made.append(Bench(route(handler(body, state=True), **policy), **more))
        return made[-1]

    yield make
    for one in made:
        await one.road.close()


def append(call: Call) -> bytes:
    return (call.value or b"") + (call.event.data or b"")


def several(source: ListSource, letters: str, key: str = "car", partition: int = 0) -> list[Any]:
    return [
        delivery(source, key, letter.encode(), position=At(STREAM, partition, number))
        for number, letter in enumerate(letters)
    ]


@pytest.mark.parametrize("handler", [PlainHandler, AsyncHandler], ids=["def", "async def"])
async def test_what_waits_of_one_key_is_saved_together(bench: Make, handler: Any) -> None:
    async def later(call: Call) -> bytes:
        await asyncio.sleep(0)
        return append(call)

    one = bench(append if handler is PlainHandler else later, handler)
    one.road.take(several(one.source, "abcdefgh"))
    await one.settled(8)
    assert one.store.value("car") == b"abcdefgh"
    assert one.store.saves == 1
    assert one.source.bodies() == [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"]
    assert one.store.records["car"][0].marks.offsets == {f"telemetry|{STREAM}|0": 7}


async def test_emits_of_a_chain_are_published_in_order_after_its_save(bench: Make) -> None:
    one = bench(lambda call: Result(Done(), append(call), (emit(data=call.event.data or b""),)))
    one.road.take(several(one.source, "abc"))
    await one.settled(3)
    assert [sent.event.data for sent in one.publisher.published] == [b"a", b"b", b"c"]
    assert one.publisher.calls == 1


@pytest.mark.parametrize("ending", [Again(), Rejected("no")], ids=["again", "reject"])
async def test_what_came_before_a_failure_is_saved_and_what_comes_after_waits(bench: Make, ending: Any) -> None:
    runs: list[bytes | None] = []

    def body(call: Call) -> Any:
        runs.append(call.event.data)
        if call.event.data == b"c" and call.attempt == 1:
            return ending
        return append(call)

    one = bench(body)
    saved: list[bytes | None] = []
    one.store.on_save = lambda writes: saved.extend(write.record.value for write in writes)
    one.road.take(several(one.source, "abcde"))
    await one.settled(5)
    again = [b"c"] if isinstance(ending, Again) else []
    assert runs == [b"a", b"b", b"c", *again, b"d", b"e"], "nothing ran twice but what was to be tried again"
    assert saved == [b"ab", b"abcde" if again else b"abde"]
    assert one.source.bodies() == [b"a", b"b", b"c", b"d", b"e"]


async def test_a_chain_that_loses_the_etag_runs_again_as_a_whole(bench: Make) -> None:
    store = FlakyStore()
    runs: list[bytes | None] = []

    def body(call: Call) -> bytes:
        if not runs:
            store.records["car"] = (Record(b"-"), 4711)
        runs.append(call.event.data)
        return append(call)

    one = bench(body, store=store)
    one.road.take(several(one.source, "abc"))
    await one.settled(3)
    assert store.value("car") == b"-abc"
    assert runs == [b"a", b"b", b"c"] * 2


async def test_a_slow_run_ends_its_chain(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoker, "LONG", -1.0)
    one = bench(append)
    one.road.take(several(one.source, "abc"))
    await one.settled(3)
    assert one.store.saves == 3
    assert one.store.value("car") == b"abc"


async def test_deliveries_of_two_partitions_are_no_chain(bench: Make) -> None:
    one = bench(append)
    one.road.take([*several(one.source, "ab"), *several(one.source, "cd", partition=1)])
    await one.settled(4)
    assert one.store.value("car") == b"abcd"
    assert one.store.saves == 2
    assert one.store.records["car"][0].marks.offsets == {f"telemetry|{STREAM}|0": 1, f"telemetry|{STREAM}|1": 1}


async def test_links_that_somebody_else_owns_are_dropped_and_the_others_run(bench: Make) -> None:
    one = bench(append)
    made = several(one.source, "abcd")
    one.source.lost.update((made[1], made[2]))
    one.road.take(made)
    await one.settled(2)
    assert one.store.value("car") == b"ad"
    await until(lambda: one.road.in_flight == 0)


async def test_a_partition_lost_while_a_chain_runs_leaves_the_state_alone(bench: Make) -> None:
    def body(call: Call) -> bytes:
        if call.event.data == b"b":
            one.source.lost.update(made)
        return append(call)

    one = bench(body)
    made = several(one.source, "abc")
    one.road.take(made)
    await one.road.quiet()
    assert one.store.value("car") is None
    assert not one.source.settled


async def test_a_long_backlog_of_one_key_is_worked_off_in_chains(bench: Make) -> None:
    one = bench(lambda call: b"%d" % (int(call.value or b"0") + 1))
    many = 10 * CHAIN
    one.road.take([delivery(one.source, position=At(STREAM, 0, n)) for n in range(many)])
    await one.settled(many)
    assert one.store.value("car") == b"%d" % many
    assert one.store.saves <= 2 * many // CHAIN


async def test_what_a_chain_did_not_get_to_goes_on_with_the_record_at_hand(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invoker, "LONG", -1.0)
    one = bench(append)
    one.road.take(several(one.source, "abcdefgh"))
    await one.settled(8)
    assert one.store.value("car") == b"abcdefgh"
    assert (one.store.loads, one.store.saves) == (1, 8)


async def test_chains_are_as_long_as_there_was_time_for_lately(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoker, "LONG", -1.0)
    one = bench(append)
    trigger = one.road._routes["telemetry"]
    one.road.take(several(one.source, "abcdefgh"))
    await one.settled(8)
    assert trigger.chain == 2
    monkeypatch.setattr(invoker, "LONG", 60.0)
    one.road.take([delivery(one.source, position=At(STREAM, 0, n)) for n in range(8, 8 + 6 * CHAIN)])
    await one.settled(8 + 6 * CHAIN)
    assert trigger.chain == CHAIN


async def test_stopping_leaves_what_a_chain_did_not_get_to(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoker, "LONG", -1.0)
    loop = asyncio.get_running_loop()
    stopped = threading.Event()

    def stop() -> None:
        one.road.stop()
        stopped.set()

    def body(call: Call) -> bytes:
        loop.call_soon_threadsafe(stop)
        assert stopped.wait(60)
        return append(call)

    one = bench(body)
    one.road.take(several(one.source, "abc"))
    await until(lambda: bool(one.source.settled))
    await one.road.quiet()
    assert one.store.value("car") == b"a"
    assert one.source.bodies() == [b"a"]
    assert one.road.in_flight == 0
