"""Writes to a component of Dapr: whatever the sidecar answers, or does not, it is known what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from fake_daprd import KINDS, FakeDaprd, Stored, running
from fleetfn.errors import RecordError, StoreError
from fleetfn_runtime.dapr_documents import Documents, Put
from fleetfn_runtime.dapr_sidecar import Sidecar

Open = Callable[[], Documents]


@pytest.fixture
async def fake() -> AsyncIterator[FakeDaprd]:
    async with running() as fake:
        yield fake


@pytest.fixture(params=KINDS)
async def opened(request: pytest.FixtureRequest, fake: FakeDaprd) -> AsyncIterator[Open]:
    """More stores of one component, as workers have them."""
    sidecars = []

    def another() -> Documents:
        sidecars.append(Sidecar(fake.url))
        return Documents(sidecars[-1], request.param)

    yield another
    for sidecar in sidecars:
        await sidecar.close()


def once(failure: str, *, path: str = "/v1.0/state/", ends: bool = True) -> Callable[[str, str, bytes], str | None]:
    """The next write fails so; on a connection that was kept the sidecar is asked twice."""
    left = [2 if ends else 1]

    def fails(method: str, asked: str, body: bytes) -> str | None:
        if method != "POST" or not asked.startswith(path) or asked.endswith("/bulk") or left[0] == 0:
            return None
        left[0] -= 1
        return failure

    return fails


async def version(documents: Documents, key: str) -> str | None:
    found = (await documents.read([key])).get(key)
    return found.version if found is not None else None


async def test_a_write_that_was_done_and_not_answered_is_found_done_when_asked_again(
    opened: Open, fake: FakeDaprd
) -> None:
    mine = opened()
    (first,) = await mine.write([Put("k", b"1", None)])
    fake.fails = once("after")
    put = Put("k", b"2", first)
    with pytest.raises(StoreError, match="broke off its answer"):
        await mine.write([put])
    (again,) = await mine.write([put])
    assert again is not None
    assert again == await version(mine, "k")


async def test_so_is_a_create(opened: Open, fake: FakeDaprd) -> None:
    mine = opened()
    assert await version(mine, "k") is None
    fake.fails = once("after")
    with pytest.raises(StoreError):
        await mine.write([Put("k", b"1", None)])
    assert await mine.write([Put("k", b"1", None)]) == [await version(mine, "k")]


async def test_a_write_that_others_have_written_over_counts_as_done(opened: Open, fake: FakeDaprd) -> None:
    mine, theirs = opened(), opened()
    (first,) = await mine.write([Put("k", b"1", None)])
    fake.fails = once("after")
    put = Put("k", b"2", first)
    with pytest.raises(StoreError):
        await mine.write([put])
    on = await version(theirs, "k")
    for number in range(30):
        (on,) = await theirs.write([Put("k", b"%d" % number, on)])
        assert on is not None
    (again,) = await mine.write([put])
    assert again is not None
    assert again != on
    assert await mine.write([Put("k", b"x", again)]) == [None]


async def test_a_write_that_was_not_done_is_done_when_asked_again(opened: Open, fake: FakeDaprd) -> None:
    mine = opened()
    assert await version(mine, "k") is None
    fake.fails = once("before")
    put = Put("k", b"1", None)
    with pytest.raises(StoreError):
        await mine.write([put])
    assert await version(opened(), "k") is None
    assert (await mine.write([put]))[0] is not None


async def test_a_connection_that_was_closed_meanwhile_is_nobodys_concern(opened: Open, fake: FakeDaprd) -> None:
    mine = opened()
    await mine.read(["k"])
    fake.fails = once("after", ends=False)
    assert (await mine.write([Put("k", b"1", None)]))[0] is not None


async def test_of_equal_creates_at_the_same_time_one_wins(opened: Open) -> None:
    stores = [opened() for _ in range(8)]
    results = await asyncio.gather(*(each.write([Put("k", b"same", None)]) for each in stores))
    assert sum(result is not None for (result,) in results) == 1


async def test_of_equal_writes_of_one_store_at_the_same_time_one_wins(opened: Open) -> None:
    mine = opened()
    (first,) = await mine.write([Put("k", b"0", None)])
    results = await asyncio.gather(*(mine.write([Put("k", b"%d" % n, first)]) for n in range(8)))
    assert sum(result is not None for (result,) in results) == 1


async def test_one_conflict_in_a_request_fails_no_other(opened: Open) -> None:
    mine = opened()
    await mine.write([Put("taken", b"1", None)])
    results = await mine.write([Put("a", b"1", None), Put("taken", b"2", None), Put("b", b"1", None)])
    assert [result is not None for result in results] == [True, False, True]


async def test_what_the_component_says_is_told(opened: Open, fake: FakeDaprd) -> None:
    fake.fails = once("disk full")
    with pytest.raises(StoreError, match="cannot be written to: disk full"):
        await opened().write([Put("k", b"1", None)])


async def test_some_that_failed_by_themselves_are_tried_again(opened: Open, fake: FakeDaprd) -> None:
    answer, turn = fake.puts, iter(range(100))

    def busy(store: str, key: str, value: object, etag: str | None) -> tuple[int, str]:
        return (500, "database is locked") if next(turn) % 3 == 2 else answer(store, key, value, etag)

    fake.puts = busy  # type: ignore[method-assign]  # a double's
    results = await opened().write([Put(f"k{n}", b"1", None) for n in range(10)])
    assert None not in results


async def test_what_a_bulk_read_leaves_out_is_not_taken_for_absent(opened: Open, fake: FakeDaprd) -> None:
    mine = opened()
    await mine.write([Put(f"k{number}", b"1", None) for number in range(5)])
    left = [2]

    def forgets(key: str) -> bool:
        left[0] -= key == "k3"
        return key == "k3" and left[0] >= 0

    fake.forgets = forgets
    assert len(await mine.read([f"k{number}" for number in range(5)])) == 5
    fake.forgets = lambda key: key == "k3"
    with pytest.raises(StoreError, match="leaves documents out that it has"):
        await mine.read(["k1", "k3"])


async def test_nor_is_a_write_to_it_taken_for_a_conflict(opened: Open, fake: FakeDaprd) -> None:
    mine = opened()
    (first,) = await mine.write([Put("k", b"1", None)])
    fake.forgets = lambda _key: True
    with pytest.raises(StoreError):
        await mine.write([Put("k", b"2", first)])
    fake.forgets = lambda _key: False
    assert await mine.write([Put("k", b"2", first)]) == [await version(opened(), "k")]


async def test_what_is_too_large_is_one_keys_fault(opened: Open, fake: FakeDaprd) -> None:
    fake.largest = 500_000
    with pytest.raises(RecordError, match=r"'big' takes .* bytes, which the Dapr sidecar refuses") as raised:
        await opened().write([Put("small", b"1", None), Put("big", b"x" * 1_000_000, None)])
    assert raised.value.key == "big"
    assert raised.value.hint == "keep less in it, or raise the sidecar's --max-body-size"


async def test_what_somebody_else_has_written_cannot_be_read(opened: Open, fake: FakeDaprd) -> None:
    for records in fake.stores.values():
        records["k"] = Stored({"hottest": 60}, "1")
    with pytest.raises(RecordError, match=r"'k' in the Dapr component .* cannot be read"):
        await opened().read(["k"])


async def test_many_writers_of_one_document_all_come_through(opened: Open) -> None:
    async def add(documents: Documents, number: int) -> None:
        await documents.update("list", lambda body: (body or b"") + b"%d," % number)

    await asyncio.gather(*(add(opened(), number) for number in range(12)))
    (found,) = (await opened().read(["list"])).values()
    assert sorted(found.body.split(b",")[:-1]) == sorted(b"%d" % number for number in range(12))
