"""Sending to a kafka trigger of a cluster: its function's worker has client and connection, and is asked to write.

Items go in batches, one after the other; while one is on its way those of the next are gathered, up to a limit, beyond
which the sender waits. Between batches the function may fall asleep: it is woken again. What a pod may have written and
did not tell of is never sent once more: the sending ends, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import HttpClient, NotAskedError, Reply, UnreachableError
from fleetfn_spec.control import Refusal, SendLine
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import SendRecord, SendRecords, SendReply
from fleetfn_triggers.kafka import Kafka
from fleetfn_triggers.push import MSGPACK

from fleetfn_gateway import unsent_record
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.pods import Pods, Seen
from fleetfn_gateway.sending import Items, Progress

WAKE_LIMIT = 60.0
"""Seconds that a batch waits for a pod that takes it."""

BATCH = 1024 * 1024
"""Bytes that are gathered while a batch is on its way; one record may be larger."""

_FRAMING = 100
"""Bytes that a record costs beside what is in it."""

_ANSWER = 90.0
"""Seconds for a batch: a worker's brokers have 60 to acknowledge it."""

_AGAIN = 0.25
"""Seconds until a pod is looked for again, where one that was ready took no connection."""

_FINE = 300


class KafkaSends:
    """Use on one loop. `why`: why a function has no pod, for people."""

    def __init__(
        self,
        pods: Pods,
        demand: Demand,
        client_of: Callable[[str, str], HttpClient],
        why: Callable[[str], str],
        wake_limit: float = WAKE_LIMIT,
    ) -> None:
        self._pods = pods
        self._demand = demand
        self._client_of = client_of
        self._why = why
        self._wake_limit = wake_limit

    async def send(self, name: str, trigger: Trigger, kafka: Kafka, items: Items, progress: Progress) -> SendLine:
        """Returns when the broker has acknowledged all. Raises FleetError for what it did not take."""
        find = unsent_record.key_of(name, trigger)
        async with _Gathering(unsent_record.record(kafka.topic, item, find) async for item in items) as gathering:
            while records := await gathering.batch():
                reply = await self._write(name, SendRecords(trigger=trigger.name, records=records), progress)
                progress.count(reply.written)
                if reply.refusal is not None:
                    raise FleetError(reply.refusal.message, hint=reply.refusal.hint)
        return SendLine(sent=progress.sent, lag=await self._lag(name, trigger), finished=True)

    async def _write(self, name: str, asked: SendRecords, progress: Progress) -> SendReply:
        body, limit = msgspec.msgpack.encode(asked), asyncio.get_running_loop().time() + self._wake_limit
        with self._demand.waiting(name):
            while True:
                ready = await self._pods.first(name, max(0.0, limit - asyncio.get_running_loop().time()))
                if not ready:
                    raise FleetError(f"no pod of {name!r} was ready within {self._wake_limit:g} s: {self._why(name)}")
                try:
                    return await self._ask(name, ready[0], body)
                except NotAskedError:  # it ends, and that is not known yet
                    await asyncio.sleep(_AGAIN)
                except UnreachableError as error:
                    raise _unknown(ready[0], len(asked.records), progress.sent, error) from error

    async def _lag(self, name: str, trigger: Trigger) -> int | None:
        """None also where it sleeps by now: it is not woken to count."""
        asked = msgspec.msgpack.encode(SendRecords(trigger=trigger.name, records=[], lag=True))
        for pod in self._pods.ready(name)[:1]:
            try:
                return (await self._ask(name, pod, asked)).lag
            except FleetError:
                return None
        return None

    async def _ask(self, name: str, pod: Seen, body: bytes) -> SendReply:
        """By a connection of its own: on a kept one that just ends nobody could tell what was heard. Raises
        UnreachableError; FleetError where nothing was written.
        """
        client = self._client_of(name, pod.place)
        try:
            reply = await client.request("POST", "/send", body, content_type=MSGPACK, limit=_ANSWER)
        finally:
            await client.close()
        return _read(reply)


def _read(reply: Reply) -> SendReply:
    try:
        if reply.status < _FINE:
            return msgspec.json.decode(reply.body, type=SendReply)
        refusal = msgspec.json.decode(reply.body, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreachableError(f"its answer (status {reply.status}) cannot be read: {error}") from error
    if reply.status >= 500:  # noqa: PLR2004 - it broke on the way
        raise UnreachableError(refusal.message)
    raise FleetError(refusal.message, hint=refusal.hint or "deploy the function anew, if this revision is an old one")


def _unknown(pod: Seen, count: int, sent: int, error: UnreachableError) -> FleetError:
    return FleetError(
        f"pod {pod.name} did not tell what became of the {count} items after the first {sent}: {error.message}",
        hint="the broker may have written them or not; sending on from there may write them twice",
    )


class _Gathering:
    """Reads records on while others are written."""

    def __init__(self, records: AsyncIterator[SendRecord]) -> None:
        self._records = records
        self._waiting: list[SendRecord] = []
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def batch(self) -> list[SendRecord]:
        """What has come, one record at least; none: that was all. Raises what `records` does, after all before it."""
        while not self._waiting and not self._reading.done():
            self._news.clear()
            await self._news.wait()
        if not self._waiting:
            self._reading.result()
        found, self._waiting, self._size = self._waiting, [], 0
        self._room.set()
        return found

    async def _read(self) -> None:
        async for record in self._records:
            self._waiting.append(record)
            self._size += _size(record)
            self._news.set()
            while self._size >= BATCH:
                self._room.clear()
                await self._room.wait()


def _size(record: SendRecord) -> int:
    named = sum(len(name) + len(text) for name, text in record.headers.items())
    return _FRAMING + len(record.value or b"") + len(record.key or "") + named
