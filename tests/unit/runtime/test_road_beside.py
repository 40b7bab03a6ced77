"""A road beside those of other workers of the function: they write the same records, and die."""

from __future__ import annotations

import asyncio

from fleetfn.invocation import Call, Result
from fleetfn.position import At
from fleetfn.store import Record, Write
from fleetfn_runtime.invoker import NoNotes
from road_doubles import STREAM, Bench, FlakyStore, PlainHandler, delivery, emit, route, until


class Reads:
    """A handler that changes nothing, and what it saw."""

    def __init__(self) -> None:
        self.seen: list[bytes | None] = []
        self.attempts: list[int] = []
        self.handler = PlainHandler(self, state=True)

    def __call__(self, call: Call) -> Result | None:
        self.seen.append(call.value)
        self.attempts.append(call.attempt)
        return None


async def elsewhere(store: FlakyStore, record: Record, key: str = "car") -> None:
    """Another worker writes."""
    (loaded,) = await store.load([key])
    await store.save([Write(key, record, loaded.etag)])


async def test_a_run_that_saves_nothing_sees_what_another_worker_wrote_before_it() -> None:
    reads = Reads()
    one = Bench(route(reads.handler), alone=False)
    for number in range(3):
        await elsewhere(one.store, Record(b"%d" % number))
        one.deliver()
        await one.settled(number + 1)
    assert reads.seen == [b"0", b"1", b"2"]
    await one.road.close()


async def test_the_only_worker_forgets_at_the_takeover_what_it_read_beside_the_one_before_it() -> None:
    reads = Reads()
    one = Bench(route(reads.handler))
    await elsewhere(one.store, Record(b"old"))
    one.deliver()
    await one.settled(1)
    await elsewhere(one.store, Record(b"new"))
    one.road.own(NoNotes(), {})
    one.deliver()
    await one.settled(2)
    assert reads.seen == [b"old", b"new"]
    await one.road.close()


async def test_an_inherited_suspect_has_the_attempts_that_others_began() -> None:
    reads = Reads()
    one = Bench(route(reads.handler), alone=False)
    one.road.inherit({("telemetry", At(STREAM, 0, 7)): 2})
    one.road.inherit({("telemetry", At(STREAM, 0, 7)): 1})
    one.road.take([delivery(one.source, position=At(STREAM, 0, offset)) for offset in (6, 7)])
    await one.settled(2)
    assert sorted(reads.attempts) == [1, 3]
    await one.road.close()


async def test_what_a_living_worker_is_about_to_send_is_left_to_it() -> None:
    store = FlakyStore()
    for key in ("dead", "lives"):
        await elsewhere(store, Record(b"1", unsent=(emit(data=key.encode(), key=key),)), key)
    one = Bench(route(Reads().handler), store=store, alone=False)
    await until(lambda: len(one.publisher.published) == 2)  # a worker that begins alone sends all at once
    for key in ("dead", "lives"):
        await elsewhere(store, Record(b"1", unsent=(emit(data=key.encode(), key=key),)), key)
    loads = store.loads
    one.road.sweep(patience=2.0)
    await until(lambda: store.loads > loads)
    await elsewhere(store, Record(b"1"), "lives")
    await until(lambda: len(one.publisher.published) == 3)
    await until(lambda: not store.records["dead"][0].unsent)
    assert one.publisher.published[-1].event.data == b"dead"
    await asyncio.sleep(0)
    assert len(one.publisher.published) == 3
    await one.road.close()
