"""Processes that tests of the store start: python store_child.py <role> <state.db> [<argument> ...]."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fleetfn.position import At, Marks
from fleetfn.store import Record, Saved, Write
from fleetfn_runtime.ledger import Ledger
from fleetfn_runtime.sqlite_store import SqliteStore


async def count_up(path: Path, rounds: str) -> None:
    """Add 1 to each of ten keys, by turns, until each add is saved; print how many writes lost their race."""
    store = await SqliteStore.open(path)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    lost = 0
    left = {f"k{n}": int(rounds) for n in range(10)}
    while left:
        keys = list(left)
        loaded = await store.load(keys)
        writes = [
            Write(key, Record(b"%d" % (int(each.record.value or b"0") + 1)), each.etag)
            for key, each in zip(keys, loaded, strict=True)
        ]
        for key, result in zip(keys, await store.save(writes), strict=True):
            if not isinstance(result, Saved):
                lost += 1
            elif left[key] == 1:
                del left[key]
            else:
                left[key] -= 1
    print(lost, flush=True)
    await store.close()


async def save_until_killed(path: Path) -> None:
    """Save counters in several tasks; print `<key> <count>` of each save once it is acknowledged."""
    store = await SqliteStore.open(path)

    async def task(name: str) -> None:
        (loaded,) = await store.load([name])
        etag, count = loaded.etag, int(loaded.record.value or b"0")
        while True:
            count += 1
            record = Record(b"%d" % count, Marks().with_("t", At("s", 0, count)))
            (saved,) = await store.save([Write(name, record, etag)])
            etag = saved.etag
            sys.stdout.write(f"{name} {count}\n")
            sys.stdout.flush()

    await asyncio.gather(*(task(f"k{n}") for n in range(20)))


async def save_once(path: Path) -> None:
    """Save three times, printing when each save is acknowledged."""
    store = await SqliteStore.open(path)
    etag = None
    for n in range(3):
        print(f"saving {n}", flush=True)
        (saved,) = await store.save([Write("k", Record(b"%d" % n), etag)])
        etag = saved.etag
        print(f"saved {n}", flush=True)


async def note_until_killed(path: Path) -> None:
    """Begin and end runs; `begun <offset>` is printed once a run is noted, `ended <offset>` before its end is."""
    ledger = Ledger(path)
    for offset in range(10**9):
        slot = ledger.begin("telemetry", At("s", 0, offset), 1)
        sys.stdout.write(f"begun {offset}\n")
        sys.stdout.flush()
        if offset % 3:
            sys.stdout.write(f"ended {offset}\n")
            sys.stdout.flush()
            ledger.end(slot)


if __name__ == "__main__":
    role, path, *arguments = sys.argv[1:]
    asyncio.run(globals()[role](Path(path), *arguments))
