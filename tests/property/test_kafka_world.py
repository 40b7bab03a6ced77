"""The consuming loop of a worker whose partitions come and go, are paused and filled up, whose inbox answers late or
not at all, whose commits are lost and whose topic is made anew: no record is passed over, none is handed over twice by
one owner or before its partition is granted, and in the end nothing waits that could go on.

The client remembers pauses of partitions that it does not have, as librdkafka does.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition
from fleetfn.errors import StoreError
from fleetfn.invocation import Again, Done
from fleetfn.position import At
from fleetfn_runtime import kafka_claims, kafka_commits, kafka_consuming, kafka_holding
from fleetfn_runtime.kafka_consuming import Consuming, Orders
from fleetfn_runtime.kafka_holding import Bounds
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Claimed
from fleetfn_triggers.kafka_connection import KafkaConnection
from hypothesis import HealthCheck, Phase, given, settings
from road_doubles import event

TOPIC = "telemetry"
PARTITIONS = 3
COUNT = 12
"""Unsettled records at most, give or take a batch."""

STEPS = 400
"""Of bad luck; as many quiet ones suffice for what is left."""


@settings(max_examples=60, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    moves=st.sampled_from([0.0, 0.05, 0.2]),
    pauses=st.sampled_from([0.0, 0.05, 0.2]),
    away=st.sampled_from([0.0, 0.3]),
    anew=st.booleans(),
)
def test_no_record_is_passed_over_and_none_is_left(
    monkeypatch: pytest.MonkeyPatch, seed: int, moves: float, pauses: float, away: float, *, anew: bool
) -> None:
    world = World(random.Random(seed), moves=moves, pauses=pauses, away=away, anew=anew)
    with monkeypatch.context() as patch:
        for module in (kafka_consuming, kafka_claims, kafka_commits, kafka_holding):
            patch.setattr(module, "time", world)
        world.run()


class World:
    """Stands for module `time`, too."""

    strftime = staticmethod(time.strftime)
    gmtime = staticmethod(time.gmtime)

    def __init__(self, chance: random.Random, *, moves: float, pauses: float, away: float, anew: bool) -> None:
        self.chance = chance
        self.moves, self.pauses, self.away, self.anew = moves, pauses, away, anew
        self.now = 100.0
        self.steps = 0
        self.stream = 0
        self.logs: dict[int, list[int]] = {}
        """Offsets of each partition, with gaps."""
        self.committed: dict[int, int] = {}
        self.settled: set[tuple[int, int, int]] = set()
        self.wanted = set(range(PARTITIONS))
        self.epochs: dict[int, int] = defaultdict(int)
        self.asked: list[tuple[float, dict[int, int | None], Future[Claimed]]] = []
        self.pending: list[Delivery] = []
        self.problems: set[str] = set()
        self.handed: dict[int, tuple[object, int]] = {}
        """By partition, its owner and the last offset that it was handed."""
        self.make_log()
        self.orders = Orders(changed=Changed(self))  # type: ignore[arg-type]
        self.consuming = OnWorld(self)

    def monotonic(self) -> float:
        self.now += self.chance.choice([0.0, 0.0, 0.001])
        return self.now

    def make_log(self) -> None:
        self.stream += 1
        self.committed.clear()
        self.logs = {number: [] for number in range(PARTITIONS)}
        self.grow(30)

    def grow(self, count: int) -> None:
        for number in self.chance.choices(range(PARTITIONS), k=count):
            log = self.logs[number]
            log.append((log[-1] if log else -1) + self.chance.choice([1, 1, 1, 2, 5]))

    @property
    def calm(self) -> bool:
        return self.steps > STEPS

    def run(self) -> None:
        self.consuming.run()
        assert "defect" not in self.problems, "see the log"
        assert self.is_over(), "something is left that could go on"
        assert not self.consuming.problem

    def is_over(self) -> bool:
        ends = {number: log[-1] + 1 for number, log in self.logs.items() if log}
        return not self.pending and all(self.committed.get(number) == end for number, end in ends.items())

    # What happens meanwhile

    def step(self, seconds: float) -> None:
        self.steps += 1
        self.now += seconds
        self.problems.add("defect" if "defect" in self.consuming.problem else "")
        if self.calm:
            self.wanted = set(range(PARTITIONS))
            self.orders.paused = False
        else:
            self.bad_luck()
        self.answer()
        for _ in range(self.chance.randint(0, 6)):
            self.settle_one()
        if self.is_over() and self.calm:
            self.orders.ending = True
        if self.steps > STEPS * 4:
            self.orders.ending = True

    def bad_luck(self) -> None:
        chance = self.chance
        if chance.random() < 0.2:
            self.grow(3)
        if chance.random() < self.moves:
            self.wanted ^= {chance.randrange(PARTITIONS)}
        if chance.random() < self.pauses:
            self.orders.paused = not self.orders.paused
        if self.anew and chance.random() < 0.01:
            self.make_log()
            for client in self.consuming.clients:
                client.gone = True
        if chance.random() < 0.1:
            self.now += chance.choice([0.5, 3.0, 40.0])

    def answer(self) -> None:
        for at, partitions, future in list(self.asked):
            if self.now < at and not self.calm:
                continue
            self.asked.remove((at, partitions, future))
            if future.cancelled():
                continue
            if not self.calm and self.chance.random() < self.away:
                future.set_exception(StoreError("the inbox is away"))
                continue
            for number in partitions:
                self.epochs[number] += 1
            epochs = {number: self.epochs[number] for number in partitions}
            future.set_result(Claimed(epochs=epochs, held=frozenset()))

    def settle_one(self) -> None:
        if not self.pending:
            return
        delivery = self.pending.pop(self.chance.randrange(len(self.pending)))
        if not delivery.source.owns(delivery):
            return
        position = delivery.position
        assert isinstance(position, At)
        if not self.calm and self.chance.random() < 0.003:
            delivery.source.stale()  # type: ignore[attr-defined]
            return
        self.settled.add((int(position.stream), position.partition, position.offset))
        delivery.source.settle(delivery, self.chance.choice([Done(), Again(reason="it waits in the inbox")]))

    # What the loop is asked

    def claim(self, stream: str, partitions: dict[int, int | None]) -> Future[Claimed]:
        behind = self.consuming.clients[-1].gone  # it has not met that its topic is another one by now
        assert stream == str(self.stream) or behind or not self.calm
        future = Granting(self)
        self.asked.append((self.now + self.chance.choice([0.0, 0.2, 2.0]), dict(partitions), future))
        if self.chance.random() < 0.5:
            self.answer()
        return future

    def passed(self, stream: str, offsets: dict[int, int]) -> Future[None]:
        for number, offset in offsets.items() if stream == str(self.stream) else ():
            committed = self.committed.get(number, 0)
            assert not [each for each in self.logs[number] if committed <= each < offset], "it is not committed yet"
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            position = delivery.position
            assert isinstance(position, At)
            assert 0 < delivery.epoch <= self.epochs[position.partition], "handed over before it was granted"
            owner, last = self.handed.get(position.partition, (None, -1))
            assert owner is not delivery.source or last < position.offset, "twice, or out of order"
            self.handed[position.partition] = delivery.source, position.offset
            self.pending.append(delivery)
        assert len(self.pending) <= COUNT + kafka_consuming.BATCH

    def lost(self) -> None:
        self.pending = [each for each in self.pending if each.source.owns(each)]

    def commit(self, number: int, offset: int, stream: int) -> None:
        if stream != self.stream:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        if not self.calm and self.chance.random() < 0.1:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        left = [each for each in self.logs[number] if each < offset and (stream, number, each) not in self.settled]
        assert not left, f"{left[0]} of partition {number} is passed over"
        assert self.committed.get(number, 0) <= offset, "a commit that was made is taken back"
        self.committed[number] = offset


class Granting(Future[Claimed]):
    """Waiting for it lets time pass."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def result(self, timeout: float | None = None) -> Claimed:
        if not self.done():
            self._world.now += timeout or 0.0
            self._world.answer()
        return super().result(0)


