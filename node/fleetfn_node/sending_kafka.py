"""Sending to a kafka trigger: records into its topic. The embedded broker drops old ones, so there it heeds the lag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fleetfn_gateway import unsent_record
from fleetfn_gateway.sending import Items, Progress
from fleetfn_gateway.unsent_record import KeyOf
from fleetfn_runtime import kafka_sending
from fleetfn_spec.control import SendLine
from fleetfn_triggers import kafka_client
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.secret import Resolve

UNREAD = 1024 * 1024
"""Bytes that may wait unread in the embedded broker, which keeps 5 MiB of a partition; beyond, sending waits."""

_BETWEEN = 256 * 1024
"""Bytes between two looks at the lag."""

_LOOK_AGAIN = 0.1
"""Seconds between looks while it waits."""

Lag = Callable[[], Awaitable[int | None]]


async def send(
    connection: KafkaConnection,
    topic: str,
    items: Items,
    progress: Progress,
    *,
    key_of: KeyOf,
    resolve: Resolve,
    client_id: str,
    lag: Lag,
    throttle: bool,
) -> SendLine:
    """Returns when the broker has acknowledged all. Raises FleetError for what it did not take."""
    settings = kafka_client.client_settings(connection, resolve, client_id)
    unread = _Unread(lag, progress) if throttle else None
    with kafka_sending.producing(settings) as producer:
        async for item in items:
            record = unsent_record.record(topic, item, key_of)
            await producer.send(topic, record)
            progress.count()
            if unread is not None:
                await unread.wait(len(record.value or b""))
        await producer.flush()
    return SendLine(sent=progress.sent, lag=await lag(), finished=True)


class _Unread:
    """Keeps what nobody has read yet below UNREAD bytes."""

    def __init__(self, lag: Lag, progress: Progress) -> None:
        self._lag = lag
        self._progress = progress
        self._since = 0
        self._bytes = 0

    async def wait(self, size: int) -> None:
        self._since += size
        self._bytes += size
        if self._since < _BETWEEN:
            return
        self._since = 0
        mean = max(1.0, self._bytes / self._progress.sent)
        while True:
            self._progress.lag = lag = await self._lag()
            if lag is None or lag * mean <= UNREAD:
                return
            self._progress.tell_now_and_then()
            await asyncio.sleep(_LOOK_AGAIN)
