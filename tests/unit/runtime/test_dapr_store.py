"""What the Store over Dapr does beside the port's promises: what it opens, keeps beside records, and says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
from fake_daprd import FakeDaprd, running
from fleetfn.errors import FleetError, RecordError, StoreError
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn.store import Record, Saved, Write
from fleetfn_runtime import dapr_owed_keys
from fleetfn_runtime.dapr_sidecar import Sidecar, SidecarError
from fleetfn_runtime.dapr_store import DaprStore

EMIT = Emit("alerts", "k", Event(id="1", source="s", type="t", time=datetime(2026, 5, 1, tzinfo=UTC), data=b"{}"))
TOKEN = "t0ken"  # noqa: S105 - of a double
OWING = Record(b"1", unsent=(EMIT,))

Open = Callable[..., Awaitable[DaprStore]]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def fake() -> AsyncIterator[FakeDaprd]:
    async with running(token=TOKEN) as fake:
        yield fake


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def opened(fake: FakeDaprd, clock: Clock) -> AsyncIterator[Open]:
    sidecars = []

    async def another(component: str = "redis", function: str = "plant/watch") -> DaprStore:
        sidecars.append(Sidecar(fake.url, token=TOKEN))
        return await DaprStore.open(sidecars[-1], component, function, clock=clock)

    yield another
    for sidecar in sidecars:
        await sidecar.close()


async def save(store: DaprStore, key: str, record: Record, etag: str | None = None) -> str:
    (saved,) = await store.save([Write(key, record, etag)])
    assert isinstance(saved, Saved)
    return saved.etag


async def test_it_waits_until_the_sidecar_has_its_components(opened: Open, fake: FakeDaprd) -> None:
    fake.ready = False
    opening = asyncio.ensure_future(opened())
    while len(fake.asked) < 3:  # noqa: ASYNC110 - what is waited for is that it goes on asking
        await asyncio.sleep(0.01)
    assert not opening.done()
    assert {path for _, path in fake.asked} == {"/v1.0/healthz/outbound"}
    fake.ready = True
    await opening


async def test_a_sidecar_that_does_not_get_ready_is_told_of(fake: FakeDaprd) -> None:
    fake.ready = False
    sidecar = Sidecar(fake.url, token=TOKEN)
    with pytest.raises(SidecarError, match="is not ready after 0 s: it says dapr is not ready"):
        await sidecar.ready(0.0)
    await sidecar.close()


async def test_one_that_is_not_there_is_told_of() -> None:
    with pytest.raises(SidecarError, match=r"no Dapr sidecar answers at 127\.0\.0\.1:1"):
        await Sidecar("http://127.0.0.1:1").ready(0.0)


async def test_without_its_token_the_sidecar_says_no(fake: FakeDaprd) -> None:
    sidecar = Sidecar(fake.url)
    with pytest.raises(SidecarError, match="it says invalid api token"):
        await sidecar.ready(0.0)
    await sidecar.close()


async def test_a_component_that_is_not_there_is_named(opened: Open) -> None:
    with pytest.raises(StoreError, match="has no state store 'vehicles'") as raised:
        await opened("vehicles")
    assert "scopes must name the function's app-id" in raised.value.hint


async def test_a_component_without_etags_is_refused(opened: Open, fake: FakeDaprd) -> None:
    fake.capabilities = ("TTL",)
    with pytest.raises(FleetError, match=r"'redis' \(state.redis\) keeps no etags"):
        await opened()


async def test_the_state_of_another_function_is_not_taken_for_ours(opened: Open) -> None:
    await opened(function="plant/watch")
    await opened(function="plant/watch")
    with pytest.raises(FleetError, match="shows test/watch the state of plant/watch") as raised:
        await opened(function="test/watch")
    assert "keyPrefix" in raised.value.hint


async def test_a_function_whose_vehicles_emit_writes_each_list_once(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    etag = await save(store, "k", OWING)
    fake.asked.clear()
    for _ in range(3):
        etag = await save(store, "k", OWING, etag)
    assert [path for _, path in fake.asked] == ["/v1.0/state/redis/bulk", "/v1.0/state/redis"] * 3


async def test_a_load_and_a_save_are_two_requests(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    await save(store, "k", Record(b"1"))
    fake.asked.clear()
    (loaded,) = await store.load(["k"])
    await save(store, "k", Record(b"2"), loaded.etag)
    assert len(fake.asked) == 2


async def test_who_ends_as_he_should_leaves_nothing_to_look_through(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    await save(store, "k", Record(b"1"), await save(store, "k", OWING))
    await store.close()
    assert not [key for key in fake.stores["redis"] if key.startswith("unsent:")]
    after = await opened()
    fake.asked.clear()
    assert (await after.unsent()).keys == ()
    assert len(fake.asked) == 1


async def test_who_is_killed_leaves_what_he_owes_to_the_next(opened: Open) -> None:
    killed, other = await opened(), await opened()
    await save(killed, "owing", OWING)
    await save(killed, "sent", Record(b"1"), await save(killed, "sent", OWING))
    await save(other, "others", OWING)
    assert (await (await opened()).unsent()).keys == ("others", "owing")


async def test_the_list_of_a_dead_worker_goes_when_it_is_old_and_nothing_is_owed(
    opened: Open, fake: FakeDaprd, clock: Clock
) -> None:
    killed = await opened()
    etag = await save(killed, "k", OWING)
    clock.now += dapr_owed_keys.OLD + 1
    after = await opened()
    assert (await after.unsent()).keys == ("k",)
    await save(after, "k", Record(b"1"), etag)
    assert (await after.unsent()).keys == ()
    assert not [key for key in fake.stores["redis"] if key.startswith("unsent:")]


async def test_a_worker_whose_list_was_taken_away_makes_another(opened: Open, clock: Clock) -> None:
    suspended, other = await opened(), await opened()
    etag = await save(suspended, "k", Record(b"1"), await save(suspended, "k", OWING))
    clock.now += dapr_owed_keys.OLD + 1
    assert (await other.unsent()).keys == ()
    await save(suspended, "k", OWING, etag)
    assert (await other.unsent()).keys == ("k",)


async def test_a_list_does_not_grow_for_ever(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    for start in range(0, 3000, 500):
        keys = [f"k{number}" for number in range(start, start + 500)]
        saved = await store.save([Write(key, OWING, None) for key in keys])
        etags = [each.etag for each in saved if isinstance(each, Saved)]
        await store.save([Write(key, Record(b"1"), etag) for key, etag in zip(keys, etags, strict=True)])
    (lists,) = (await store._owed._all()).values()
    assert len(lists.keys) <= dapr_owed_keys.KEPT


async def test_a_key_that_dapr_would_not_take_is_a_key(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    for key in ("a||b", "", "京A1", "a/b?c#d", "x" * 300):
        await save(store, key, Record(key.encode()))
    assert all(key.isascii() and "||" not in key and len(key) < 250 for key in fake.stores["redis"])
    assert (await store.keys()).keys == tuple(sorted(["a||b", "", "京A1", "a/b?c#d", "x" * 300]))


async def test_an_expired_value_is_taken_out_when_somebody_comes_by(
    opened: Open, fake: FakeDaprd, clock: Clock
) -> None:
    store = await opened()
    await save(store, "k", Record(b"x" * 10_000, expires=clock.now + 5))
    await save(store, "stays", Record(b"1", expires=clock.now + 50))
    clock.now += 10
    assert (await store.keys()).keys == ("stays",)
    assert len(fake.stores["redis"]["record:k"].value) < 200


async def test_no_key_is_a_lone_surrogate(opened: Open) -> None:
    store = await opened()
    with pytest.raises(RecordError, match="there is no record of key") as raised:
        await store.load(["ok", "\ud800"])
    assert raised.value.key == "\ud800"


async def test_a_record_that_is_too_large_names_its_key(opened: Open, fake: FakeDaprd) -> None:
    fake.largest = 100_000
    store = await opened()
    writes = [Write("small", Record(b"1"), None), Write("大", Record(b"x" * 200_000), None)]
    with pytest.raises(RecordError, match="the record of key '大'") as raised:
        await store.save(writes)
    assert raised.value.key == "大"
    assert [type(each) for each in await store.save(writes[:1])] == [Saved]


async def test_a_record_is_not_taken_for_another_keys(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    await save(store, "a", Record(b"1"))
    fake.stores["redis"]["record:b"] = fake.stores["redis"]["record:a"]
    with pytest.raises(RecordError, match="it is that of key 'a'"):
        await store.load(["b"])


async def test_while_the_component_is_down_the_store_is(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    fake.fails = lambda _method, _path, _body: "dial tcp: connection refused"
    with pytest.raises(StoreError, match="cannot be read from: dial tcp") as raised:
        await store.load(["k"])
    assert not isinstance(raised.value, RecordError)
    with pytest.raises(StoreError, match="dial tcp"):
        await store.save([Write("k", Record(b"1"), None)])


async def test_a_function_that_is_deleted_for_good_leaves_nothing(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    for number in range(40):
        await save(store, f"v{number}", Record(b"1"))
    await save(store, "owing", OWING)
    await store.close()
    last = await opened()
    assert await last.forget() == 41
    await last.close()
    assert fake.stores["redis"] == {}


async def test_forgetting_that_was_broken_off_is_done_again(opened: Open, fake: FakeDaprd) -> None:
    store = await opened()
    for number in range(5):
        await save(store, f"v{number}", Record(b"1"))
    fake.fails = lambda method, path, _: "busy" if method == "DELETE" and "index" in path else None
    with pytest.raises(StoreError):
        await store.forget()
    fake.fails = lambda *_: None
    assert await (await opened()).forget() == 5
    assert fake.stores["redis"] == {}


@pytest.mark.parametrize("done", range(8))
async def test_wherever_forgetting_was_broken_off_the_function_may_come_back(
    opened: Open, fake: FakeDaprd, done: int
) -> None:
    store = await opened()
    keys = [f"v{number:04}" for number in range(600)]
    await store.save([Write(key, Record(b"1"), None) for key in keys])
    left = [len(keys) + done]

    def fails(method: str, _path: str, _body: bytes) -> str | None:
        left[0] -= method == "DELETE"
        return "busy" if left[0] < 0 else None

    fake.fails = fails
    with contextlib.suppress(StoreError):
        await store.forget()
    fake.fails = lambda *_: None
    back = await opened()
    await save(back, "v0400", Record(b"2"))
    assert (await back.keys()).keys == ("v0400",)
