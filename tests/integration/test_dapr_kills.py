"""Records in Dapr's components while sidecars and stores are killed: each save counts exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import pytest
from dapr_sidecars import OwnSidecars
from fleetfn.errors import StoreError
from fleetfn.store import Loaded, Record, Saved, Store, Write
from fleetfn_runtime.dapr_sidecar import Sidecar
from fleetfn_runtime.dapr_store import DaprStore

pytestmark = [pytest.mark.dapr, pytest.mark.slow]

KEYS = [f"k{number}" for number in range(6)]


async def load(store: Store, key: str) -> Loaded:
    while True:
        with contextlib.suppress(StoreError):
            return (await store.load([key]))[0]
        await asyncio.sleep(0.02)


async def save(store: Store, write: Write) -> bool:
    """Asked again until the store says what came of it, as workers do; whether it was saved."""
    while True:
        with contextlib.suppress(StoreError):
            (result,) = await store.save([write])
            return isinstance(result, Saved)
        await asyncio.sleep(0.02)


async def count_up(store: Store, over: asyncio.Event, seed: int) -> int:
    """How often this worker has added one."""
    chance, added = random.Random(seed), 0
    while not over.is_set():
        key = chance.choice(KEYS)
        loaded = await load(store, key)
        value = b"%d" % (int(loaded.record.value or b"0") + 1)
        added += await save(store, Write(key, Record(value), loaded.etag))
    return added


@pytest.mark.parametrize(
    ("component", "victims"),
    [
        ("redis", ["second", "redis", "dapr", "redis"]),
        ("postgresql", ["second", "postgresql", "dapr"]),
        ("sqlite", ["second", "dapr"]),
    ],
)
async def test_each_save_counts_once_while_all_are_killed(
    own_sidecars: OwnSidecars, component: str, victims: list[str]
) -> None:
    urls = [own_sidecars.first, own_sidecars.second] * 2
    stores = [await DaprStore.open(Sidecar(url, limit=5), component, "tests/fleet") for url in urls]
    until, over = time.monotonic() + 3.0 * (len(victims) + 1), asyncio.Event()
    counting = [asyncio.create_task(count_up(store, over, seed)) for seed, store in enumerate(stores)]
    for victim in victims:
        await asyncio.sleep(1.0)
        own_sidecars.kill(victim)
        await asyncio.to_thread(own_sidecars.start)
    # Each worker's store has answered since the last start, then: a pool gives connections from before once more.
    await asyncio.sleep(max(1.0, until - time.monotonic()))
    over.set()
    added = sum(await asyncio.gather(*counting))
    loaded = await stores[0].load(KEYS)
    assert sum(int(each.record.value or b"0") for each in loaded) == added > 50
    assert (await stores[1].keys()).keys == tuple(key for key, one in zip(KEYS, loaded, strict=True) if one.etag)
    for store in stores:
        await store.close()
