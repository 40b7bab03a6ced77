"""The keys of a function in order, beside its records: Dapr's state API lists nothing.

Leaves hold stretches of keys; each knows where it ends and which leaf comes next. A leaf that is full is split: first
the right half is written, to which nobody refers, then the left one, which now leads to it. So every change is one
conditional write, readers meet no gap, and keys never move to the left: whoever walks from key to key meets each once.
A directory of leaves saves the way from leaf to leaf. It may lag behind: what it does not know is found by `next`.

Hashing keys over a fixed number of shards would be simpler, and each page of a walk would have to read all of them.
"""

from __future__ import annotations

import asyncio
import bisect
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from fleetfn.errors import StoreError

from fleetfn_runtime.dapr_documents import TURNS, Document, Documents, Put, step_aside

DIRECTORY = "index"
FIRST = "0"
"""The leaf that everything begins with."""

KEYS = 512
BYTES = 48 * 1024
"""Of a leaf: it is written whole for each key that comes to it."""

CERTAIN = 50_000
"""Keys known to be in the index that are remembered, so that a create that is tried again asks for nothing."""

_HINT = "the component has lost documents; restore it as a whole"


class _Leaf(msgspec.Struct, frozen=True, array_like=True):
    keys: tuple[str, ...] = ()
    high: str | None = None
    """First key that is beyond it; None: there is none."""
    next: str | None = None


class _Entry(msgspec.Struct, frozen=True, array_like=True, order=True):
    low: str
    leaf: str


class _Found(NamedTuple):
    id: str
    leaf: _Leaf
    version: str | None


_encode = msgspec.msgpack.Encoder().encode
_leaf = msgspec.msgpack.Decoder(_Leaf).decode
_entries = msgspec.msgpack.Decoder(list[_Entry]).decode

_START = _Entry("", FIRST)


