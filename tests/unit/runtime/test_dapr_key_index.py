"""The index of keys: whatever happens on the way, a key that was added is found, once, in order."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable

import pytest
from fake_daprd import FakeDaprd, running
from fleetfn.errors import StoreError
from fleetfn_runtime.dapr_documents import Documents
from fleetfn_runtime.dapr_key_index import KeyIndex
from fleetfn_runtime.dapr_sidecar import Sidecar

Open = Callable[[], KeyIndex]


@pytest.fixture
async def fake() -> AsyncIterator[FakeDaprd]:
    async with running() as fake:
        yield fake


@pytest.fixture
async def opened(fake: FakeDaprd) -> AsyncIterator[Open]:
    """More indexes of one component, with leaves of four keys."""
    sidecars = []

    def another() -> KeyIndex:
        sidecars.append(Sidecar(fake.url))
        return KeyIndex(Documents(sidecars[-1], "redis"), keys=4)

    yield another
    for sidecar in sidecars:
        await sidecar.close()


async def walk(index: KeyIndex, limit: int = 3) -> list[str]:
    found: list[str] = []
    at, ended = None, False
    while not ended:
        keys, ended = await index.after(at, limit)
        found += keys
        at = found[-1] if found else None
    return found


def names(count: int) -> list[str]:
    return [f"k{number:04}" for number in range(count)]


@pytest.mark.parametrize("order", ["ascending", "descending", "any", "at once"])
async def test_keys_are_found_in_order_however_they_came(opened: Open, order: str) -> None:
    keys = names(60)
    given = {"ascending": keys, "descending": keys[::-1]}.get(order, random.Random(3).sample(keys, 60))
    index = opened()
    if order == "at once":
        await index.add(given)
    else:
        for key in given:
            await index.add([key])
    assert await walk(index) == await walk(opened()) == keys


async def test_the_empty_key_and_very_long_ones_are_keys(opened: Open) -> None:
    keys = ["", *(f"{number}" + "x" * 20_000 for number in range(8))]
    await opened().add(keys)
    assert await walk(opened()) == sorted(keys)


async def test_many_add_at_the_same_time(opened: Open) -> None:
    keys = names(120)
    parts = [random.Random(n).sample(keys, 60) for n in range(5)]
    await asyncio.gather(*(opened().add(part[:30]) for part in parts), *(opened().add(part[30:]) for part in parts))
    assert await walk(opened()) == sorted({key for part in parts for key in part})


async def test_a_key_that_is_there_costs_nothing(opened: Open, fake: FakeDaprd) -> None:
    index = opened()
    await index.add(names(10))
    fake.asked.clear()
    await index.add(names(10))
    assert fake.asked == []


async def test_who_walks_meets_each_key_that_stays_once_while_leaves_are_split(opened: Open) -> None:
    stays, comes = names(60)[::2], names(60)[1::2]
    await opened().add(stays)
    adding = asyncio.gather(*(opened().add([key]) for key in random.Random(5).sample(comes, len(comes))))
    for _ in range(4):
        found = await walk(opened(), limit=2)
        assert found == sorted(set(found))
        assert set(stays) <= set(found)
    await adding
    assert await walk(opened()) == names(60)


async def test_a_split_that_was_not_ended_leaves_what_was(opened: Open, fake: FakeDaprd) -> None:
    """The right half is written, and whoever was about to write the left one is gone."""
    index = opened()
    await index.add(names(4))
    fake.fails = lambda _method, path, body: "gone" if _writes(path, body, "index:0") else None
    with pytest.raises(StoreError, match="gone"):
        await index.add(["k00015"])
    assert len([key for key in fake.stores["redis"] if key.startswith("index:")]) > 1
    assert await walk(opened()) == names(4)
    fake.fails = lambda _method, _path, _body: None
    await opened().add(["k00015"])
    assert await walk(opened()) == sorted([*names(4), "k00015"])


async def test_leaves_that_the_directory_does_not_know_are_found(opened: Open, fake: FakeDaprd) -> None:
    fake.fails = lambda _method, path, body: "gone" if _writes(path, body, "index") else None
    for key in names(20):
        index = opened()
        try:
            await index.add([key])
        except StoreError:
            assert "index" not in fake.stores["redis"]
    fake.fails = lambda _method, _path, _body: None
    index = opened()
    assert await walk(index) == names(20)
    await index.add([f"{key}a" for key in names(20)])
    assert await walk(opened()) == sorted([*names(20), *(f"{key}a" for key in names(20))])
    fake.asked.clear()
    assert (await opened().after("k0018a", 1))[0][0] == "k0019"
    assert len(fake.asked) <= 3  # the directory, a leaf, and one where the first had nothing after the key


async def test_a_leaf_that_was_lost_is_told_of(opened: Open, fake: FakeDaprd) -> None:
    await opened().add(names(20))
    lost = next(key for key in fake.stores["redis"] if key.startswith("index:") and key != "index:0")
    del fake.stores["redis"][lost]
    with pytest.raises(StoreError, match="the key index has no leaf"):
        await walk(opened())


def _writes(path: str, body: bytes, key: str) -> bool:
    return path == "/v1.0/state/redis" and any(each["key"] == key for each in json.loads(body))
