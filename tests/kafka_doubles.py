"""A road that settles at once or when told, and what else tests of Kafka sources share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn.invocation import Done, Emit, Outcome
from fleetfn.position import At
from fleetfn_runtime.kafka_partitions import AsMember, ByHand
from fleetfn_runtime.kafka_source import KafkaSource
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Claimed
from fleetfn_triggers.kafka import KIND, Kafka, KafkaReader
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.kafka_membership import CONSUMER
from fleetfn_triggers.secret import Resolve, Secret
from fleetfn_triggers.trigger import Reading


def no_secrets(reference: Secret) -> str:
    raise AssertionError(f"nobody should ask for {reference}")


class FakeRoad:
    """Settles each delivery at once, unless `holds` says that it is to wait in `waiting`."""

    def __init__(self, holds: Callable[[Delivery], bool] = lambda _: False) -> None:
        self.taken: list[Delivery] = []
        self.waiting: list[Delivery] = []
        self.forgets = 0
        self.first: float | None = None
        self.claims: list[tuple[str, dict[int, int | None]]] = []
        self.held: frozenset[str] = frozenset()
        self.told: dict[int, int] = {}
        """What the inbox was told to be committed, by partition."""
        self.failures = 0
        """Claims that fail from now on."""
        self.inbox = asyncio.Event()
        """The inbox answers."""
        self.inbox.set()
        self._holds = holds

    async def claim(self, trigger: str, stream: str, partitions: dict[int, int | None]) -> Claimed:
        assert trigger == "t"
        self.claims.append((stream, dict(partitions)))
        if self.failures:
            self.failures -= 1
            raise StoreError("the inbox is away")
        await self.inbox.wait()
        return Claimed(epochs=dict.fromkeys(partitions, len(self.claims)), held=self.held)

    async def passed(self, trigger: str, stream: str, offsets: dict[int, int]) -> None:
        assert (trigger, stream) == ("t", self.claims[-1][0])
        self.told |= offsets

    def take(self, deliveries: Sequence[Delivery]) -> None:
        self.first = self.first or time.monotonic()
        self.taken += deliveries
        for delivery in deliveries:
            if self._holds(delivery):
                self.waiting.append(delivery)
            else:
                settle(delivery)

    def forget_lost(self) -> None:
        self.forgets += 1
        self.waiting = [delivery for delivery in self.waiting if delivery.source.owns(delivery)]

    def release(self) -> None:
        waiting, self.waiting = self.waiting, []
        self._holds = lambda _: False
        for delivery in waiting:
            settle(delivery)

    @property
    def data(self) -> list[bytes | None]:
        return [delivery.event.data for delivery in self.taken]


def settle(delivery: Delivery, outcome: Outcome | None = None) -> None:
    if delivery.source.owns(delivery):
        delivery.source.settle(delivery, outcome or Done())


async def granted(partitions: dict[int, int | None]) -> Claimed:
    """What an inbox answers where nothing waits."""
    return Claimed(epochs=dict.fromkeys(partitions, 1), held=frozenset())


def at(delivery: Delivery) -> At:
    assert isinstance(delivery.position, At)
    return delivery.position


def reader(topic: str) -> KafkaReader:
    return KIND.reader(Kafka(topic=topic), Reading(trigger="t", function="f", key="kafka.key"))


def source(
    bootstrap: str, topic: str, group: str, road: Any, *, by_hand: bool = True, start: str = "latest", **more: Any
) -> KafkaSource:
    spec = Kafka(topic=topic, start="earliest" if start == "earliest" else "latest")
    resolve: Resolve = more.pop("resolve", no_secrets)
    connection = more.pop("connection", None) or KafkaConnection(brokers=[bootstrap])
    partitions = more.pop("partitions", None) or (ByHand() if by_hand else AsMember(CONSUMER, more.pop("begins", None)))
    return KafkaSource(
        "t", spec, reader(topic), connection, group, road, resolve=resolve, partitions=partitions, **more
    )


@asynccontextmanager
async def running(made: KafkaSource) -> AsyncIterator[KafkaSource]:
    await made.start()
    try:
        yield made
    finally:
        await made.drain()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait on the loop until it holds, at most `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true in time"
        await asyncio.sleep(0.005)


def emit(data: bytes | None, *, output: str = "alerts", key: str | None = "v1", number: int = 1) -> Emit:
    event: Event[bytes | None] = Event(
        id=str(number), source="f", type="alert", datacontenttype="application/json", data=data
    )
    return Emit(output, key, event)
