"""Readers of what the functions of the demo write, as any consumer would read it: nothing of FleetFn in them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, Self

from confluent_kafka import Consumer, TopicPartition
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage


def kafka_topic(brokers: str, topic: str) -> Iterator[dict[str, Any]]:
    """All that the topic holds now."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "demo", "auto.offset.reset": "earliest"})
    left = {}
    for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        if end > first:
            left[partition] = end
    consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
    while left:
        message = consumer.poll(10)
        if message is None:
            break
        if message.error() is None:
            yield json.loads(message.value())
            if message.offset() + 1 >= left.get(message.partition(), 0):
                left.pop(message.partition(), None)
    consumer.close()


class MqttTopic:
    """Collects what is published to a topic filter while it is open. `address`: host:port."""

    def __init__(self, address: str, topic: str) -> None:
        self.found: list[dict[str, Any]] = []
        self._subscribed = threading.Event()
        host, _, port = address.rpartition(":")
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect(host, int(port))

    def __enter__(self) -> Self:
        self._client.loop_start()
        if not self._subscribed.wait(20):
            raise SystemExit("Error: the MQTT broker did not take a subscription within 20 s.")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _: Any, message: MQTTMessage) -> None:
        event = json.loads(message.payload)
        self.found.append(event["data"] if "specversion" in event else event)  # a structured CloudEvent, or its data
