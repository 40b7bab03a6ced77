"""The Store on a state store component of Dapr: a document per record, and beside them an index of keys (they are
listed in order) and lists of keys that may hold unsent emits.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec
from fleetfn.errors import FleetError, RecordError, StoreError
from fleetfn.invocation import Emit
from fleetfn.position import Marks
from fleetfn.store import Conflict, Loaded, Page, Record, Saved, Write

from fleetfn_runtime.dapr_documents import WRITES, Document, Documents, Put
from fleetfn_runtime.dapr_key_index import KeyIndex
from fleetfn_runtime.dapr_owed_keys import OwedKeys
from fleetfn_runtime.dapr_sidecar import Sidecar, SidecarError

T = TypeVar("T")

OWNER = "owner"
"""The document that says whose records these are."""

LONGEST = 200
"""Characters of a key in the component; postgresql's index takes 2,704 bytes, others less. A longer one is hashed."""

FORMAT = 1

PAGE = 1000
"""Keys that are removed before the next are looked up."""


class _Owner(msgspec.Struct, frozen=True):
    format: int
    function: str


class _Record(msgspec.Struct, frozen=True, array_like=True):
    key: str
    value: bytes | None
    expires: float | None
    marks: Marks
    unsent: tuple[Emit, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode
_owner = msgspec.json.Decoder(_Owner).decode

_ABSENT = Loaded(Record(), None)
_CONFLICT = Conflict()


class DaprStore:
    """See the port, `fleetfn.store.Store`. Durable as the component is: see docs/dapr.md."""

    def __init__(self, sidecar: Sidecar, component: str, *, clock: Callable[[], float] = time.time) -> None:
        self._sidecar = sidecar
        self._clock = clock
        self.documents = Documents(sidecar, component)
        self._index = KeyIndex(self.documents)
        self._owed = OwedKeys(self.documents, clock)

    @classmethod
    async def open(
        cls, sidecar: Sidecar, component: str, function: str, *, clock: Callable[[], float] = time.time
    ) -> DaprStore:
        """Wait for the sidecar; see that its component is fit, and that these records are the function's. `function`:
        its name and namespace. Raises FleetError.
        """
        store = cls(sidecar, component, clock=clock)
        try:
            await sidecar.ready()
            await store._own(component, function)
        except BaseException:
            await sidecar.close()
            raise
        return store

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        return [self._loaded(record, version) for _, record, version in await self._held(keys)]

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        if not writes:
            return []
        names = [_name(write.key) for write in writes]
        puts = [Put(name, _encoded(write), write.etag) for name, write in zip(names, writes, strict=True)]
        await asyncio.gather(
            self._index.add(write.key for write in writes if write.etag is None),
            self._owed.before(write.key for write in writes if write.record.unsent),
        )
        versions = await _of_keys(self.documents.write(puts), names, [write.key for write in writes])
        for write, version in zip(writes, versions, strict=True):
            if version is None or not write.record.unsent:
                self._owed.settled(write.key)
        return [Saved(version) if version is not None else _CONFLICT for version in versions]

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:
        found: list[str] = []
        at, ended = after, False
        while not ended and len(found) <= limit:
            names, ended = await self._index.after(at, limit + 1)
            for start in range(0, len(names), limit + 1):
                found += await self._live(names[start : start + limit + 1])
                if len(found) > limit:
                    break
            at = names[-1] if names else at
        return Page(tuple(found[:limit]), found[limit - 1] if len(found) > limit else None)

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:
        named = sorted(await self._owed.named())
        found: list[str] = []
        for start in range(0, len(named), limit + 1):
            part = [key for key in named[start : start + limit + 1] if after is None or key > after]
            found += [key for key, record, _ in await self._held(part) if record is not None and record.unsent]
            if len(found) > limit:
                return Page(tuple(found[:limit]), found[limit - 1])
        if after is None and named:
            await self._owed.forget(set(found))
        return Page(tuple(found), None)

    async def forget(self) -> int:
        """Remove everything, of a function without workers; how many keys it knew. Keys stay in the index until their
        records are gone, and whose records they are goes last: broken off, it is done again. Raises StoreError.
        """
        count, after, ended = 0, None, False
        while not ended:
            keys, ended = await self._index.after(after, PAGE)
            await self._drop([_name(key) for key in keys])
            count, after = count + len(keys), keys[-1] if keys else after
        await self._drop(await self._owed.documents())
        directory, first, *leaves = await self._index.documents()
        await self.documents.drop([directory, first])  # in this order: then nothing leads to the others
        await self._drop([*leaves, OWNER])
        return count

    async def close(self) -> None:
        await self._owed.close()
        await self._sidecar.close()

    async def _drop(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), WRITES):
            await asyncio.gather(*(self.documents.drop([name]) for name in names[start : start + WRITES]))

    async def _live(self, keys: Sequence[str]) -> list[str]:
        """Those that have a value. What has expired is taken out of the component, since somebody has come by."""
        live: list[str] = []
        expired: list[Write] = []
        for key, record, version in await self._held(keys):
            if record is None or record.value is None:
                continue
            if not self._has_expired(record):
                live.append(key)
            elif not record.unsent:
                expired.append(Write(key, Record(None, record.marks), version))
        if expired:
            with contextlib.suppress(StoreError):  # for the next who comes by
                await self.save(expired)
        return live

    async def _held(self, keys: Sequence[str]) -> list[tuple[str, _Record | None, str | None]]:
        names = [_name(key) for key in keys]
        found = await _of_keys(self.documents.read(names), names, keys)
        return [(key, *_decoded(key, found.get(name))) for key, name in zip(keys, names, strict=True)]

    def _has_expired(self, record: _Record) -> bool:
        return record.expires is not None and record.expires <= self._clock()

    def _loaded(self, record: _Record | None, version: str | None) -> Loaded:
        if record is None:
            return _ABSENT
        value, expires = record.value, record.expires
        if value is None or self._has_expired(record):
            value = expires = None
        return Loaded(Record(value, record.marks, record.unsent, expires), version)

    async def _own(self, component: str, function: str) -> None:
        there = (await self.documents.read([OWNER])).get(OWNER)
        if there is None:
            await self._check_features(component)
            mark = msgspec.json.encode(_Owner(FORMAT, function))
            await self.documents.update(OWNER, lambda body: mark if body is None else None)
            there = (await self.documents.read([OWNER]))[OWNER]
        try:
            owner = _owner(there.body)
        except msgspec.MsgspecError as error:
            raise _unreadable(OWNER, str(error)) from error
        if owner.function != function:
            raise FleetError(
                f"the Dapr component {component!r} shows {function} the state of {owner.function}",
                hint="let keyPrefix of the component be appid, its default, and give each function its own app-id",
            )
        if owner.format > FORMAT:
            raise FleetError(
                f"a newer FleetFn has written the state of {function} (format {owner.format})", hint="use that one"
            )

    async def _check_features(self, component: str) -> None:
        """Raises FleetError for a component that keeps no etags."""
        try:
            reply = await self._sidecar.ask("GET", "/v1.0/metadata")
        except SidecarError as error:
            raise FleetError(error.message, hint=error.hint) from error
        try:
            known = msgspec.json.decode(reply.body, type=_Metadata).components
        except msgspec.MsgspecError:
            return  # the first write tells
        for each in known:
            if each.name == component and each.capabilities and "ETAG" not in each.capabilities:
                raise FleetError(
                    f"the Dapr component {component!r} ({each.type}) keeps no etags: two workers could undo each "
                    "other's writes",
                    hint="use one that does: state.redis, state.postgresql, state.sqlite",
                )


