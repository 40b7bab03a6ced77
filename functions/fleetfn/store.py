"""The Store port: one record per function and key, written by one conditional write.

A store belongs to one function. Etags are opaque; `None` stands for "no record". Results come one per item, in the
order asked: one item's conflict never fails another. Records and what surrounds them are Structs, since they are made
for each event: a frozen dataclass takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from fleetfn.invocation import Emit
from fleetfn.position import Marks


class Record(msgspec.Struct, frozen=True):
    """What is kept of one key. `value` is the encoded state, None when there is none (never set, deleted, expired)."""

    value: bytes | None = None
    marks: Marks = Marks()
    unsent: tuple[Emit, ...] = ()
    expires: float | None = None
    """Unix seconds at which `value` (never marks or unsent emits) is gone; None: never."""


class Loaded(msgspec.Struct, frozen=True):
    record: Record
    etag: str | None
    """None: no record is stored."""


class Write(msgspec.Struct, frozen=True):
    key: str
    record: Record
    etag: str | None
    """The write happens only if the stored etag equals this; None: only if no record is stored."""


class Saved(msgspec.Struct, frozen=True):
    etag: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody else wrote the record: load it and run again."""


@dataclass(frozen=True, slots=True)
class Page:
    """Keys in ascending (code point) order; `after` is the place to go on from, None at the end."""

    keys: tuple[str, ...]
    after: str | None


class Store(Protocol):
    """Every method raises StoreError when the store as a whole cannot answer; nothing is half-written then. `load` and
    `save` raise RecordError, which names the key, when it is one record that cannot be read or written.
    """

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        """The committed record of each key; an expired value is absent already."""
        ...

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        """Write each record if its etag still holds. Durable (fsynced) when it returns. Keys of one call differ."""
        ...

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:
        """Keys that have a live value."""
        ...

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:
        """Keys whose record holds unsent emits."""
        ...

    async def close(self) -> None: ...
