"""Writes a plan's records to Kafka. The log itself is the truth about order; noted is what the broker confirmed."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from soak import plan
from soak.pace import LOOK, Pace
from soak.plan import Planned


class KafkaLoad(threading.Thread):
    """`file`: a line per confirmed record, {"id", "topic", "partition", "offset"}."""

    def __init__(self, brokers: str, events: Sequence[Planned], partitions: int, file: Path, pace: Pace) -> None:
        super().__init__(daemon=True)
        self.planned = sum(event.times for event in events)
        self.confirmed = 0
        self.problem = ""
        self._events = events
        self._partitions = partitions
        self._file = file
        self._pace = pace
        self._producer = Producer(
            {
                "bootstrap.servers": brokers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 300_000,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        with self._file.open("w") as self._out:
            for event in self._events:
                self._wait(event.at)
                if self._pace.ended:
                    break
                for _ in range(event.times):
                    self._produce(event)
            while self._producer.flush(1) and not self._pace.ended:
                pass
        if self.confirmed != self.planned:
            self.problem = self.problem or "the run ended before all was sent"

    def _wait(self, at: float) -> None:
        """What the broker says is heard meanwhile."""
        self._producer.poll(0)
        while (left := self._pace.left(at)) > 0:
            self._producer.poll(min(left, LOOK))

    def _produce(self, event: Planned) -> None:
        number = event.vehicle if event.source == "raw" else event.source
        self._producer.produce(
            plan.topic_of(event.source),
            key=event.vehicle,
            value=event.payload,
            partition=int(number[1:]) % self._partitions,
            on_delivery=lambda error, message: self._told(event, error, message),
        )

    def _told(self, event: Planned, error: Any, message: Any) -> None:
        if error is not None:
            self.problem = f"{event.id}: {error}"
            return
        self.confirmed += 1
        place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        self._out.write(json.dumps({"id": event.id, **place}) + "\n")
