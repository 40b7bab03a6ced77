"""Any order of writes, batches and expiries leaves a SqliteStore as it leaves the store in memory."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn.memory import MemoryStore
from fleetfn.position import Marks
from fleetfn.store import Record, Saved, Write
from fleetfn_runtime.sqlite_store import SqliteStore
from hypothesis import given, settings
from hypothesis import strategies as st

KEYS = ["", "a", "b", "京", "z\0"]
EMIT = Emit("out", "k", Event(id="1", source="s", type="t", data=b"x"))

records = st.builds(
    Record,
    value=st.none() | st.binary(max_size=8),
    marks=st.builds(Marks, st.dictionaries(st.sampled_from(["t|s|0", "t|s|1"]), st.integers(0, 2**62), max_size=2)),
    unsent=st.sampled_from([(), (EMIT,)]),
    expires=st.none() | st.sampled_from([1010.0, 1020.0]),
)
etags = st.sampled_from(["right", "right", "right", "none", "stale"])
batches = st.lists(st.tuples(st.sampled_from(KEYS), records, etags), max_size=5, unique_by=lambda write: write[0])
steps = st.lists(batches | st.sampled_from([1009.0, 1010.0, 1025.0]), max_size=12)


class Pair:
    """Both stores, and the etags that each of them gave."""

    def __init__(self, path: Path) -> None:
        self.now = 1000.0
        self.stores = [MemoryStore(lambda: self.now), SqliteStore(path, clock=lambda: self.now)]
        self.etags: list[dict[str, list[str]]] = [{}, {}]

    async def save(self, batch: list[tuple[str, Record, str]]) -> None:
        told = []
        for store, etags in zip(self.stores, self.etags, strict=True):
            writes = [Write(key, record, _etag(etags.get(key, []), which)) for key, record, which in batch]
            results = await store.save(writes)
            for (key, _, _), result in zip(batch, results, strict=True):
                if isinstance(result, Saved):
                    etags.setdefault(key, []).append(result.etag)
            told.append([type(result) for result in results])
        assert told[0] == told[1]

    async def compare(self) -> None:
        loads = [await store.load(KEYS) for store in self.stores]
        values = [[(each.record.value, each.record.marks, each.record.unsent) for each in load] for load in loads]
        assert values[0] == values[1]
        assert [each.etag is None for each in loads[0]] == [each.etag is None for each in loads[1]]
        assert await self.stores[0].keys(limit=3) == await self.stores[1].keys(limit=3)
        assert await self.stores[0].unsent(limit=3) == await self.stores[1].unsent(limit=3)


def _etag(given: list[str], which: str) -> str | None:
    match which:
        case "right":
            return given[-1] if given else None
        case "none":
            return None
        case _:
            return given[-2] if len(given) > 1 else "999999"


@settings(max_examples=60, deadline=None)
@given(steps)
def test_it_agrees_with_the_store_in_memory(steps: list[list[tuple[str, Record, str]] | float]) -> None:
    async def check(path: Path) -> None:
        pair = Pair(path)
        for step in steps:
            if isinstance(step, float):
                pair.now = max(pair.now, step)
            else:
                await pair.save(step)
            await pair.compare()
        for store in pair.stores:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder) / "state.db"))
