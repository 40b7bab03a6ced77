"""Documents in a state store of Dapr, each written by one conditional write that tells for sure what came of it.

Dapr gives no etag back for a write, answers a bulk write as a whole, and says of a create that came too late "failed to
set key" (redis) or "no item was updated" (postgresql), with 500. So each document carries a version of our own, and its
last few: whoever is in doubt looks which one is there. Dapr's etag is looked up by the version it belongs to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from fleetfn.errors import RecordError, StoreError

from fleetfn_runtime.dapr_sidecar import Reply, Sidecar, SidecarError

READS = 50
WRITES = 16
"""Documents of one request at most: the sidecar handles them at the same time, as it does requests. With 1,600 under
way redis' pool of connections gave 188 reads a second, with 400 some 5,000; sqlite gives up waiting for its lock.
"""

BYTES = 1024 * 1024
"""Bytes of one request, unless one document alone has more. The sidecar takes 4 MiB by default."""

KEPT = 20_000
"""Etags known, and writes in doubt remembered, at most."""

LOOKS = 3
"""Bulk reads until one has all that is there; somebody may write in between."""

TURNS = 200
"""Tries to write a document that others write as well."""

WRITERS = 8
"""Of so many others a document names the last version. However often they write while somebody's sidecar is away, he
finds out whether his own last write was done. A version tells its writer: `writer.number`.
"""


class Document(NamedTuple):
    version: str
    body: bytes


class Put(NamedTuple):
    """The write happens only if the stored document has the version `on`; None: only if there is none."""

    key: str
    body: bytes
    on: str | None


class _Known(NamedTuple):
    """Dapr's etag of a version, and the last ones of those who wrote before."""

    version: str
    etag: str
    history: tuple[str, ...]


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    version: str
    history: tuple[str, ...]
    body: bytes


class _Read(msgspec.Struct, frozen=True):
    key: str
    data: Any = None
    etag: str | None = None
    error: str = ""


class _Asked(msgspec.Struct, frozen=True):
    keys: list[str]
    parallelism: int


class _Options(msgspec.Struct, frozen=True):
    concurrency: str = "first-write"
    consistency: str = "strong"


class _Written(msgspec.Struct, frozen=True, omit_defaults=True):
    key: str
    value: str
    options: _Options
    etag: str | None = None


_FIRST_WRITE = _Options()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode
_json = msgspec.json.Encoder().encode
_reads = msgspec.json.Decoder(list[_Read]).decode

_MISSING = ("ERR_STATE_STORE_NOT_FOUND", "ERR_STATE_STORE_NOT_CONFIGURED", "ERR_STATE_STORES_NOT_CONFIGURED")