class Changed:
    """The event by which the loop is told of orders: waiting lets time pass."""

    def __init__(self, world: World) -> None:
        self._world = world

    def wait(self, seconds: float) -> None:
        self._world.step(seconds)

    def clear(self) -> None: ...


class OnWorld(Consuming):
    """On a client that the world makes."""

    def __init__(self, world: World) -> None:
        self.clients: list[Client] = []
        self._world = world
        super().__init__(
            topic=TOPIC,
            connection=KafkaConnection(brokers=["nowhere:1"]),
            group="g",
            resolve=str,  # type: ignore[arg-type]
            reader=Reader(),  # type: ignore[arg-type]
            partitions=Sharing(world),
            bounds=Bounds(COUNT),
            orders=world.orders,
            take=world.take,
            lost=world.lost,
            claim=world.claim,
            passed=world.passed,
        )

    def _open(self) -> Any:
        self._shared = {}
        self.clients.append(Client(self._world, self._commits.answered))
        return self.clients[-1]

    def _name_stream(self, metadata: Any) -> None:  # noqa: ARG002 - the base's
        self._reader.stream = str(self._world.stream)

    def _leave(self, consumer: Any) -> None:
        consumer.close()


class Reader:
    stream = ""

    def __call__(self, message: Message, holding: Any, epoch: int) -> Delivery:
        at = At(self.stream, message.number, message.at)
        return Delivery("t", None, event(b"", name=str(message.at)), at, holding, 0, 1, epoch=epoch)