class KeyIndex:
    """Every method raises StoreError. Keys are never taken out."""

    def __init__(self, documents: Documents, *, keys: int = KEYS) -> None:
        self._documents = documents
        self._most = keys
        self._directory = [_START]
        self._read_directory = False
        self._certain: dict[str, None] = {}
        self._waiting: set[str] = set()
        self._turn = asyncio.Lock()

    async def add(self, keys: Iterable[str]) -> None:
        """They are in the index, for good, when it returns. What is asked meanwhile goes into the next turn."""
        wanted = {key for key in keys if key not in self._certain}
        self._waiting |= wanted
        while not wanted <= self._certain.keys():
            async with self._turn:
                batch = sorted(self._waiting)
                if wanted <= self._certain.keys() or not batch:
                    break
                await self._add(batch)
                self._waiting.difference_update(batch)
                self._certain.update(dict.fromkeys(batch))
        while len(self._certain) > CERTAIN:
            del self._certain[next(iter(self._certain))]

    async def after(self, key: str | None, limit: int) -> tuple[Sequence[str], bool]:
        """The keys that follow, `limit` at most unless one leaf alone has more; whether there are none beyond them."""
        found: list[str] = []
        at = await self._find(key or "")
        while True:
            keys = at.leaf.keys
            found += keys if key is None else keys[bisect.bisect_right(keys, key) :]
            if at.leaf.next is None:
                return found, True
            if len(found) >= limit:
                return found, False
            at = await self._next(at)

    async def documents(self) -> list[str]:
        """Names of all that it consists of: the directory, the first leaf, the others."""
        names = [DIRECTORY]
        at = await self._read(FIRST)
        while True:
            names.append(_name(at.id))
            if at.leaf.next is None:
                return names
            at = await self._read(at.leaf.next)

    # Finding

    async def _find(self, key: str) -> _Found:
        """The leaf that a key belongs to."""
        if not self._read_directory:
            await self._learn()
        place = bisect.bisect_right(self._directory, key, key=lambda entry: entry.low) - 1
        at = await self._read(self._directory[place].leaf)
        while at.leaf.high is not None and key >= at.leaf.high:
            at = await self._next(at)
        return at

    async def _next(self, at: _Found) -> _Found:
        if at.leaf.high is None or at.leaf.next is None:
            raise StoreError(f"the key index ends at leaf {at.id!r}, before its last key", hint=_HINT)
        self._note(_Entry(at.leaf.high, at.leaf.next))
        return await self._read(at.leaf.next)

    async def _read(self, leaf: str) -> _Found:
        name = _name(leaf)
        found: Document | None = (await self._documents.read([name])).get(name)
        if found is None:
            if leaf == FIRST:
                return _Found(leaf, _Leaf(), None)
            raise StoreError(f"the key index has no leaf {leaf!r}", hint=_HINT)
        return _Found(leaf, _leaf(found.body), found.version)

    # Adding

    async def _add(self, keys: list[str]) -> None:
        """`keys`: ascending."""
        turn = 0
        while keys:
            at = await self._find(keys[0])
            own = bisect.bisect_left(keys, at.leaf.high) if at.leaf.high is not None else len(keys)
            if await self._add_to(at, keys[:own]):
                keys = keys[own:]
                turn = 0
                continue
            turn += 1
            if turn == TURNS:
                raise StoreError("the key index is written by too many at the same time")
            await step_aside(turn)

    async def _add_to(self, at: _Found, keys: list[str]) -> bool:
        """False: somebody else has changed the leaf."""
        merged = sorted({*at.leaf.keys, *keys})
        if len(merged) == len(at.leaf.keys):
            return True
        parts = _split(merged, self._most)
        if len(parts) == 1:
            return await self._write(at, _Leaf(tuple(merged), at.leaf.high, at.leaf.next))
        return await self._write_split(at, parts)

    async def _write(self, at: _Found, leaf: _Leaf) -> bool:
        (version,) = await self._documents.write([Put(_name(at.id), _encode(leaf), at.version)])
        return version is not None

    async def _write_split(self, at: _Found, parts: list[list[str]]) -> bool:
        """From the right to the left, so that whoever finds a leaf finds the one after it, too."""
        high, following = at.leaf.high, at.leaf.next
        new: list[_Entry] = []
        puts: list[Put] = []
        for part in reversed(parts[1:]):
            fresh = os.urandom(8).hex()
            puts.append(Put(_name(fresh), _encode(_Leaf(tuple(part), high, following)), None))
            high, following = part[0], fresh
            new.append(_Entry(high, fresh))
        if None in await self._documents.write(puts):
            raise StoreError("a new leaf of the key index has a name that is taken already")
        if not await self._write(at, _Leaf(tuple(parts[0]), high, following)):
            await self._documents.drop(put.key for put in puts)  # nothing leads to them
            return False
        for entry in new:
            self._note(entry)
        await self._tell()
        return True

    # The directory

    def _note(self, entry: _Entry) -> None:
        place = bisect.bisect_left(self._directory, entry)
        if self._directory[place : place + 1] != [entry]:
            self._directory.insert(place, entry)

    async def _learn(self) -> None:
        found = (await self._documents.read([DIRECTORY])).get(DIRECTORY)
        for entry in _entries(found.body) if found is not None else ():
            self._note(entry)
        self._read_directory = True

    async def _tell(self) -> None:
        def merged(body: bytes | None) -> bytes | None:
            before = set(_entries(body)) if body is not None else set()
            for entry in before:
                self._note(entry)
            return None if before.issuperset(self._directory) else _encode(self._directory)

        await self._documents.update(DIRECTORY, merged)


def _name(leaf: str) -> str:
    return f"{DIRECTORY}:{leaf}"


def _split(keys: list[str], most: int) -> list[list[str]]:
    """In one part where it fits into one leaf; else into parts that are half full, for what comes between."""
    if len(keys) <= most and sum(map(len, keys)) <= BYTES:
        return [keys]
    parts: list[list[str]] = [[]]
    size = 0
    for key in keys:
        if parts[-1] and (len(parts[-1]) >= most // 2 or size + len(key) > BYTES // 2):
            parts.append([])
            size = 0
        parts[-1].append(key)
        size += len(key)
    return parts
