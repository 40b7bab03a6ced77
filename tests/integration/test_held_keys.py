"""Held keys over Kafka and the gateway's queue, both as they are: a blocked key blocks nobody, and keeps its order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleetfn.invocation import Again, Call
from fleetfn_gateway.queue import Queue
from fleetfn_runtime.invoker import NoNotes
from fleetfn_runtime.kafka_source import KafkaSource
from fleetfn_runtime.metrics import Metrics
from fleetfn_runtime.road import Road
from fleetfn_runtime.sqlite_store import SqliteStore
from inbox_doubles import Pusher
from kafka_broker import committed, eventually, fresh_name, produce
from kafka_doubles import source, until
from road_doubles import ListPublisher, PlainHandler, route

KEYS = 200
HOUR = 3600.0


@pytest.fixture
def group() -> str:
    return fresh_name("local/node/f/t")


class Handled:
    """What ran, per key, in order; `blocked` is to be run again so many seconds later, once."""

    def __init__(self, blocked: str, after: float) -> None:
        self.runs: dict[str | None, list[bytes]] = {}
        self._blocked = blocked
        self._after = after

    def __call__(self, call: Call) -> Any:
        data = call.event.data or b""
        if call.key == self._blocked and data == b"0" and call.attempt == 1:
            return Again(after=self._after)
        self.runs.setdefault(call.key, []).append(data)
        return (call.value or b"") + data + b" "


@contextlib.asynccontextmanager
async def worker(
    folder: Path, queue: Queue, handled: Handled, broker: str, topic: str, group: str
) -> AsyncIterator[tuple[Road, KafkaSource]]:
    store = await SqliteStore.open(folder / "state.db")
    road = Road(
        function="watch",
        revision="1",
        routes=[route(PlainHandler(handled, state=True), trigger="t")],
        store=store,
        inbox=queue,
        publisher=ListPublisher(),
        meter=Metrics("watch"),
        replace=pytest.fail,
    )
    road.own(NoNotes(), {})
    pull = source(broker, topic, group, road)
    await pull.connect()
    road.watch(pull)
    await pull.start()
    try:
        yield road, pull
    finally:
        road.stop()
        await road.quiet()
        await pull.drain()
        await road.close()
        await store.close()


async def test_a_blocked_key_blocks_nobody_and_comes_later_in_order(
    broker: str, either_topic: str, group: str, tmp_path: Path
) -> None:
    handled = Handled("k7", HOUR)  # who waited for it would not be done in time
    ahead = 0.0
    queue = await Queue.open(tmp_path / "inbox.db", quota=1 << 30, clock=lambda: time.time() + ahead)
    roads: list[Road] = []
    pusher = Pusher(queue, lambda: roads[-1])
    try:
        async with worker(tmp_path, queue, handled, broker, either_topic, group) as (road, _):
            roads.append(road)
            await send(broker, either_topic, range(5))
            await until(lambda: len(handled.runs) == KEYS - 1 and all(len(runs) == 5 for runs in handled.runs.values()))
            await asyncio.to_thread(eventually, lambda: sum(committed(broker, group, either_topic)) == 5 * KEYS)
            assert "k7" not in handled.runs
        async with worker(tmp_path, queue, handled, broker, either_topic, group) as (road, _):
            roads.append(road)
            await send(broker, either_topic, range(5, 8))
            await until(lambda: all(len(runs) == 8 for runs in handled.runs.values()))
            assert "k7" not in handled.runs, "it overtook what waits in the inbox"
            assert await pusher.push(["t"]) == 0
            ahead = HOUR
            async with asyncio.timeout(60):
                while len(handled.runs.get("k7", [])) < 8:
                    await pusher.push(["t"])
                    await asyncio.sleep(0.005)
            await until(lambda: road.in_flight == 0 and not pusher.tasks)  # what is done has left the inbox
            await asyncio.to_thread(eventually, lambda: sum(committed(broker, group, either_topic)) == 8 * KEYS)
            await send(broker, either_topic, range(8, 10))
            await until(lambda: all(len(runs) == 10 for runs in handled.runs.values()))
        assert queue.counts().get("watch", {}).get("t") is None
    finally:
        await queue.close()
    store = await SqliteStore.open(tmp_path / "state.db")
    keys = [f"k{n}" for n in range(KEYS)]
    assert {loaded.record.value for loaded in await store.load(keys)} == {b"0 1 2 3 4 5 6 7 8 9 "}
    await store.close()


async def send(broker: str, topic: str, numbers: range) -> None:
    await asyncio.to_thread(produce, broker, topic, [(f"k{key}", b"%d" % n) for n in numbers for key in range(KEYS)])
