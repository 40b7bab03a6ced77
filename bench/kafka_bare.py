"""The floor of the Kafka benchmark: a loop over confluent-kafka, a typed decode, commits. No lanes, no state.

    python kafka_bare.py [tuned]

By its own settings librdkafka stops fetching for up to a second whenever its queue is full, and a loop this quick then
waits. `tuned` has the fetch settings of FleetFn's workers, and never runs dry.
"""

from __future__ import annotations

import sys
import time

import msgspec
from confluent_kafka import Consumer, TopicPartition
from fleetfn_runtime.kafka_consuming import SETTINGS
from kafka_tally import BROKER, GROUP, LARGE, TOPIC, Tally
from payloads import Frame, Frames

COMMIT_EVERY = 0.5
AS_IT_SHIPS = {"enable.auto.commit": "false", "auto.offset.reset": "earliest"}


def main() -> None:
    tally = Tally()
    settings = SETTINGS if sys.argv[1:] == ["tuned"] else AS_IT_SHIPS
    consumer = Consumer({**settings, "bootstrap.servers": BROKER, "group.id": GROUP})
    partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in partitions])
    decode = msgspec.json.Decoder(Frames if LARGE else Frame).decode
    due = 0.0
    while True:
        messages = consumer.consume(1000, 0.05)
        for message in messages:
            found = decode(message.value())
            frame = found.frames[-1] if LARGE else found
            if frame.temperature_max > 60 and frame.speed > 0:  # noqa: PLR2004 - as the handlers do
                pass
        if messages:
            tally.many(len(messages))
        if (now := time.monotonic()) > due:
            due = now + COMMIT_EVERY
            places = [each for each in consumer.position(consumer.assignment()) if each.offset > 0]
            if places:
                consumer.commit(offsets=places, asynchronous=True)


if __name__ == "__main__":
    main()
