"""A walk over all states, as `ctx.states` makes it, on every Store: plain and async handlers, writers meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dapr_sidecars import over_two_sidecars
from fleetfn import Context, FleetError
from fleetfn.binder import BindInfo, bind
from fleetfn.event import Event
from fleetfn.invocation import Call, Done, Result
from fleetfn.memory import MemoryStore
from fleetfn.states import PAGE, Walks
from fleetfn.store import Record, Saved, Store, Write
from fleetfn_runtime.sqlite_store import SqliteStore
from fleetfn_runtime.states_walk import StoreWalk


class Trips(msgspec.Struct):
    count: int = 0


@pytest.fixture(params=["memory", "sqlite", pytest.param("dapr", marks=pytest.mark.dapr)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store
    match request.param:
        case "memory":
            opened = MemoryStore()
        case "sqlite":
            opened = await SqliteStore.open(tmp_path / "state.db")
        case _:
            opened = await over_two_sidecars(request.getfixturevalue("sidecars"), "redis", time.time)
    yield opened
    await opened.close()


async def fill(store: Store, keys: list[str], expires: float | None = None) -> None:
    for start in range(0, len(keys), 1000):
        part = keys[start : start + 1000]
        await store.save([Write(key, Record(b'{"count":1}', expires=expires), None) for key in part])


def names(count: int) -> list[str]:
    return [f"car-{number:06}" for number in range(count)]


async def run(store: Store, handler: Callable[..., Any], *, within: float = 120.0) -> Result:
    """As a worker does: plain `def` on a thread, `async def` on the loop."""
    walks = Walks(Trips)
    walks.open(StoreWalk(store))
    bound = bind(handler, trigger=BindInfo(name="t", kind="http", has_key=False, function="fn", walks=walks))
    call = Call(Event(id="1", source="s", type="t", data=None), "t", deadline=time.monotonic() + within)
    if bound.is_async:
        return (await bound.invoke_async([call]))[0]
    return (await asyncio.to_thread(bound.invoke, [call]))[0]


@pytest.fixture(params=["def", "async def"])
def walk(request: pytest.FixtureRequest, store: Store) -> Callable[[Callable[[], None]], Any]:
    """Walk over everything, calling `meanwhile` for each; what was seen."""

    async def walked(meanwhile: Callable[[], None] = lambda: None) -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []

        def plain(ctx: Context) -> None:
            for key, trips in ctx.states(Trips):
                meanwhile()
                seen.append((key, trips.count))

        async def asynchronous(ctx: Context) -> None:
            async for key, trips in ctx.states(Trips):
                meanwhile()
                seen.append((key, trips.count))

        result = await run(store, plain if request.param == "def" else asynchronous)
        assert isinstance(result.outcome, Done), result.outcome
        return seen

    return walked


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 7])
async def test_all_keys_come_once_and_in_order(store: Store, walk: Any, count: int) -> None:
    await fill(store, random.Random(7).sample(names(count), count))
    assert await walk() == [(key, 1) for key in names(count)]


async def test_the_order_is_that_of_code_points(store: Store, walk: Any) -> None:
    keys = ["b", "a", "Z", "é", "京A1", "aa", "\U0001f697", "\uffee"]
    await fill(store, keys)
    assert [key for key, _ in await walk()] == sorted(keys)


async def test_deleted_and_expired_values_and_mere_marks_are_left_out(store: Store, walk: Any) -> None:
    await fill(store, ["a", "b", "c"])
    await fill(store, ["expired"], expires=time.time() - 1)
    await store.save([Write("marks", Record(None), None)])
    etag = (await store.load(["b"]))[0].etag
    await store.save([Write("b", Record(None), etag)])
    assert [key for key, _ in await walk()] == ["a", "c"]


async def test_each_walk_begins_anew(store: Store) -> None:
    await fill(store, names(3))

    def twice(ctx: Context) -> list[int]:
        states = ctx.states(Trips)
        first = next(iter(states))
        return [len(list(states)), len(list(states)), len(list(itertools.islice(states, 2))), first[1].count]

    result = await run(store, twice)
    assert isinstance(result.outcome, Done)
    assert result.outcome.reply is not None
    assert result.outcome.reply.body == b"[3,3,2,1]"


async def test_what_is_there_all_the_while_comes_exactly_once_while_others_write(store: Store, walk: Any) -> None:
    stays, comes_and_goes = names(1200)[::2], names(1200)[1::2]
    await fill(store, stays)
    going = True

    async def write(seed: int) -> None:
        rng = random.Random(seed)
        while going:
            key = rng.choice(comes_and_goes if rng.random() < 0.7 else stays)
            loaded = (await store.load([key]))[0]
            value = None if key in gone and loaded.record.value else b'{"count":2}'
            await store.save([Write(key, Record(value), loaded.etag)])
            await asyncio.sleep(0)

    gone = set(comes_and_goes)
    writers = [asyncio.create_task(write(seed)) for seed in range(4)]
    try:
        for _ in range(3):
            seen = [key for key, _ in await walk(lambda: time.sleep(0.0002))]
            assert seen == sorted(set(seen))
            assert set(stays) <= set(seen)
    finally:
        going = False
        await asyncio.gather(*writers)


async def test_only_what_is_committed_is_seen(store: Store, walk: Any) -> None:
    await fill(store, names(5))
    saving = asyncio.create_task(store.save([Write("z", Record(b'{"count":9}'), None)]))
    seen = await walk()
    assert isinstance((await saving)[0], Saved)
    assert ("z", 9) in await walk()
    assert {key for key, _ in seen} - {"z"} == set(names(5))


async def test_a_value_that_cannot_be_decoded_names_its_key(store: Store) -> None:
    await fill(store, ["a"])
    await store.save([Write("broken", Record(b'{"count":"many"}'), None)])

    async def walk_all(ctx: Context) -> int:
        return len([key async for key, _ in ctx.states(Trips)])

    result = await run(store, walk_all)
    failure = getattr(result.outcome, "failure", None)
    assert failure is not None
    assert failure.type == "fleetfn.errors.StateError"
    assert failure.message.startswith("key 'broken': the stored state does not decode as Trips: $.count: Expected int")


async def test_a_walk_ends_at_the_deadline(store: Store) -> None:
    await fill(store, names(2000))

    def slow(ctx: Context) -> int:
        return sum(1 for _ in ctx.states(Trips) if not seen.append(time.sleep(0.001)))

    seen: list[None] = []
    result = await run(store, slow, within=0.2)
    failure = getattr(result.outcome, "failure", None)
    assert failure is not None
    assert failure.message == "this invocation timed out; it can no longer walk states"
    assert len(seen) < 2000


async def test_a_plain_loop_in_an_async_def_is_refused_instead_of_hanging(store: Store) -> None:
    await fill(store, names(2))

    async def stuck(ctx: Context) -> int:
        return len(list(ctx.states(Trips)))

    result = await run(store, stuck)
    failure = getattr(result.outcome, "failure", None)
    assert failure is not None
    assert "`for` over ctx.states would stop the worker's loop (write `async for`" in failure.message


async def test_a_thread_may_walk_on_a_loop_of_its_own(store: Store) -> None:
    await fill(store, names(3))

    def own_loop(ctx: Context) -> int:
        async def count() -> int:
            return len([key async for key, _ in ctx.states(Trips)])

        return asyncio.run(count())

    result = await run(store, own_loop)
    assert isinstance(result.outcome, Done), result.outcome


async def test_another_type_is_refused_by_name(store: Store) -> None:
    def other(ctx: Context) -> None:
        ctx.states(dict)

    result = await run(store, other)
    failure = getattr(result.outcome, "failure", None)
    assert failure is not None
    assert failure.message == "ctx.states(dict): this function keeps Trips (ask for ctx.states(Trips))"


async def test_no_walk_outlives_its_invocation(store: Store) -> None:
    await fill(store, names(3))
    kept: list[Any] = []

    def keeps(ctx: Context) -> None:
        walk = iter(ctx.states(Trips))
        next(walk)
        kept.append(walk)

    await run(store, keeps)
    with pytest.raises(FleetError, match="has returned; it can no longer walk states"):
        next(kept[0])
