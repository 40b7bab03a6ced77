"""The Inbox that a gateway serves, as its workers use it: requests on its unix socket, or over TLS.

What is asked while a request of its kind is on its way goes into the next one, so that many callers share a commit, and
offers and letters reach the gateway in the order in which they were made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from fleetfn.errors import StoreError
from fleetfn_plumbing.http_client import HttpClient, Reply, UnreachableError
from fleetfn_plumbing.plain_text import plain_all
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import Passed
from fleetfn_triggers.inbox import Answer, Arrival, Claim, Claimed, Letter, Offer
from fleetfn_triggers.push import MSGPACK

LIMIT = 10.0
"""Seconds for an answer. A commit takes milliseconds; a disk that is busy elsewhere, a second."""

BATCH = 1024
"""Items of one request, unless one call alone has more."""

BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of one request, unless one call alone has more."""

_REFUSED, _FAILED = 400, 500
"""Statuses from the first on bear a Refusal, from the second on one that is not of what was asked."""

_HINT = "what waits for it goes on by itself once it answers; its log says why it does not"

R = TypeVar("R")

_encode = msgspec.msgpack.Encoder().encode
_numbers = msgspec.msgpack.Decoder(list[int])
_answers = msgspec.msgpack.Decoder(list[Answer])
_claimed = msgspec.msgpack.Decoder(Claimed)


class GatewayInbox:
    """See the port, `fleetfn_triggers.inbox.Inbox`. Use on one loop; it connects when it is first asked. `client` is
    its own.
    """

    def __init__(self, client: HttpClient, *, limit: float = LIMIT) -> None:
        self._client = client
        self._limit = limit
        self._puts = _Batches(self._ask, "/v1/put", _numbers)
        self._offers = _Batches(self._ask, "/v1/offer", _answers)
        self._letters = _Batches(self._ask, "/v1/bury", _numbers)

    async def put(self, arrivals: Sequence[Arrival]) -> list[int]:
        return await self._puts.submit(arrivals)

    async def offer(self, offers: Sequence[Offer]) -> list[Answer]:
        return await self._offers.submit(offers)

    async def bury(self, letters: Sequence[Letter]) -> list[int]:
        return await self._letters.submit(letters)

    async def claim(self, claim: Claim) -> Claimed:
        return _read(_claimed, await self._ask("/v1/claim", _bytes(claim)))

    async def passed(self, function: str, trigger: str, stream: str, offsets: Mapping[int, int]) -> None:
        said = Passed(function=function, trigger=trigger, stream=stream, offsets=dict(offsets))
        await self._ask("/v1/passed", _bytes(said))

    async def close(self) -> None:
        for batches in (self._puts, self._offers, self._letters):
            await batches.close()
        await self._client.close()

    async def _ask(self, path: str, body: bytes) -> bytes:
        try:
            reply = await self._client.request("POST", path, body, content_type=MSGPACK, limit=self._limit)
        except UnreachableError as error:
            raise StoreError(f"the gateway does not answer: {error.message}", hint=_HINT) from error
        if reply.status >= _REFUSED:
            raise _refused(reply)
        return reply.body


class _RefusedError(StoreError):
    """The gateway will not have what was asked."""


class _Submission(NamedTuple):
    items: list[bytes]
    size: int
    future: asyncio.Future[list[Any]]


class _Batches(Generic[R]):
    """Calls of one kind, in order: one request at a time."""

    def __init__(
        self,
        ask: Callable[[str, bytes], Awaitable[bytes]],
        path: str,
        decoder: msgspec.msgpack.Decoder[list[R]],
    ) -> None:
        self._ask = ask
        self._path = path
        self._decoder = decoder
        self._waiting: deque[_Submission] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[msgspec.Struct]) -> list[R]:
        if not items:
            return []
        loop = asyncio.get_running_loop()
        encoded = [_bytes(item) for item in items]
        future: asyncio.Future[list[R]] = loop.create_future()
        self._waiting.append(_Submission(encoded, sum(map(len, encoded)), future))
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return await future

    async def close(self) -> None:
        """Whoever still waits is told that nothing is known."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))

    async def _send(self) -> None:
        batch: list[_Submission] = []
        try:
            while self._waiting:
                batch = self._next()
                await self._request(batch)
        finally:
            self._sending = None
            _fail([*batch, *self._waiting], StoreError("the inbox is closed"))
            self._waiting.clear()

    def _next(self) -> list[_Submission]:
        batch = [self._waiting.popleft()]
        count, size = len(batch[0].items), batch[0].size
        while self._waiting:
            following = self._waiting[0]
            count, size = count + len(following.items), size + following.size
            if count > BATCH or size > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _results(self, body: bytes, count: int) -> list[R]:
        results = _read(self._decoder, body)
        if len(results) != count:
            raise StoreError(f"the gateway answers {self._path} with {len(results)} results for {count}")
        return results

    async def _request(self, batch: list[_Submission]) -> None:
        items = [msgspec.Raw(item) for one in batch for item in one.items]
        try:
            results = self._results(await self._ask(self._path, _encode(items)), len(items))
        except _RefusedError as refused:
            if len(batch) == 1:
                _fail(batch, refused)
                return
            for one in batch:  # it may be one of them that cannot be taken
                await self._request([one])
        except StoreError as error:
            _fail(batch, error)
        else:
            start = 0
            for one in batch:
                end = start + len(one.items)
                if not one.future.done():
                    one.future.set_result(results[start:end])
                start = end


def _fail(batch: Sequence[_Submission], error: StoreError) -> None:
    for one in batch:
        if not one.future.done():
            one.future.set_exception(error)


def _bytes(item: msgspec.Struct) -> bytes:
    """A dead letter must never be lost for a lone surrogate in an exception's text."""
    try:
        return _encode(item)
    except UnicodeEncodeError:
        return _encode(plain_all(msgspec.to_builtins(item, builtin_types=(bytes, datetime))))


def _read(decoder: msgspec.msgpack.Decoder[R], body: bytes) -> R:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"the gateway's answer cannot be read: {error}", hint="are both of one FleetFn?") from error


def _refused(reply: Reply) -> StoreError:
    kind = _RefusedError if reply.status < _FAILED else StoreError
    try:
        refusal = msgspec.json.decode(reply.body, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return kind(f"the gateway refuses with status {reply.status}: {reply.body[:200]!r}")
    return kind(refusal.message, hint=refusal.hint)
