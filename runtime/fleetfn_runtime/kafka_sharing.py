"""A third way to own partitions: workers of one node share them, by what the node says of who works.

Each takes its share as soon as nobody has it: a partition is a lock, so that it has one owner at any time, a dead
worker's are free at once, and no member of a group has to be waited for until it times out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition
from fleetfn.errors import StoreError

from fleetfn_runtime import places
from fleetfn_runtime.inheritance import Suspects
from fleetfn_runtime.kafka_partitions import Gained, Losing, starts_of
from fleetfn_runtime.team import Team

log = logging.getLogger("fleetfn.kafka")

LOOK = 0.02
"""Seconds between tries to get what another worker has still."""

RETRY = 1.0
"""Seconds until the ledgers are looked at again, where they could not be read."""


class Shared:
    """`warn` gets what is suspected, before any event comes of a partition that this worker has got."""

    settings: dict[str, str] = {}  # noqa: RUF012 - never written

    def __init__(self, trigger: str, team: Team, warn: Callable[[Suspects], None]) -> None:
        self._trigger = trigger
        self._team = team
        self._warn = warn
        self._numbers: list[int] = []
        self._slots: tuple[int, ...] = ()
        """Those that `_wanted` is for."""
        self._wanted: set[int] = set()
        self._mine: set[int] = set()
        self._again = 0.0

    def begin(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained, losing: Losing) -> None:
        consumer.assign([])
        self._numbers, self._slots, self._wanted = numbers, (), set()
        self.tend(consumer, topic, gained, losing)

    def grow(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained) -> None:  # noqa: ARG002 - the next look shares them
        self._numbers, self._slots = sorted({*self._numbers, *numbers}), ()

    def tend(self, consumer: Consumer, topic: str, gained: Gained, losing: Losing) -> None:
        slots = self._team.slots
        if slots != self._slots:
            self._slots = slots
            self._wanted = set(shares(self._numbers, slots).get(self._team.slot, ()))
        wanted = self._wanted
        if self._mine - wanted:
            self._give(consumer, topic, sorted(self._mine - wanted), losing)
        if wanted - self._mine and time.monotonic() >= self._again:
            self._again = time.monotonic() + LOOK
            self._get(consumer, topic, sorted(wanted - self._mine), gained)

    def left(self) -> None:
        self._free(sorted(self._mine))

    def _give(self, consumer: Consumer, topic: str, numbers: list[int], losing: Losing) -> None:
        consumer.incremental_unassign([TopicPartition(topic, number) for number in numbers])
        losing(numbers)
        self._free(numbers)

    def _get(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained) -> None:
        locks = self._team.places
        if locks is None:
            return
        got = [number for number in numbers if locks.take(places.of_partition(self._trigger, number))]
        if not got:
            return
        self._mine.update(got)
        try:
            suspects = self._team.inheritance.look() if self._team.inheritance is not None else {}
            starts = starts_of(consumer, topic, got)
        except (KafkaException, StoreError) as error:
            self._free(got)
            if isinstance(error, KafkaException):
                raise
            self._again = time.monotonic() + RETRY
            log.error("topic %s: partitions %s are not taken over: %s; %s", topic, got, error, error.hint)  # noqa: TRY400 - no defect
            return
        if suspects:
            self._warn(suspects)
        consumer.incremental_assign([TopicPartition(topic, n, start) for n, start in starts.items()])
        gained({number: start if start >= 0 else None for number, start in starts.items()})

    def _free(self, numbers: Sequence[int]) -> None:
        self._mine.difference_update(numbers)
        if self._team.places is not None:
            for number in numbers:
                self._team.places.free(places.of_partition(self._trigger, number))


def shares(numbers: Sequence[int], slots: Sequence[int]) -> Mapping[int, list[int]]:
    """Who has which partitions: evenly, the same to whoever asks, and with few changes when one slot more is there."""
    found: dict[int, list[int]] = {}
    for count, slot in enumerate(slots, 1):
        if not found:
            found[slot] = sorted(numbers)
            continue
        taken: list[int] = []
        found[slot] = taken
        while len(taken) < len(numbers) // count:
            richest = max(found, key=lambda each: (len(found[each]), each))
            taken.append(found[richest].pop())
    return found
