"""Ways to be a member of a consumer group, and to commit for one that has members: brokers let only members do that.

Who joins for that asks for a topic that no other member reads (else the group would have offsets in it), so partitions
that others have stay theirs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

CONSUMER = {"group.protocol": "consumer"}
"""KIP-848: brokers from 4.0 on; a first member has its partitions in 0.2 s."""

CLASSIC = {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky"}

NOT_YET = frozenset(
    {
        "ILLEGAL_GENERATION",
        "REBALANCE_IN_PROGRESS",
        "STALE_MEMBER_EPOCH",
        "UNKNOWN_MEMBER_ID",
        "_NO_OFFSET",
        "_WAIT_COORD",
    }
)
"""Errors of who has not joined, or while others come and go."""

JOIN = 15.0
"""Seconds to join: the classic protocol waits 3 s by default, and for members that are slow to answer."""

_TURN = 0.05


def is_unsupported(error: Any) -> bool:
    """The brokers know no group protocol `consumer`: join by the classic one."""
    return error.name() in ("UNSUPPORTED_VERSION", "_UNSUPPORTED_FEATURE") or "ConsumerGroupHeartbeat" in error.str()


def commit(settings: Mapping[str, Any], topic: str, offsets: Mapping[int, int]) -> None:
    """Join the group of these consumer settings, commit, leave. Raises KafkaException."""
    if not _commit(settings, topic, offsets, CONSUMER):
        _commit(settings, topic, offsets, CLASSIC)


def _commit(settings: Mapping[str, Any], topic: str, offsets: Mapping[int, int], how: Mapping[str, str]) -> bool:
    """False: brokers do not know that way of joining. Raises KafkaException."""
    import confluent_kafka as ck  # noqa: PLC0415 - see kafka_client.py

    failed: list[Any] = []
    consumer = ck.Consumer({**settings, **how, "error_cb": failed.append})
    try:
        consumer.subscribe([topic], on_assign=lambda member, _: member.incremental_assign([]))  # it fetches nothing
        asked = [ck.TopicPartition(topic, number, offset) for number, offset in offsets.items()]
        limit = time.monotonic() + JOIN
        while True:
            message = consumer.poll(_TURN)
            if message is not None and message.error() is not None:
                failed.append(message.error())
            if how is CONSUMER and any(map(is_unsupported, failed)):
                return False
            try:
                done = consumer.commit(offsets=asked, asynchronous=False)
            except ck.KafkaException as error:
                if error.args[0].name() not in NOT_YET or time.monotonic() > limit:
                    raise
                continue
            for each in done:
                if each.error is not None:
                    raise ck.KafkaException(each.error)
            return True
    finally:
        consumer.close()
