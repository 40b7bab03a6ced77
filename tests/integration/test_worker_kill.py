"""kill -9 between the save and the publish: what was saved and not sent is sent by the next worker, once it looks."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fleetfn.invocation import Call, Done, Result
from fleetfn.position import At
from fleetfn_runtime.ledger import Ledger
from fleetfn_runtime.sqlite_store import SqliteStore
from road_doubles import STREAM, Bench, ListPublisher, PlainHandler, delivery, emit, route, until

pytestmark = pytest.mark.node

EVENTS = 50


class DeadlyPublisher(ListPublisher):
    """Kills the process instead of publishing, as if the power went."""

    async def publish(self, emits):
        os.kill(os.getpid(), 9)
        return await super().publish(emits)


def count(call: Call) -> Result:
    total = int(call.value or b"0") + 1
    return Result(Done(), b"%d" % total, (emit(data=call.event.data or b"", key=call.key),))


def die(folder: Path) -> int:
    """This file as a script, in a process that its publisher kills; how it ended."""
    doubles = Path(__file__).parents[1] / "doubles"
    environ = {**os.environ, "PYTHONPATH": str(doubles)}
    return subprocess.run([sys.executable, __file__, str(folder)], check=False, timeout=120, env=environ).returncode


async def run(folder: Path, publisher: ListPublisher) -> Bench:
    store = await SqliteStore.open(folder / "state.db")
    ledger = Ledger(folder / "ledger")
    bench = Bench(route(PlainHandler(count, state=True)), store=store, publisher=publisher)
    bench.road.own(ledger, ledger.suspects())
    bench.road.take(
        [delivery(bench.source, f"car{n % 5}", b"%d" % n, position=At(STREAM, 0, n)) for n in range(EVENTS)]
    )
    await bench.settled(EVENTS)
    return bench


async def test_what_was_saved_and_not_sent_is_sent_by_the_next_worker(tmp_path):
    assert await asyncio.to_thread(die, tmp_path) == -9
    store = await SqliteStore.open(tmp_path / "state.db")
    left = (await store.unsent()).keys
    assert left, "it was not killed between save and publish"
    await store.close()
    bench = await run(tmp_path, ListPublisher())
    values = await bench.store.load([f"car{n}" for n in range(5)])
    assert [one.record.value for one in values] == [b"10"] * 5
    sent = [one.event.data for one in bench.publisher.published]
    assert sorted(set(sent)) == sorted(b"%d" % n for n in range(EVENTS))
    await bench.road.quiet()
    await bench.road.close()
    assert (await bench.store.unsent()).keys == ()
    await bench.store.close()


async def test_unsent_emits_are_sent_even_if_nothing_arrives_for_their_keys(tmp_path):
    await asyncio.to_thread(die, tmp_path)
    store = await SqliteStore.open(tmp_path / "state.db")
    owed = [one.event for loaded in await store.load((await store.unsent()).keys) for one in loaded.record.unsent]
    bench = Bench(route(PlainHandler(count, state=True)), store=store)
    await until(lambda: len(bench.publisher.published) == len(owed))
    assert [one.event for one in bench.publisher.published] == owed
    await bench.road.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), DeadlyPublisher()))
