"""Topics full of recorded telemetry, which all subjects of the Kafka benchmark read from the beginning."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from turns import say

PARTITIONS = 6


@dataclass(frozen=True, slots=True)
class Topic:
    admin: AdminClient
    broker: str
    name: str
    payload: str
    """`small` or `large`."""
    count: int
    """Records in it."""

    def committed(self, group: str) -> int:
        """Records that the group has committed."""
        asked = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        found = asked[group].result(10).topic_partitions
        return sum(place.offset for place in found if place.topic == self.name and place.offset > 0)

    def drop(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result(20)


def filled(broker: str, payload: str, events: Sequence[tuple[str, bytes]], *, keys: int, count: int) -> Topic:
    """`count` records: the events over and over, as if of `keys` vehicles in turn."""
    name = f"bench-{payload}-{keys}-{time.time_ns():x}"
    say(f"kafka: writing {count:,} {payload} records of {keys:,} keys")
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(20)
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for number, (vehicle, data) in enumerate(islice(cycle(events), count)):
        key = f"{number % keys:07}-1"
        value = data.replace(vehicle.encode(), key.encode())
        while True:
            try:
                producer.produce(name, value, key)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(120)
    return Topic(admin, broker, name, payload, count)
