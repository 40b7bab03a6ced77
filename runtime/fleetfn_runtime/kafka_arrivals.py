"""Partitions from when they are ours in Kafka until their records may be handed over: the inbox is asked between.

The client fetches them meanwhile. Those that the inbox does not grant soon are paused; a record that came too early
is fetched again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from confluent_kafka import Consumer, TopicPartition

from fleetfn_runtime.kafka_claims import Ask, Claims, Starts
from fleetfn_runtime.kafka_holding import Holding

log = logging.getLogger("fleetfn.kafka")

CLAIM = 0.5
"""Seconds that the inbox gets to grant new partitions, before polling goes on without them."""


class Arrivals:
    """Used on the consuming thread; `problem` may be read on any."""

    def __init__(self, topic: str, holdings: dict[int, Holding], ask: Ask) -> None:
        """`holdings`: where partitions go that are granted."""
        self.stopped = False
        """All partitions are paused in the client."""
        self._topic = topic
        self._holdings = holdings
        self._claims = Claims(ask, f"topic {topic}")
        self._late: set[int] = set()
        """Partitions that are paused until they are granted."""
        self._early: dict[int, int] = {}
        """By partition, the first record that came before it was granted."""

    def __bool__(self) -> bool:
        """Some are not granted yet."""
        return bool(self._claims)

    @property
    def problem(self) -> str:
        return self._claims.problem

    def add(self, consumer: Consumer, stream: str, starts: Starts) -> None:
        """The client remembers pauses of what it had before."""
        self._claims.add(starts)
        self.grant(consumer, stream, CLAIM)
        late = {number for number in starts if number in self._claims}
        self._late |= late
        standing = set(starts) if self.stopped else late
        if standing:
            consumer.pause(self._places(standing))
        if going := starts.keys() - standing:
            consumer.resume(self._places(going))

    def grant(self, consumer: Consumer, stream: str, wait: float = 0.0) -> None:
        """Hold what the inbox has granted by now, or grants within so many seconds."""
        granted = self._claims.granted(stream, wait)
        if granted is None:
            return
        starts, claimed = granted
        for number, start in starts.items():
            self._holdings[number] = holding = Holding(number, claimed.epochs.get(number, 0))
            holding.offered = sys.maxsize if claimed.held else 0
            if start is not None:
                holding.begin(start)
                holding.passed = start  # by the claim
            early = self._early.pop(number, None)
            if early is not None:
                consumer.seek(TopicPartition(self._topic, number, early))
        late = self._late.intersection(starts)
        self._late.difference_update(starts)
        if late and not self.stopped:
            consumer.resume(self._places(late))
        log.info("topic %s: consuming partitions %s", self._topic, sorted(self._holdings))

    def came_early(self, number: int, offset: int) -> None:
        """A record of a partition that is not held: not yet granted, or gone."""
        if number in self._claims:
            self._early.setdefault(number, offset)

    def drop(self, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        self._claims.drop(numbers)
        self._late.difference_update(numbers)
        for number in numbers:
            self._early.pop(number, None)

    def clear(self) -> None:
        self._claims.clear()
        self._late.clear()
        self._early.clear()
        self.stopped = False

    def _places(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in numbers]
