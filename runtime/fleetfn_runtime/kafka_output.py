"""The Publisher of one Kafka connection: events leave as binary CloudEvents, acknowledged by all replicas."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from fleetfn.cloudevents import kafka as codec
from fleetfn.errors import EventError, FleetError, OutputDown, OutputError, OutputRefused
from fleetfn.invocation import Emit
from fleetfn_triggers.kafka_client import address, client_log, client_settings, explain, is_refusal
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.secret import Resolve

log = logging.getLogger("fleetfn.kafka")

TIMEOUT = 10.0
"""Seconds until an event that brokers have not acknowledged counts as not taken: the output is down."""

QUEUED = 64 * 1024 * 1024
"""Bytes that wait for the brokers; who has more to publish waits until there is room."""

FRAMING = 512
"""Bytes that a batch of one record has beside key, value and headers, at most."""

SETTINGS = {
    "enable.idempotence": "true",
    "acks": "all",
    "linger.ms": 2,
    # how long a topic that is not there may be one that was just made
    "topic.metadata.propagation.max.ms": 1000,
}

_FOR_GOOD = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError._INVALID_ARG,  # noqa: SLF001 - so librdkafka names its own errors
)


class _Sending:
    """Results of one `publish`. Reports come on the polling thread, each into a place of its own."""

    __slots__ = ("future", "left", "results")

    def __init__(self, count: int, future: asyncio.Future[None]) -> None:
        self.results: list[OutputError | None] = [None] * count
        self.left = count
        self.future = future


class KafkaPublisher:
    """Used on one loop. `topics`: the topic of each output's name."""

    def __init__(
        self, connection: KafkaConnection, topics: Mapping[str, str], *, resolve: Resolve, client_id: str
    ) -> None:
        """Raises FleetError: a secret's, or of settings that the client does not know. Connects at the first event."""
        self._topics = dict(topics)
        self._address = address(connection)
        self._limit = int(connection.properties.get("message.max.bytes", 1_000_000))
        self._loop = asyncio.get_running_loop()
        self._ended: deque[_Sending] = deque()
        self._told = False
        self._why: KafkaError | None = None
        limit = int(TIMEOUT * 1000)
        limits = {
            "delivery.timeout.ms": limit,
            "request.timeout.ms": limit // 2,
            "queue.buffering.max.kbytes": max(QUEUED, 2 * self._limit) // 1024,
        }
        shared = client_settings(connection, resolve, client_id)
        self._settings = {**SETTINGS, **limits, **shared, "error_cb": self._note}
        self._broken = False
        """The client has met an error that it never recovers from: take another one."""
        try:
            self._producer = self._make()
        except KafkaException as error:
            raise FleetError(f"Kafka client settings for {self._address}: {explain(error.args[0])}") from error
        self._closing = False
        self._poller = threading.Thread(target=self._poll, name="kafka-output", daemon=True)
        self._poller.start()

    def _make(self) -> Producer:
        return Producer(self._settings, logger=client_log())

    def check(self, emit: Emit) -> None:
        topic = self._topic(emit)
        try:
            headers, value = codec.encode_binary(emit.event)
        except EventError as error:
            raise OutputRefused(f'output "{emit.output}": {error.message}', hint=error.hint) from error
        size = FRAMING + len(value or b"") + len((emit.key or "").encode())
        size += sum(len(name) + len(content) + 10 for name, content in headers)
        if size > self._limit:
            raise OutputRefused(
                f'output "{emit.output}": an event of {size} bytes is too large for topic {topic} '
                f"(message.max.bytes: {self._limit})",
                hint="send less, or raise message.max.bytes of the connection and of the brokers",
            )

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        if not emits:
            return []
        sending = _Sending(len(emits), self._loop.create_future())
        for place, emit in enumerate(emits):
            await self._produce(sending, place, emit)
        self._producer.poll(0)
        await sending.future
        return sending.results

    async def close(self) -> None:
        """Wait until what was handed over is acknowledged or given up on."""
        self._closing = True
        await asyncio.to_thread(self._poller.join)

    # On the loop

    async def _produce(self, sending: _Sending, place: int, emit: Emit) -> None:
        def report(error: KafkaError | None, _: Any) -> None:
            self._report(sending, place, None if error is None else self._translate(emit, error))

        try:
            topic = self._topic(emit)
            headers, value = codec.encode_binary(emit.event)
            key = None if emit.key is None else emit.key.encode()
            while True:
                try:
                    self._producer.produce(topic, value, key, headers=list(headers), on_delivery=report)
                except BufferError:  # librdkafka's queue is full; the thread empties it
                    await asyncio.sleep(0.005)
                else:
                    return
        except OutputRefused as error:
            self._report(sending, place, error)
        except EventError as error:
            self._report(sending, place, OutputRefused(f'output "{emit.output}": {error.message}', hint=error.hint))
        except KafkaException as error:
            self._report(sending, place, self._translate(emit, error.args[0]))

    def _collect(self) -> None:
        self._told = False
        while self._ended:
            sending = self._ended.popleft()
            if not sending.future.done():
                sending.future.set_result(None)

    # On the thread or the loop

    def _report(self, sending: _Sending, place: int, error: OutputError | None) -> None:
        sending.results[place] = error
        sending.left -= 1
        if sending.left == 0:
            self._ended.append(sending)
            if not self._told:
                self._told = True
                self._loop.call_soon_threadsafe(self._collect)

    def _poll(self) -> None:
        while not self._closing:
            self._producer.poll(0.1)
            if self._broken:
                self._renew()
        self._producer.flush(TIMEOUT)
        del self._producer  # frees its threads now, not when garbage is collected

    def _renew(self) -> None:
        """What the broken client still holds is given up on, and so published again by whoever sent it."""
        log.warning("the producer for %s is replaced: %s", self._address, self._why)
        broken, self._producer = self._producer, self._make()
        self._broken = False
        broken.purge()
        broken.flush(1)

    def _note(self, error: KafkaError) -> None:
        self._why = error
        self._broken = self._broken or error.fatal()

    def _topic(self, emit: Emit) -> str:
        try:
            return self._topics[emit.output]
        except KeyError:
            raise OutputRefused(f'there is no output "{emit.output}"', hint="name it under spec.outputs") from None

    def _translate(self, emit: Emit, error: KafkaError) -> OutputError:
        topic = self._topics[emit.output]
        self._broken = self._broken or error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001
        if error.code() in _FOR_GOOD:
            return OutputRefused(f'output "{emit.output}": topic {topic} refuses the event: {explain(error)}')
        if error.name() in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
            return OutputDown(f"topic '{topic}' does not exist on {self._address}", hint="create it")
        if self._why is not None and is_refusal(self._why):
            return OutputDown(f"brokers {self._address} refuse us: {explain(self._why)}")
        return OutputDown(f"topic {topic} on {self._address}: {explain(error)}")