class _Component(msgspec.Struct):
    name: str
    type: str = ""
    capabilities: list[str] | None = None


class _Metadata(msgspec.Struct):
    components: list[_Component] = []


def _name(key: str) -> str:
    """Raises RecordError."""
    try:
        name = quote(key, safe="")
    except UnicodeEncodeError as error:
        raise RecordError(
            f"there is no record of key {key!r}: {error}",
            key=key,
            hint="keys must be Unicode text, without lone surrogates",
        ) from error
    if len(name) > LONGEST:
        return f"long:{hashlib.sha256(key.encode()).hexdigest()}"
    return f"record:{name}"


def _decoded(key: str, document: Document | None) -> tuple[_Record | None, str | None]:
    """Raises RecordError."""
    if document is None:
        return None, None
    try:
        record = _decode(document.body)
    except msgspec.MsgspecError as error:
        raise _unreadable(key, str(error)) from error
    if record.key != key:
        raise _unreadable(key, f"it is that of key {record.key!r}")
    return record, document.version


def _encoded(write: Write) -> bytes:
    """Raises RecordError."""
    record = write.record
    try:
        return _encode(_Record(write.key, record.value, record.expires, record.marks, record.unsent))
    except UnicodeEncodeError as error:
        raise RecordError(
            f"the record of key {write.key!r} cannot be written: {error}",
            key=write.key,
            hint="the attributes of emitted events must be Unicode text, without lone surrogates",
        ) from error


async def _of_keys(work: Awaitable[T], names: Iterable[str], keys: Iterable[str]) -> T:
    """What is at fault with a document is so with its key's record."""
    try:
        return await work
    except RecordError as error:
        of = dict(zip(names, keys, strict=True))
        if error.key not in of:
            raise
        key = of[error.key]
        raise RecordError(f"the record of key {key!r}: {error.message}", key=key, hint=error.hint) from error


def _unreadable(key: str, why: str) -> RecordError:
    return RecordError(
        f"the record of key {key!r} in the Dapr component cannot be read: {why}",
        key=key,
        hint="somebody else writes under the function's app-id, or a newer FleetFn has written it",
    )
