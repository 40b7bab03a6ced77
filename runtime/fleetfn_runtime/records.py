"""The records a worker has in memory: it is mostly the only writer of its keys, so that it need not read them again.

A save carries the etag, and loses where somebody else wrote. A run that saves nothing would not find out, so none are
kept where other workers write the same records.
"""

from __future__ import annotations

from fleetfn.store import Loaded

LIMIT = 32 * 1024 * 1024
"""Bytes of state values kept, with an allowance for what surrounds each."""

_OVERHEAD = 700
"""Bytes around a value, measured: the dict's slot, the key, Loaded, Record, Marks with one offset, the etag."""


class RecordCache:
    """Least recently saved records leave first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: dict[str, Loaded] = {}
        self._bytes = 0
        self.get = self._kept.get

    def put(self, key: str, loaded: Loaded) -> None:
        kept = self._kept
        old = kept.pop(key, None)
        if old is not None:
            self._bytes -= _size(old)
        kept[key] = loaded
        self._bytes += _size(loaded)
        while self._bytes > self._limit and len(kept) > 1:
            self._bytes -= _size(kept.pop(next(iter(kept))))

    def drop(self, key: str) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._bytes -= _size(old)

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


class NoRecords(RecordCache):
    """Keeps none."""

    def put(self, key: str, loaded: Loaded) -> None: ...


def _size(loaded: Loaded) -> int:
    value = loaded.record.value
    return _OVERHEAD + (len(value) if value is not None else 0)
