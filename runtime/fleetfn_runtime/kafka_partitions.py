"""Ways to own a topic's partitions: by hand, where nobody else consumes for the group, or as a member of it.

By hand saves the join of the group (3 s with a broker's defaults where the group protocol is the classic one).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from confluent_kafka import OFFSET_BEGINNING, OFFSET_STORED, Consumer, KafkaException, TopicPartition

log = logging.getLogger("fleetfn.kafka")

_ANSWER = 5.0
"""Seconds for what is asked while partitions are on their way."""

Gained = Callable[[dict[int, int | None]], None]
"""Partitions that the consumer has from now on, and the offset they begin at where it is known."""

Losing = Callable[[list[int]], None]
"""Partitions that go: returns once they may."""


class Partitions(Protocol):
    settings: dict[str, str]
    """What the consumer's settings need of this way."""

    def begin(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained, losing: Losing) -> None:
        """Own what can be owned. Raises KafkaException."""
        ...

    def grow(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained) -> None:
        """The topic has got these partitions, too."""
        ...

    def tend(self, consumer: Consumer, topic: str, gained: Gained, losing: Losing) -> None:
        """Called all the time: gain and lose what is to be. Raises KafkaException."""
        ...

    def left(self) -> None:
        """The consumer is closed: nothing is ours any more."""
        ...


class ByHand:
    settings: dict[str, str] = {}  # noqa: RUF012 - never written

    def begin(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained, losing: Losing) -> None:  # noqa: ARG002 - nobody takes them
        starts = starts_of(consumer, topic, numbers)
        consumer.assign([TopicPartition(topic, number, start) for number, start in starts.items()])
        gained({number: start if start >= 0 else None for number, start in starts.items()})

    def grow(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained) -> None:
        consumer.incremental_assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
        gained(dict.fromkeys(numbers))

    def tend(self, consumer: Consumer, topic: str, gained: Gained, losing: Losing) -> None:
        """What is ours stays ours."""

    def left(self) -> None: ...


class AsMember:
    """`settings`: kafka_membership.CONSUMER, or CLASSIC where the broker knows only that. `start`: where a group begins
    that has never stood in the topic; None: its start offsets are committed before anybody consumes.
    """

    def __init__(self, settings: dict[str, str], start: Literal["latest", "earliest"] | None = None) -> None:
        self.settings = settings
        self.start = start

    def begin(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained, losing: Losing) -> None:
        def assigned(_: Any, partitions: list[TopicPartition]) -> None:
            ours = [each.partition for each in partitions]
            starts = {} if self.start is None or not ours else _starts(consumer, topic, numbers, ours, self.start)
            consumer.incremental_assign(
                [TopicPartition(topic, number, starts.get(number, OFFSET_STORED)) for number in ours]
            )
            gained({number: starts.get(number) for number in ours})

        def revoked(_: Any, partitions: list[TopicPartition]) -> None:
            losing([each.partition for each in partitions])

        def lost(_: Any, partitions: list[TopicPartition]) -> None:
            log.warning("topic %s: partitions were lost to other members: we did not poll in time", topic)
            losing([each.partition for each in partitions])

        consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def grow(self, consumer: Consumer, topic: str, numbers: list[int], gained: Gained) -> None:
        """Nothing to do: the group notices by itself."""

    def tend(self, consumer: Consumer, topic: str, gained: Gained, losing: Losing) -> None:
        """Likewise: the client tells of changes when it is polled."""

    def left(self) -> None: ...


def starts_of(consumer: Consumer, topic: str, numbers: Sequence[int]) -> dict[int, int]:
    """By partition, the committed offset, or OFFSET_BEGINNING where there is none. Raises KafkaException."""
    found = consumer.committed([TopicPartition(topic, number) for number in numbers], timeout=_ANSWER)
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
    return {each.partition: each.offset if each.offset >= 0 else OFFSET_BEGINNING for each in found}


def _starts(
    consumer: Consumer, topic: str, numbers: list[int], ours: list[int], start: Literal["latest", "earliest"]
) -> dict[int, int]:
    """Where partitions of ours begin; none where nobody can tell now: the client asks again, and takes the oldest
    record where nothing is committed. For a group that has never stood in the topic it is committed at once.
    """
    try:
        found = {each: offset for each, offset in starts_of(consumer, topic, numbers).items() if offset >= 0}
        if found or start == "earliest":
            return {number: found[number] for number in ours if number in found}
        fresh = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ANSWER)[1] for number in ours
        }
        consumer.commit(
            offsets=[TopicPartition(topic, number, offset) for number, offset in fresh.items()], asynchronous=False
        )
    except KafkaException as error:
        log.warning("topic %s: where partitions %s begin is not known yet: %s", topic, ours, error.args[0].str())
        return {}
    log.info("topic %s: the group begins here: %s", topic, fresh)
    return fresh
