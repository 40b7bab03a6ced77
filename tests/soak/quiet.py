"""Whether anything is still to be done: looked up at the brokers and in stores, not asked of what is tested."""

from __future__ import annotations

import contextlib

from confluent_kafka import Consumer, KafkaException, TopicPartition

from soak.functions import TRIGGERS
from soak.place import Place

ANSWER = 2.0


class Quiet:
    def __init__(self, place: Place, kafka: str, partitions: int) -> None:
        self._place = place
        self._partitions = partitions
        self._consumers = {(which, topic): _consumer(kafka, place.group(*which)) for which, topic in TRIGGERS.items()}

    def left(self) -> dict[str, int]:
        """What waits, by where; -1: it cannot be told now."""
        found = {f"in {topic}": self._lag(consumer, topic) for (_, topic), consumer in self._consumers.items()}
        return {**found, **self._place.left()}

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()

    def _lag(self, consumer: Consumer, topic: str) -> int:
        places = [TopicPartition(topic, number) for number in range(self._partitions)]
        lag = 0
        with contextlib.suppress(KafkaException):
            for place in consumer.committed(places, timeout=ANSWER):
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, place.partition), timeout=ANSWER)
                lag += high - max(low, place.offset)
            return lag
        return -1


def _consumer(kafka: str, name: str) -> Consumer:
    return Consumer({"bootstrap.servers": kafka, "group.id": name, "enable.auto.commit": False, "log_level": 0})
