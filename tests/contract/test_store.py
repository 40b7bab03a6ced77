"""What every Store promises: fleetfn.store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import fake_daprd
import pytest
from dapr_sidecars import COMPONENTS, TwoWorkers, over_two_sidecars
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn.memory import MemoryStore
from fleetfn.position import At, Marks, Named, Reply
from fleetfn.store import Conflict, Page, Record, Saved, Store, Write
from fleetfn_runtime.dapr_sidecar import Sidecar
from fleetfn_runtime.dapr_store import DaprStore
from fleetfn_runtime.sqlite_store import SqliteStore
from msgspec.structs import replace
from store_process import SharedStore, StoreProcess

EMIT = Emit(
    "alerts",
    "LSV1",
    Event(
        id="e-1/alerts/0",
        source="/fleet/battery-alert",
        type="battery-alert.alerts",
        subject="LSV1",
        time=datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC),
        datacontenttype="application/json",
        dataschema="https://example.org/alert",
        extensions={"partitionkey": "LSV1", "level": 3, "stale": False},
        headers=(("trace", b"\x00\xff"), ("trace", b"again")),
        data=b'{"reason": "over temperature"}',
    ),
)
TOMBSTONE = Emit("alerts", None, Event(id="e-2", source="s", type="t", data=None))
MARKS = (
    Marks()
    .with_("telemetry", At("kafka:vehicle.telemetry:id", 3, 2**40))
    .with_("show", Named("hash"), Reply(200, [("content-type", "text/plain")], b"\x00ok"))
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def processes() -> Iterator[list[StoreProcess]]:
    started = [StoreProcess(), StoreProcess()]
    yield started
    for process in started:
        process.end()


KINDS = [
    "memory",
    "sqlite",
    "sqlite shared by two processes",
    *(f"double of dapr {name}" for name in fake_daprd.KINDS),
    *(pytest.param(f"dapr {name}", marks=pytest.mark.dapr) for name in COMPONENTS),
]


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, processes: list[StoreProcess]
) -> AsyncIterator[Store]:
    path = tmp_path / "state.db"
    store: Store
    if request.param.startswith("double"):
        component = request.param.rpartition(" ")[2]
        async with fake_daprd.running() as fake:
            opening = (DaprStore.open(Sidecar(fake.url), component, "f", clock=clock) for _ in range(2))
            store = TwoWorkers([await each for each in opening])
            yield store
            await store.close()
        return
    match request.param:
        case "memory":
            store = MemoryStore(clock)
        case "sqlite":
            store = await SqliteStore.open(path, clock=clock)
        case "sqlite shared by two processes":
            store = SharedStore(processes, path, clock)
        case _:
            component = request.param.removeprefix("dapr ")
            store = await over_two_sidecars(request.getfixturevalue("sidecars"), component, clock)
    yield store
    await store.close()


async def put(store: Store, key: str, record: Record, etag: str | None = None) -> str:
    (result,) = await store.save([Write(key, record, etag)])
    assert isinstance(result, Saved)
    return result.etag


async def get(store: Store, key: str) -> tuple[Record, str | None]:
    (loaded,) = await store.load([key])
    return loaded.record, loaded.etag


async def test_a_key_that_was_never_saved_has_an_empty_record_and_no_etag(store: Store) -> None:
    assert await get(store, "unknown") == (Record(), None)


@pytest.mark.parametrize(
    "record",
    [
        Record(b"value", MARKS, (EMIT, TOMBSTONE), expires=5000.25),
        Record(b""),
        Record(b"\x00" * 100_000),
        Record(None, MARKS),
        Record(None, unsent=(EMIT,)),
        Record(b"value", Marks({f"t|s|{n}": n for n in range(200)})),
        Record(),
    ],
    ids=["whole", "empty value", "large value", "marks alone", "unsent alone", "many partitions", "nothing"],
)
async def test_a_record_is_loaded_as_it_was_saved(store: Store, record: Record) -> None:
    etag = await put(store, "k", record)
    assert await get(store, "k") == (record, etag)


@pytest.mark.parametrize(
    "key", ["", "LSV1", "京A12345", "a\x00b", "emoji 🚗", "x" * 5000, "a'b\"c%_"], ids=lambda key: ascii(key[:8])
)
async def test_any_text_is_a_key(store: Store, key: str) -> None:
    await put(store, key, Record(b"1"))
    assert (await get(store, key))[0].value == b"1"
    assert (await get(store, key + "!"))[1] is None
    assert await store.keys() == Page((key,), None)


async def test_each_write_has_a_new_etag(store: Store) -> None:
    first = await put(store, "k", Record(b"1"))
    second = await put(store, "k", Record(b"1"), first)
    third = await put(store, "k", Record(None, MARKS), second)
    fourth = await put(store, "k", Record(b"1"), third)
    assert len({first, second, third, fourth}) == 4


@pytest.mark.parametrize("wrong", [None, "stale", "12345", "", "no etag of this store", "²"])
async def test_a_write_with_another_etag_is_a_conflict_and_changes_nothing(store: Store, wrong: str | None) -> None:
    stale = await put(store, "k", Record(b"1"))
    etag = await put(store, "k", Record(b"2"), stale)
    assert await store.save([Write("k", Record(b"3"), stale if wrong == "stale" else wrong)]) == [Conflict()]
    assert await get(store, "k") == (Record(b"2"), etag)


async def test_a_write_with_an_etag_where_no_record_is_conflicts(store: Store) -> None:
    etag = await put(store, "other", Record(b"1"))
    assert await store.save([Write("k", Record(b"1"), etag)]) == [Conflict()]
    assert await get(store, "k") == (Record(), None)


async def test_one_conflict_fails_no_other_write(store: Store) -> None:
    taken = await put(store, "taken", Record(b"1"))
    old = await put(store, "old", Record(b"1"))
    results = await store.save(
        [
            Write("taken", Record(b"x"), None),
            Write("new", Record(b"2"), None),
            Write("gone", Record(b"x"), "77"),
            Write("old", Record(b"2"), old),
        ]
    )
    assert [type(result) for result in results] == [Conflict, Saved, Conflict, Saved]
    loaded = await store.load(["taken", "new", "gone", "old"])
    assert [each.record.value for each in loaded] == [b"1", b"2", None, b"2"]
    assert loaded[0].etag == taken
    assert [loaded[1].etag, loaded[3].etag] == [results[1].etag, results[3].etag]


async def test_loads_answer_in_the_order_asked_and_repeats_too(store: Store) -> None:
    await store.save([Write(key, Record(key.encode()), None) for key in "abc"])
    loaded = await store.load(["c", "x", "a", "c"])
    assert [each.record.value for each in loaded] == [b"c", None, b"a", b"c"]


async def test_nothing_asked_nothing_answered(store: Store) -> None:
    assert await store.load([]) == []
    assert await store.save([]) == []


async def test_thousands_of_keys_go_in_one_call(store: Store) -> None:
    keys = [f"vehicle-{n:05}" for n in range(2600)]
    saved = await store.save([Write(key, Record(key.encode(), MARKS), None) for key in keys])
    again = await store.save(
        [
            Write(key, Record(b"2"), each.etag if n % 2 else None)
            for n, (key, each) in enumerate(zip(keys, saved, strict=True))
        ]
    )
    assert [isinstance(each, Saved) for each in again] == [bool(n % 2) for n in range(2600)]
    loaded = await store.load(keys)
    assert [each.record.value for each in loaded] == [b"2" if n % 2 else key.encode() for n, key in enumerate(keys)]


async def test_of_writes_at_the_same_time_one_wins(store: Store) -> None:
    etag = await put(store, "k", Record(b"0"))
    results = await asyncio.gather(*(store.save([Write("k", Record(b"%d" % n), etag)]) for n in range(20)))
    winners = [n for n, (result,) in enumerate(results) if isinstance(result, Saved)]
    assert len(winners) == 1
    assert await get(store, "k") == (Record(b"%d" % winners[0]), results[winners[0]][0].etag)


async def test_writes_of_many_callers_at_the_same_time_all_hold(store: Store) -> None:
    await asyncio.gather(
        *(store.save([Write(f"{caller}-{n}", Record(b"1"), None) for n in range(30)]) for caller in range(60))
    )
    loaded = await store.load([f"{caller}-{n}" for caller in range(60) for n in range(30)])
    assert all(each.record.value == b"1" for each in loaded)


async def test_an_expired_value_is_absent_and_marks_and_unsent_emits_stay(store: Store, clock: Clock) -> None:
    record = Record(b"value", MARKS, (EMIT,), expires=1060.0)
    await put(store, "k", record)
    clock.now = 1059.9
    assert (await get(store, "k"))[0] == record
    clock.now = 1060.0
    assert (await get(store, "k"))[0] == replace(record, value=None, expires=None)
    assert await store.keys() == Page((), None)
    assert await store.unsent() == Page(("k",), None)


async def test_the_etag_outlives_the_value(store: Store, clock: Clock) -> None:
    etag = await put(store, "k", Record(b"value", MARKS, expires=1060.0))
    clock.now = 2000.0
    await put(store, "other", Record(b"1"))
    assert (await get(store, "k"))[1] == etag
    await put(store, "k", Record(b"new", MARKS), etag)
    assert (await get(store, "k"))[0] == Record(b"new", MARKS)


async def test_keys_are_those_with_a_value_in_code_point_order(store: Store) -> None:
    names = ["b", "a", "Z", "é", "京", "aa", "\U0001f697", "\uffee"]
    await store.save([Write(name, Record(b"1"), None) for name in names])
    await store.save([Write("marks", Record(None, MARKS), None), Write("emits", Record(None, unsent=(EMIT,)), None)])
    assert (await store.keys()).keys == tuple(sorted(names))


async def test_pages_of_keys_end_where_they_say(store: Store) -> None:
    await store.save([Write(f"k{n}", Record(b"1"), None) for n in range(5)])
    first = await store.keys(limit=2)
    second = await store.keys(after=first.after, limit=2)
    third = await store.keys(after=second.after, limit=2)
    assert [first, second, third] == [
        Page(("k0", "k1"), "k1"),
        Page(("k2", "k3"), "k3"),
        Page(("k4",), None),
    ]
    assert (await store.keys(limit=5)).after is None


async def test_unsent_lists_keys_until_their_emits_are_cleared(store: Store) -> None:
    etags = {key: await put(store, key, Record(b"1", unsent=(EMIT,))) for key in ("a", "b", "c")}
    await put(store, "quiet", Record(b"1"))
    assert await store.unsent(limit=2) == Page(("a", "b"), "b")
    assert await store.unsent(after="b", limit=2) == Page(("c",), None)
    await put(store, "b", Record(b"1"), etags["b"])
    assert await store.unsent() == Page(("a", "c"), None)


async def test_a_deleted_value_is_no_key_and_its_marks_stay(store: Store) -> None:
    etag = await put(store, "k", Record(b"1", MARKS))
    await put(store, "k", Record(None, MARKS), etag)
    assert await store.keys() == Page((), None)
    assert (await get(store, "k"))[0] == Record(None, MARKS)


async def test_a_caller_that_gave_up_waiting_harms_nobody(store: Store) -> None:
    given_up = asyncio.ensure_future(store.save([Write("a", Record(b"1"), None)]))
    waiting = asyncio.ensure_future(store.save([Write("b", Record(b"1"), None)]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert isinstance((await waiting)[0], Saved)