class Documents:
    """Of one component. Keys are ASCII without quotes. Every method raises StoreError; RecordError where one key alone
    is at fault, and the same writes asked again find out what the first time did.
    """

    def __init__(self, sidecar: Sidecar, component: str) -> None:
        self._sidecar = sidecar
        self._component = component
        self._path = f"/v1.0/state/{component}"
        self._known: dict[str, _Known] = {}
        self._doubts: dict[str, tuple[Put, str]] = {}
        """By key the last write whose end is not known, and its version."""
        self._writer = base64.urlsafe_b64encode(os.urandom(6)).decode()
        self._numbers = itertools.count(1)
        self.requests = 0

    async def read(self, keys: Sequence[str]) -> dict[str, Document]:
        """Of those that are there."""
        found: dict[str, Document] = {}
        unique = list(dict.fromkeys(keys))
        for stored in await asyncio.gather(*(self._read(part) for part in _stretches(unique))):
            found.update({key: Document(one.version, one.body) for key, one in stored.items()})
        return found

    async def write(self, puts: Sequence[Put]) -> list[str | None]:
        """The new version of each, None: a conflict. Keys differ."""
        versions = {put.key: self._version(put) for put in puts}
        for put in puts:
            _remember(self._doubts, put.key, (put, versions[put.key]))
        await self._learn([put.key for put in puts if put.on is not None and not self._knows(put)])
        done = {put.key for put in puts if self._is_there(put.key, versions[put.key])}
        wanted = [put for put in puts if put.on is None or self._knows(put)]
        parts = await asyncio.gather(
            *(self._write(part, versions) for part in _parted(self._items(wanted, versions))), return_exceptions=True
        )
        for part in parts:
            if isinstance(part, BaseException):
                raise part
            done |= part
        for put in puts:
            self._doubts.pop(put.key, None)
        return [versions[put.key] if put.key in done else None for put in puts]

    async def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Write what `change` makes of the body that is there (None: no document), again where somebody else was
        quicker. None: nothing has to be written.
        """
        for turn in range(TURNS):
            there = (await self.read([key])).get(key)
            body = change(there.body if there is not None else None)
            if body is None or (await self.write([Put(key, body, there.version if there is not None else None)]))[0]:
                return
            await step_aside(turn)
        raise StoreError(f"{key!r} in the Dapr component {self._component!r} is written by too many at the same time")

    async def drop(self, keys: Iterable[str]) -> None:
        """Without any condition: for what nobody refers to."""
        for key in keys:
            self._known.pop(key, None)
            reply = await self._ask("DELETE", f"{self._path}/{quote(key, safe='')}")
            if not reply.ok:
                raise self._error(reply, "removed from")

    # Versions and etags

    def _version(self, put: Put) -> str:
        """Of a write that was asked before and whose end is not known: the one it had then."""
        before = self._doubts.get(put.key)
        if before is not None and before[0] == put:
            return before[1]
        return f"{self._writer}.{next(self._numbers):x}"

    def _knows(self, put: Put) -> bool:
        known = self._known.get(put.key)
        return known is not None and known.version == put.on

    def _is_there(self, key: str, version: str) -> bool:
        known = self._known.get(key)
        return known is not None and (known.version == version or version in known.history)

    async def _learn(self, keys: list[str]) -> None:
        await asyncio.gather(*(self._read(part) for part in _stretches(keys)))

    async def _read(self, keys: list[str]) -> dict[str, _Stored]:
        """Of those that are there. A bulk read of postgresql and sqlite leaves out what it could not read, as if it
        were not there, when the store goes away meanwhile: so what is missing is asked for by itself.
        """
        for _ in range(LOOKS):
            found = await self._read_bulk(keys)
            missing = [key for key in keys if key not in found]
            if all(await asyncio.gather(*map(self._is_absent, missing))):
                return found
        raise StoreError(f"the Dapr component {self._component!r} leaves documents out that it has")

    async def _is_absent(self, key: str) -> bool:
        reply = await self._ask("GET", f"{self._path}/{quote(key, safe='')}")
        if not reply.ok:
            raise self._error(reply, "read from")
        return not reply.body

    async def _read_bulk(self, keys: list[str]) -> dict[str, _Stored]:
        reply = await self._ask("POST", f"{self._path}/bulk", _json(_Asked(keys, READS)))
        if not reply.ok:
            raise self._error(reply, "read from")
        found: dict[str, _Stored] = {}
        for key in keys:
            self._known.pop(key, None)
        for one in self._answers(reply):
            if one.error:
                raise StoreError(f"the Dapr component {self._component!r} cannot read {one.key!r}: {one.error}")
            if one.data is not None and one.etag:
                found[one.key] = stored = self._decoded(one)
                _remember(self._known, one.key, _Known(stored.version, one.etag, stored.history))
        return found

    def _answers(self, reply: Reply) -> list[_Read]:
        try:
            return _reads(reply.body)
        except msgspec.MsgspecError as error:
            raise StoreError(f"the Dapr component {self._component!r} gives no list of documents: {error}") from error

    def _decoded(self, one: _Read) -> _Stored:
        try:
            return _decode(base64.b64decode(one.data, validate=True))
        except (msgspec.MsgspecError, binascii.Error, TypeError, ValueError) as error:
            raise RecordError(
                f"{one.key!r} in the Dapr component {self._component!r} cannot be read: {error}",
                key=one.key,
                hint="somebody else writes under the function's app-id, or a newer FleetFn has written it",
            ) from error

    # Writing

    def _items(self, puts: Iterable[Put], versions: dict[str, str]) -> Iterator[tuple[Put, bytes]]:
        for put in puts:
            known = self._known.get(put.key) if put.on is not None else None
            history = _history(known, versions[put.key]) if known is not None else ()
            value = base64.b64encode(_encode(_Stored(versions[put.key], history, put.body))).decode()
            yield put, _json(_Written(put.key, value, _FIRST_WRITE, known.etag if known is not None else None))

    async def _write(self, items: list[tuple[Put, bytes]], versions: dict[str, str]) -> set[str]:
        """Keys of those that are written, by this request or an earlier one."""
        done: set[str] = set()
        while True:
            body = b"[" + b",".join(item for _, item in items) + b"]"
            reply = await self._ask("POST", self._path, body)
            if reply.ok:
                for put, _ in items:
                    self._known.pop(put.key, None)
                return done | {put.key for put, _ in items}
            left = items if reply.complaint.code in _MISSING else await self._left(items, versions, done)
            if not left:
                return done
            if len(left) == len(items):
                if not reply.too_large:
                    raise self._error(reply, "written to")
                if len(items) == 1:
                    raise _too_large(items[0][0].key, len(body), reply)
                return done.union(*[await self._write([item], versions) for item in items])
            items = left  # sqlite gives up on some of many writes at once

    async def _left(
        self, items: list[tuple[Put, bytes]], versions: dict[str, str], done: set[str]
    ) -> list[tuple[Put, bytes]]:
        """Those that failed by themselves, since nobody else was quicker. What is written is added to `done`."""
        stored = await self._read([put.key for put, _ in items])
        left = []
        for item in items:
            put = item[0]
            if self._is_there(put.key, versions[put.key]):
                done.add(put.key)
            elif (stored[put.key].version if put.key in stored else None) == put.on:
                left.append(item)
        return left

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        self.requests += 1
        try:
            return await self._sidecar.ask(method, path, body)
        except SidecarError as error:
            raise StoreError(error.message, hint=error.hint) from error

    def _error(self, reply: Reply, what: str) -> StoreError:
        code, text = reply.complaint
        if code in _MISSING:
            return StoreError(
                f"the Dapr sidecar at {self._sidecar.address} has no state store {self._component!r}: {text}",
                hint="its component must be loaded there, and its scopes must name the function's app-id",
            )
        return StoreError(f"the Dapr component {self._component!r} cannot be {what}: {text}")


def _history(before: _Known, version: str) -> tuple[str, ...]:
    """The last version of each writer but that of `version`, the latest first."""
    last = {one.partition(".")[0]: one for one in reversed((before.version, *before.history))}
    last.pop(version.partition(".")[0], None)
    latest = [one for one in (before.version, *before.history) if last.get(one.partition(".")[0]) == one]
    return tuple(latest[:WRITERS])


def _too_large(key: str, size: int, reply: Reply) -> RecordError:
    return RecordError(
        f"{key!r} takes {size} bytes, which the Dapr sidecar refuses: {reply.complaint.text}",
        key=key,
        hint="keep less in it, or raise the sidecar's --max-body-size",
    )


def _stretches(keys: list[str]) -> Iterator[list[str]]:
    return (keys[start : start + READS] for start in range(0, len(keys), READS))


async def step_aside(turn: int) -> None:
    """Before the next try to write what others write as well."""
    await asyncio.sleep(random.random() * min(0.002 * (turn + 1), 0.05))


def _parted(items: Iterable[tuple[Put, bytes]]) -> Iterator[list[tuple[Put, bytes]]]:
    part: list[tuple[Put, bytes]] = []
    size = 0
    for item in items:
        if part and (len(part) == WRITES or size + len(item[1]) > BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item[1])
    if part:
        yield part


def _remember(kept: dict[str, Any], key: str, value: object) -> None:
    """The last `KEPT` are kept."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
