"""Unsent emits of records that nobody runs on.

`Unsent` clears from records what was published since (the next save of the key does it, too; without either, the next
worker would publish it again), and publishes what a worker before this one saved and did not send. A key is kept out
of its lane's hands meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fleetfn.errors import OutputDown, RecordError, StoreError
from fleetfn.invocation import Emit
from fleetfn.store import Conflict, Loaded, Record, Store, Write

from fleetfn_runtime.burial import Burial
from fleetfn_runtime.lanes import Lanes
from fleetfn_runtime.meter import Meter
from fleetfn_runtime.outages import BACKOFF, Outages
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.records import RecordCache
from fleetfn_runtime.tasks import Tasks

log = logging.getLogger("fleetfn.road")

TIDY = 1.0
"""Seconds after which a record is cleared, if nothing else has written it."""

BATCH = 1000
"""Records of one round."""


class Unsent:
    """`released` is called when lanes were given back. `trigger`: who gets the dead letters of what records owed. They
    do not tell who emitted it.
    """

    def __init__(
        self,
        *,
        trigger: str,
        store: Store,
        publisher: Publisher,
        lanes: Lanes[Any],
        cache: RecordCache,
        outages: Outages,
        burial: Burial,
        meter: Meter,
        tasks: Tasks,
        released: Callable[[], None],
    ) -> None:
        self._trigger = trigger
        self._store = store
        self._publisher = publisher
        self._lanes = lanes
        self._cache = cache
        self._outages = outages
        self._burial = burial
        self._meter = meter
        self._tasks = tasks
        self._released = released
        self._sent: dict[str, Loaded] = {}
        self._one_at_a_time = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping = self._again = False

    def emitted(self, emits: tuple[Emit, ...]) -> None:
        """These are through: their outputs are up."""
        for emit in emits:
            self._meter.emitted(emit.output)
        if self._outages:
            for output in {emit.output for emit in emits}:
                self._outages.end(f"output {output}")

    def sent(self, key: str, loaded: Loaded) -> Loaded:
        """All of this record's unsent emits are through: it as it is from now on, though the store does not know."""
        loaded = without_unsent(loaded)
        self._cache.put(key, loaded)
        self._sent[key] = loaded
        self._set_timer()
        return loaded

    def known(self, key: str, loaded: Loaded) -> Loaded:
        """What the store gave for a key, without emits that are through already."""
        sent = self._sent.get(key)
        return sent if sent is not None and sent.etag == loaded.etag else loaded

    def written(self, key: str) -> None:
        """The record was saved anew."""
        if self._sent:
            self._sent.pop(key, None)

    def sweep(self, patience: float = 0.0) -> None:
        """Publish what the store's records hold unsent and no run of this worker will, in the background.

        `patience`: only records that stay as they are for so many seconds, since others work beside this one.
        """
        if self._sweeping:
            self._again = True
        else:
            self._sweeping = True
            self._tasks.spawn(self._sweep(patience))

    async def close(self) -> None:
        """Clear all that was sent."""
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(StoreError):  # the next worker's first load publishes it again
            while self._sent and await self._tidy():
                pass

    # Clearing what was sent

    def _set_timer(self) -> None:
        if self._timer is None and not self._outages.stopping.is_set():
            loop = asyncio.get_running_loop()
            delay = TIDY if len(self._sent) < BATCH else TIDY / 10
            self._timer = loop.call_later(delay, lambda: self._tasks.spawn(self._tidy_now()))

    async def _tidy_now(self) -> None:
        self._timer = None
        with contextlib.suppress(StoreError):
            await self._tidy()
        if self._sent:
            self._set_timer()

    async def _tidy(self) -> int:
        """Clear records that nobody runs on; how many."""
        async with self._one_at_a_time:
            return await self._tidy_some()

    async def _tidy_some(self) -> int:
        keys = [key for key in itertools.islice(self._sent, BATCH) if self._lanes.seize(key)]
        try:
            cleared = [(key, self._sent[key]) for key in keys]
            if not cleared:
                return 0
            results = await self._store.save([Write(key, one.record, one.etag) for key, one in cleared])
            for (key, one), saved in zip(cleared, results, strict=True):
                del self._sent[key]
                if isinstance(saved, Conflict):
                    self._cache.drop(key)
                else:
                    self._cache.put(key, Loaded(one.record, saved.etag))
            return len(cleared)
        finally:
            self._release(keys)

    # Sending what another worker left

    async def _sweep(self, patience: float) -> None:
        damaged: set[str] = set()
        while not self._outages.stopping.is_set():
            self._again = False
            seen = await self._etags(damaged) if patience else None
            if seen:
                await self._outages.rest(patience)
            if seen is None or seen:
                await self._sweep_once(seen, damaged)
            if not self._again:
                break
        self._sweeping = False

    async def _etags(self, damaged: set[str]) -> dict[str, str | None]:
        """Of all records that hold unsent emits now."""
        found: dict[str, str | None] = {}

        async def note(keys: list[str]) -> bool:
            found.update((key, one.etag) for key, one in zip(keys, await self._store.load(keys), strict=True))
            return True

        await self._each_page(note, damaged)
        return found

    async def _sweep_once(self, seen: Mapping[str, str | None] | None, damaged: set[str]) -> None:
        async def send(keys: list[str]) -> bool:
            seized = [key for key in keys if key not in self._sent and self._lanes.seize(key)]
            return not seized or await self._send(seized, seen)

        await self._each_page(send, damaged)

    async def _each_page(self, work: Callable[[list[str]], Awaitable[bool]], damaged: set[str]) -> None:
        """`work` on all keys whose records hold unsent emits, page by page; again where it is not through."""
        after: str | None = None
        while not self._outages.stopping.is_set():
            try:
                page = await self._store.unsent(after=after, limit=BATCH)
                through = await work([key for key in page.keys if key not in damaged])
            except RecordError as error:
                log.error("unsent emits are left where they are: %s; %s", error, error.hint)  # noqa: TRY400 - no defect
                damaged.add(error.key)
                continue
            except StoreError as error:
                self._outages.begin("store", error)
                through = False
            if not through:
                await self._outages.rest(BACKOFF[1])
                continue
            after = page.after
            if after is None:
                break

    async def _send(self, keys: list[str], seen: Mapping[str, str | None] | None) -> bool:
        """Publish for keys whose lanes are seized; False: some are still unsent. `seen`: only records that are so."""
        try:
            loaded = dict(zip(keys, await self._store.load(keys), strict=True))
            owing = {key: one for key, one in loaded.items() if one.record.unsent and _stayed(key, one, seen)}
            errors = iter(await self._publisher.publish([emit for one in owing.values() for emit in one.record.unsent]))
            writes: list[Write] = []
            for key, one in owing.items():
                through = True
                for emit in one.record.unsent:
                    through &= await self._settled(emit, next(errors))
                if through:
                    writes.append(Write(key, without_unsent(one).record, one.etag))
            await self._store.save(writes)
            return len(writes) == len(owing)
        finally:
            for key in keys:
                self._cache.drop(key)
            self._release(keys)

    async def _settled(self, emit: Emit, error: Exception | None) -> bool:
        if isinstance(error, OutputDown):
            self._outages.begin(f"output {emit.output}", error)
            return False
        if error is not None:
            return await self._burial.emit(self._trigger, emit, error)
        self.emitted((emit,))
        return True

    def _release(self, keys: list[str]) -> None:
        for key in keys:
            self._lanes.release(key)
        self._released()


def _stayed(key: str, one: Loaded, seen: Mapping[str, str | None] | None) -> bool:
    return seen is None or (key in seen and seen[key] == one.etag)


def without_unsent(loaded: Loaded) -> Loaded:
    record = loaded.record
    return Loaded(Record(record.value, record.marks, (), record.expires), loaded.etag)
