"""A Store in memory: for tests, and for trying things out. Nothing outlives the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from fleetfn.store import Conflict, Loaded, Page, Record, Saved, Write


class MemoryStore:
    """Implements fleetfn.store.Store. `clock`: Unix seconds, by which values expire."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._records: dict[str, tuple[Record, str]] = {}
        self._clock = clock
        self._writes = 0

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        return [self._load(key) for key in keys]

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        return [self._save(write) for write in writes]

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return self._page(lambda record: self._live(record).value is not None, after, limit)

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return self._page(lambda record: bool(record.unsent), after, limit)

    async def close(self) -> None:
        self._records.clear()

    def _load(self, key: str) -> Loaded:
        if key not in self._records:
            return Loaded(Record(), None)
        record, etag = self._records[key]
        return Loaded(self._live(record), etag)

    def _live(self, record: Record) -> Record:
        if record.expires is None or record.expires > self._clock():
            return record
        return msgspec.structs.replace(record, value=None, expires=None)

    def _save(self, write: Write) -> Saved | Conflict:
        stored = self._records.get(write.key)
        if (stored[1] if stored is not None else None) != write.etag:
            return Conflict()
        self._writes += 1
        etag = str(self._writes)
        self._records[write.key] = (write.record, etag)
        return Saved(etag)

    def _page(self, wanted: Callable[[Record], bool], after: str | None, limit: int) -> Page:
        keys = sorted(
            key for key, (record, _) in self._records.items() if wanted(record) and (after is None or key > after)
        )
        page = tuple(keys[:limit])
        return Page(page, page[-1] if len(keys) > limit else None)
