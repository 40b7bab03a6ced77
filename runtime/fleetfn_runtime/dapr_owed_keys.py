"""Which keys may hold unsent emits, beside their records: whoever starts after a crash must not look through all.

Each worker has a list of its own, written before the first record that it names; a key that is on it costs nothing
more. A worker that ends as it should takes its list away, so the next one finds nothing to look through. A list whose
worker was killed stays until it is old and nothing it names is owed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable

import msgspec
from fleetfn.errors import StoreError

from fleetfn_runtime.dapr_documents import Documents, Put

LISTS = "unsent"
"""The document that names all lists."""

KEPT = 1000
KEPT_BYTES = 64 * 1024
"""Keys of a list that are kept though nothing is owed for them now: vehicles that emit once will do so again."""

RENEWED = 900.0
"""Seconds after which a list is written again before it is relied on."""

OLD = 4 * RENEWED
"""Seconds after which a list that was not written is its worker's no longer."""


class _List(msgspec.Struct, frozen=True, array_like=True):
    written: float
    keys: tuple[str, ...]


_encode = msgspec.msgpack.Encoder().encode
_list = msgspec.msgpack.Decoder(_List).decode
_lists = msgspec.msgpack.Decoder(list[str]).decode


class OwedKeys:
    """Every method but `settled` raises StoreError. `clock`: Unix seconds."""

    def __init__(self, documents: Documents, clock: Callable[[], float]) -> None:
        self._documents = documents
        self._clock = clock
        self._id = os.urandom(8).hex()
        self._owing: set[str] = set()
        self._listed: set[str] = set()
        self._written = 0.0
        self._version: str | None = None
        self._turn = asyncio.Lock()

    async def before(self, keys: Iterable[str]) -> None:
        """Records of these keys may hold unsent emits from now on."""
        wanted = set(keys)
        self._owing |= wanted
        while wanted and not self._covers(wanted):
            async with self._turn:
                if not self._covers(wanted):
                    await self._write()

    def settled(self, key: str) -> None:
        """Its record holds none, or it is somebody else's by now."""
        self._owing.discard(key)

    async def named(self) -> set[str]:
        """Of all lists."""
        return {key for found in (await self._all()).values() for key in found.keys}

    async def forget(self, owed: set[str]) -> None:
        """Take lists away that are old and name none of these."""
        limit = self._clock() - OLD
        gone = {
            id_ for id_, found in (await self._all()).items() if found.written < limit and owed.isdisjoint(found.keys)
        }
        await self._remove(gone - {self._id})

    async def documents(self) -> list[str]:
        """Names of all that they consist of; this one's own is none of them any more."""
        names = [LISTS, *(_name(id_) for id_ in await self._all())]
        self._version, self._listed = None, set()
        return names

    async def close(self) -> None:
        with contextlib.suppress(StoreError):  # it is found to be old one day
            if self._version is not None and not self._owing:
                await self._remove({self._id})

    def _covers(self, keys: set[str]) -> bool:
        return keys <= self._listed and self._clock() - self._written < RENEWED

    async def _write(self) -> None:
        now = self._clock()
        listed = self._owing | self._listed
        if len(listed) > KEPT or sum(map(len, listed)) > KEPT_BYTES:
            listed = set(self._owing)
        body = _encode(_List(now, tuple(sorted(listed))))
        (version,) = await self._documents.write([Put(_name(self._id), body, self._version)])
        if version is None:  # it was taken for old: a suspended machine
            self._version, self._listed = None, set()
            self._id = os.urandom(8).hex()
            return
        if self._version is None:
            await self._documents.update(LISTS, lambda there: _with(there, self._id))
        self._version, self._listed, self._written = version, listed, now

    async def _all(self) -> dict[str, _List]:
        there = (await self._documents.read([LISTS])).get(LISTS)
        names = {_name(id_): id_ for id_ in (_lists(there.body) if there is not None else ())}
        found = await self._documents.read(list(names))
        return {names[name]: _list(document.body) for name, document in found.items()}

    async def _remove(self, gone: set[str]) -> None:
        if gone:
            await self._documents.update(LISTS, lambda there: _without(there, gone))
            await self._documents.drop(_name(id_) for id_ in gone)


def _name(id_: str) -> str:
    return f"{LISTS}:{id_}"


def _with(there: bytes | None, id_: str) -> bytes | None:
    lists = _lists(there) if there is not None else []
    return None if id_ in lists else _encode([*lists, id_])


def _without(there: bytes | None, gone: set[str]) -> bytes | None:
    lists = _lists(there) if there is not None else []
    left = [id_ for id_ in lists if id_ not in gone]
    return None if left == lists else _encode(left)
