"""A partition while it is ours: the Source of its deliveries. And the bounds that all of a consumer's share."""

from __future__ import annotations

import time
from collections.abc import Iterable

from fleetfn.invocation import Done, Outcome
from fleetfn.position import At
from fleetfn_triggers.delivery import Delivery

from fleetfn_runtime.kafka_prefix import Prefix

BYTES = 64 * 1024 * 1024
COUNT = 20_000
"""Unsettled deliveries of a trigger at most, give or take a batch: beyond either, nothing is fetched until both are
under half.
"""


class Holding:
    """Implements Source. The consuming thread writes what came, the loop what went, so neither needs a lock."""

    __slots__ = (
        "bytes_came",
        "bytes_went",
        "came",
        "committed",
        "epoch",
        "high",
        "number",
        "offered",
        "owned",
        "passed",
        "prefix",
        "refused",
        "safe",
        "started",
        "went",
    )

    def __init__(self, number: int, epoch: int = 0) -> None:
        self.number = number
        self.epoch = epoch
        """At the inbox; 0: it was not claimed there."""
        self.owned = True
        self.started = False
        """The prefix knows where it begins."""
        self.prefix = Prefix(-1)
        self.committed = -1
        self.safe = -1
        """Committed, as the broker has confirmed."""
        self.offered = 0
        """Offset after the last one that the inbox may remember."""
        self.refused: float | None = None
        """Since when, by the monotonic clock, the inbox takes somebody else for its owner."""
        self.passed = -1
        """Of `safe`, what the inbox was told."""
        self.high = -1
        """Offset after the last one handed over."""
        self.came = self.went = self.bytes_came = self.bytes_went = 0

    def begin(self, offset: int) -> None:
        self.started = True
        self.prefix.done = self.committed = self.safe = self.high = offset

    def hand_over(self, offset: int, size: int) -> None:
        """Before its delivery goes to the road."""
        self.high = offset + 1
        self.came += 1
        self.bytes_came += size
        self.prefix.receive(offset)

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        position = delivery.position
        if self.owned and self.refused is None and isinstance(position, At):
            if type(outcome) is not Done:  # the inbox has it, to be run later or as a dead letter
                self.offered = max(self.offered, position.offset + 1)
            self.prefix.settle(position.offset)
            self.bytes_went += delivery.size
            self.went += 1

    def stale(self) -> None:
        """Mostly it is about to go; where it stays, it has to be claimed anew. What the inbox refused comes again,
        and must not come behind later records of its key: none counts from now on.
        """
        self.refused = self.refused or time.monotonic()

    def owns(self, delivery: Delivery) -> bool:  # noqa: ARG002 - all its deliveries share its fate
        return self.owned and self.refused is None


class Bounds:
    def __init__(self, count: int = COUNT, size: int = BYTES) -> None:
        self._count = count
        self._bytes = size
        self._full = False

    def full(self, holdings: Iterable[Holding]) -> bool:
        count = size = 0
        for holding in holdings:
            count += holding.came - holding.went
            size += holding.bytes_came - holding.bytes_went
        share = 0.5 if self._full else 1.0
        self._full = count > self._count * share or size > self._bytes * share
        return self._full
