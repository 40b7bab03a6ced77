"""Looking at topics from the outside: what is written to them from now on. Commits nothing, belongs to no group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fleetfn_triggers import kafka_client
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.secret import Resolve

_GROUP = "fleetfn-tail"
"""librdkafka wants a name; partitions are assigned by hand, and nothing is committed under it."""


class Tail:
    """Reads from the end of each topic, as it was when this was made. Blocks: use it on a thread."""

    def __init__(
        self, connection: KafkaConnection, topics: Sequence[str], *, resolve: Resolve, limit: float = 10.0
    ) -> None:
        """Raises BrokerError when the cluster does not answer within `limit` seconds."""
        import confluent_kafka as ck  # noqa: PLC0415 - heavy, and few look

        with kafka_client.opened(connection, resolve, _GROUP, limit) as cluster:
            ends = [
                ck.TopicPartition(topic, number, cluster.bounds(topic, number)[1])
                for topic in topics
                for number in cluster.partitions(topic)
            ]
        settings = kafka_client.client_settings(connection, resolve, _GROUP)
        self._consumer = ck.Consumer(
            {**settings, "group.id": _GROUP, "enable.auto.commit": False}, logger=kafka_client.client_log()
        )
        self._consumer.assign(ends)
        self._open = True

    def __iter__(self) -> Iterator[Any]:
        """Messages, until `stop`."""
        while self._open:
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                yield message
        self._consumer.close()

    def stop(self) -> None:
        """From any thread: the iteration ends soon."""
        self._open = False
