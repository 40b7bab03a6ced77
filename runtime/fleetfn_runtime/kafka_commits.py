"""Commits of what is settled: the prefix of each partition, and what the inbox may forget since it is committed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from fleetfn_triggers.kafka_client import explain

from fleetfn_runtime.kafka_holding import Holding

log = logging.getLogger("fleetfn.kafka")

Tell = Callable[[str, dict[int, int]], "Future[None]"]
"""Tell the inbox up to where a stream's partitions are committed; on any thread."""


class Commits:
    """Used on the consuming thread."""

    def __init__(self, topic: str, holdings: dict[int, Holding], tell: Tell, *, quiet: Callable[[], bool]) -> None:
        """`holdings`: the partitions that are ours just now. `quiet`: brokers are known to be away, so that no commit
        that fails is worth a warning.
        """
        self._quiet = quiet
        self._topic = topic
        self._holdings = holdings
        self._tell = tell
        self._telling: Future[None] | None = None
        self._on_way = 0
        """Commits without an answer yet."""

    def commit(self, consumer: Consumer, holdings: Iterable[Holding], *, wait: bool) -> None:
        offsets = []
        for holding in list(holdings):
            done = holding.prefix.done
            if holding.started and done != holding.committed:
                holding.committed = done
                offsets.append(TopicPartition(self._topic, holding.number, done))
        if not offsets:
            return
        try:
            if wait:
                consumer.commit(offsets=offsets, asynchronous=False)
            else:
                consumer.commit(offsets=offsets, asynchronous=True)
                self._on_way += 1
        except KafkaException as error:
            self._failed(error.args[0], offsets)

    def commit_last(self, consumer: Consumer, limit: float) -> None:
        """Not by a commit that waits: that has no limit where the brokers are away. `limit`: seconds."""
        self.commit(consumer, self._holdings.values(), wait=False)
        end = time.monotonic() + limit
        while self._on_way and time.monotonic() < end:
            consumer.poll(0.01)

    def answered(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Called by poll, for each commit that nobody waited for."""
        self._on_way = max(0, self._on_way - 1)
        failed = [each for each in partitions if error is not None or each.error is not None]
        for each in partitions:
            holding = self._holdings.get(each.partition)
            if holding is not None and each not in failed:
                holding.safe = max(holding.safe, each.offset)
        if failed:
            self._failed(error or failed[0].error, failed)

    def renew(self) -> None:
        """Commit all anew with the next round, whether or not it has moved."""
        for holding in self._holdings.values():
            holding.committed = -1

    def pass_on(self, stream: str) -> None:
        """Tell the inbox up to where it may forget positions. What it misses, the next claim tells."""
        if self._telling is not None and not self._telling.done():
            return
        offsets: dict[int, int] = {}
        for holding in self._holdings.values():
            if holding.passed < min(holding.safe, holding.offered):
                offsets[holding.number] = holding.passed = holding.safe
        if offsets:
            self._telling = self._tell(stream, offsets)

    def _failed(self, error: Any, partitions: list[TopicPartition]) -> None:
        """The next round commits again."""
        for each in partitions:
            holding = self._holdings.get(each.partition)
            if holding is not None:
                holding.committed = -1
        level = logging.DEBUG if self._quiet() else logging.WARNING
        log.log(level, "topic %s: offsets are not committed, trying on: %s", self._topic, explain(error))
