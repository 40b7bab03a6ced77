"""Writes records that somebody sends by hand: `fn send`, of a node or, through a worker, of a cluster's gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleetfn.errors import FleetError
from fleetfn_spec.gateway import SendRecord
from fleetfn_triggers import kafka_client

_IN_HAND = 10_000
"""Records that wait for their acknowledgement; then sending waits."""

FLUSH_LIMIT = 60.0
"""Seconds that brokers have to acknowledge what is left."""


class Producer:
    """Use on one loop, by `producing`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Raises FleetError: of settings that the client does not know."""
        import confluent_kafka  # noqa: PLC0415 - only who sends needs it

        self.written = 0
        """Records that brokers have acknowledged."""
        self._errors: list[str] = []
        self._refusal = confluent_kafka.KafkaException
        try:
            self._client = confluent_kafka.Producer(
                {**settings, "linger.ms": 5, "enable.idempotence": True}, logger=kafka_client.client_log()
            )
        except self._refusal as error:
            raise FleetError(f"Kafka client settings: {kafka_client.explain(error.args[0])}") from error

    async def send(self, topic: str, record: SendRecord) -> None:
        """Raises FleetError: for a record that cannot be written, once those before it are; or for one before it."""
        while len(self._client) >= _IN_HAND:
            await asyncio.to_thread(self._client.poll, 0.1)
            self._raise()
        key = record.key.encode() if record.key is not None else None
        pairs: list[tuple[str, str | bytes | None]] = [(name, text.encode()) for name, text in record.headers.items()]
        try:
            self._client.produce(topic, record.value, key, headers=pairs, on_delivery=self._told)
        except self._refusal as error:
            await self.flush()
            size = len(record.value or b"")
            raise FleetError(
                f"a record of {size} bytes cannot be written to topic '{topic}': {kafka_client.explain(error.args[0])}",
                hint="what was sent before it is written; leave it out, or raise message.max.bytes of topic and client",
            ) from error
        self._client.poll(0)
        self._raise()

    async def flush(self) -> None:
        """Returns when brokers have acknowledged all. Raises FleetError for what they did not take."""
        left = await asyncio.to_thread(self._client.flush, FLUSH_LIMIT)
        self._raise()
        if left:
            raise FleetError(f"{left} records were not acknowledged within {FLUSH_LIMIT:.0f} s")

    def close(self) -> None:
        self._client.purge()

    def _told(self, error: Any, _message: object) -> None:
        if error is None:
            self.written += 1
        else:
            self._errors.append(kafka_client.explain(error))

    def _raise(self) -> None:
        if self._errors:
            raise FleetError(f"the broker did not take a record: {self._errors[0]}")


@contextmanager
def producing(settings: dict[str, Any]) -> Iterator[Producer]:
    """`settings`: a connection's (kafka_client.client_settings). Raises FleetError."""
    producer = Producer(settings)
    try:
        yield producer
    finally:
        producer.close()