class Sharing:
    """Has what the world wants it to have, at once."""

    settings: dict[str, str] = {}  # noqa: RUF012 - never written

    def __init__(self, world: World) -> None:
        self._world = world
        self._mine: set[int] = set()

    def begin(self, consumer: Any, topic: str, numbers: list[int], gained: Any, losing: Any) -> None:  # noqa: ARG002 - the port's
        self.tend(consumer, topic, gained, losing)

    def grow(self, *_: Any) -> None: ...

    def tend(self, consumer: Any, topic: str, gained: Any, losing: Any) -> None:
        going, coming = self._mine - self._world.wanted, self._world.wanted - self._mine
        if going:
            consumer.incremental_unassign([TopicPartition(topic, number) for number in going])
            losing(sorted(going))
            self._mine -= going
        if coming:
            self._mine |= coming
            starts = {number: self._world.committed.get(number) for number in sorted(coming)}
            consumer.incremental_assign(
                [TopicPartition(topic, n, OFFSET_BEGINNING if at is None else at) for n, at in starts.items()]
            )
            gained(starts)

    def left(self) -> None:
        self._mine.clear()


class Message:
    def __init__(self, number: int, at: int, error: KafkaError | None = None) -> None:
        self.number, self.at, self._error = number, at, error

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def error(self) -> KafkaError | None:
        return self._error


class Client:
    def __init__(self, world: World, committed: Any) -> None:
        self.gone = False
        self._world = world
        self._stream = world.stream
        self._told_committed = committed
        self._places: dict[int, int] = {}
        self._paused: set[int] = set()
        self._answers: list[tuple[KafkaError | None, list[TopicPartition]]] = []

    def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ARG002 - the client's
        partitions = dict.fromkeys(range(PARTITIONS))
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=partitions)})

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        assert not self._places.keys() & {each.partition for each in partitions}
        self._places |= {each.partition: max(0, each.offset) for each in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            del self._places[each.partition]

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, number) for number in self._places]

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {each.partition for each in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._paused -= {each.partition for each in partitions}

    def seek(self, place: TopicPartition) -> None:
        if place.partition in self._places:
            self._places[place.partition] = place.offset

    def poll(self, timeout: float) -> Message | None:
        self._world.step(timeout)
        answers, self._answers = self._answers, []
        for error, partitions in answers:
            self._told_committed(error, partitions)
        if self.gone:
            return Message(0, 0, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        return self._next()

    def consume(self, count: int, timeout: float) -> list[Message]:  # noqa: ARG002 - the client's
        found = [self._next() for _ in range(min(count, self._world.chance.randint(0, 5)))]
        return [each for each in found if each is not None]

    def _next(self) -> Message | None:
        for number in self._world.chance.sample(sorted(self._places), len(self._places)):
            at = next((at for at in self._world.logs[number] if at >= self._places[number]), None)
            if at is not None and number not in self._paused:
                self._places[number] = at + 1
                return Message(number, at)
        return None

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        error = None
        try:
            for each in offsets:
                self._world.commit(each.partition, each.offset, self._stream)
        except KafkaException as failed:
            error = failed.args[0]
        if not asynchronous and error is not None:
            raise KafkaException(error)
        self._answers.append((error, offsets))

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:  # noqa: ARG002 - the client's
        log = self._world.logs[place.partition]
        return 0, log[-1] + 1 if log else 0

    def close(self) -> None: ...
