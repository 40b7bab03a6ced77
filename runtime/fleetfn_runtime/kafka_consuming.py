"""The consuming loop of one trigger, on a thread of its own.

It never stops polling for long, commits the settled prefix of each partition, and outlives the brokers' absence.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from fleetfn.errors import FleetError
from fleetfn_triggers import kafka_membership
from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.kafka import KafkaReader
from fleetfn_triggers.kafka_client import (
    address,
    client_log,
    client_settings,
    explain,
    is_embedded,
    make_embedded,
)
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.kafka_membership import CLASSIC
from fleetfn_triggers.kafka_reach import Reach
from fleetfn_triggers.secret import Resolve

from fleetfn_runtime.kafka_arrivals import Arrivals
from fleetfn_runtime.kafka_claims import Ask, Starts
from fleetfn_runtime.kafka_commits import Commits, Tell
from fleetfn_runtime.kafka_holding import Bounds, Holding
from fleetfn_runtime.kafka_partitions import AsMember, Partitions

log = logging.getLogger("fleetfn.kafka")

BATCH = 500
"""Records handed over at once: enough to pay a hop to the loop, little enough that others get their turn."""

TICK = 0.05
"""Seconds until the thread notices an order, at most."""

COMMIT_EVERY = 0.5
LOOK_EVERY = 30.0
"""Seconds between looks for new partitions."""

REFRESH_EVERY = 12 * 3600.0
"""Seconds between commits of offsets that do not move: brokers forget those of empty groups after 7 days."""

WOKEN = 5.0
"""Seconds until a member of a group commits anew what it found: nobody else does while its function sleeps."""

RETRY = 1.0
"""Seconds between tries while the brokers are away."""

ANSWER = 5.0
"""Seconds that brokers get to answer; the first connection of a cold cluster may take some."""

SLICE = 0.5
"""Seconds of waiting for an answer after which the thread looks at its orders."""

GRACE = 3.0
"""Seconds that what runs may take to settle before its partition goes to another member."""

STALE = 5.0
"""Seconds that a partition may stay ours after the inbox took somebody else for its owner."""

PASS_EVERY = 5.0
"""Seconds between telling the inbox what is committed, where it may remember something of below."""

PATIENCE = 2.0
"""Seconds without polling, with the room full, before partitions are paused: that throws away what was fetched."""

SETTINGS = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "earliest",
    "allow.auto.create.topics": "false",
    # what waits beside our own bounds
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.wait.max.ms": 100,
    # librdkafka's 1 s would leave us without records once the queue was full
    "fetch.queue.backoff.ms": 10,
    "fetch.error.backoff.ms": 100,
}

_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)  # noqa: SLF001 - so librdkafka names its own errors


@dataclass(slots=True)
class Orders:
    """What the loop wants of the thread."""

    paused: bool = False
    ending: bool = False
    changed: threading.Event = field(default_factory=threading.Event)


class Restart(Exception):  # noqa: N818 - what is to be done
    """The topic is another one now: begin anew."""


class Consuming:
    def __init__(
        self,
        *,
        topic: str,
        connection: KafkaConnection,
        group: str,
        resolve: Resolve,
        reader: KafkaReader,
        partitions: Partitions,
        bounds: Bounds,
        orders: Orders,
        take: Callable[[list[Delivery]], None],
        lost: Callable[[], None],
        claim: Ask,
        passed: Tell,
    ) -> None:
        self._reach = Reach(connection, log, f"topic {topic}")
        self.lag: int | None = None
        self.lagging = 0
        self._topic = topic
        self._connection = connection
        self._group = group
        self._resolve = resolve
        self._reader = reader
        self._partitions = partitions
        self._bounds = bounds
        self._orders = orders
        self._take = take
        self._lost = lost
        self._holdings: dict[int, Holding] = {}
        self._arrivals = Arrivals(topic, self._holdings, claim)
        self._commits = Commits(topic, self._holdings, passed, quiet=lambda: self._reach.doubtful)
        self._known: set[int] = set()
        self._full_since: float | None = None
        self._due = dict.fromkeys(("commit", "look", "refresh", "probe", "pass"), 0.0)
        self._consumer: Consumer

    @property
    def problem(self) -> str:
        return self._reach.problem or self._arrivals.problem

    @property
    def held(self) -> int:
        """Records that were handed over and are not settled."""
        return sum(holding.came - holding.went for holding in list(self._holdings.values()))

    def run(self) -> None:
        """Until `orders.ending`."""
        while not self._orders.ending:
            try:
                self._consumer = self._open()
            except FleetError as error:
                self._reach.away(error.message)
                self._rest()
                continue
            try:
                self._consume()
            except KafkaException as error:
                self._reach.away(explain(error.args[0]))
                self._rest()
            except Restart as why:
                log.warning("topic %s: %s", self._topic, why)
            except Exception:  # records would wait until the worker is replaced
                log.exception("topic %s: consuming broke; this is a defect", self._topic)
                self._reach.away("consuming broke by a defect; see the log")
                self._rest()
            finally:
                self._close()

    # From nothing to consuming

    def _open(self) -> Consumer:
        self._shared = client_settings(self._connection, self._resolve, self._group)
        settings = {
            **SETTINGS,
            **self._shared,
            **self._partitions.settings,
            "group.id": self._group,
            "error_cb": self._reach.note,
            "on_commit": self._commits.answered,
        }
        try:
            return Consumer(settings, logger=client_log())
        except KafkaException as error:
            raise FleetError(f"Kafka client settings: {explain(error.args[0])}") from error

    def _begin(self) -> bool:
        """Own partitions; False: told to end meanwhile."""
        while not self._orders.ending:
            metadata = self._metadata()
            if metadata is None:
                continue
            found = metadata.topics[self._topic]
            if found.error is not None or not found.partitions:
                if make_embedded(metadata, self._topic, self._shared):
                    continue
                self._reach.away(f"topic '{self._topic}' does not exist on {address(self._connection)}")
                self._rest()
                continue
            self._known = set(found.partitions)
            self._own(metadata)
            self._reach.back()
            now = time.monotonic()
            self._due = {
                "commit": now,
                "look": now + LOOK_EVERY,
                "refresh": now + (WOKEN if isinstance(self._partitions, AsMember) else REFRESH_EVERY),
                "probe": now,
                "pass": now + PASS_EVERY,
            }
            return True
        return False

    def _own(self, metadata: Any) -> None:
        """A group is joined while the stream is asked for: it gives nothing before it is polled."""
        numbers = sorted(self._known)
        joins = isinstance(self._partitions, AsMember)
        if not joins:
            self._name_stream(metadata)
        self._partitions.begin(self._consumer, self._topic, numbers, self._gained, self._losing)
        if joins:
            self._name_stream(metadata)

    def _metadata(self) -> Any:
        """None: no answer; the problem is set, unless we are to end."""
        limit = time.monotonic() + ANSWER
        while not self._orders.ending:
            try:
                return self._consumer.list_topics(self._topic, timeout=SLICE)
            except KafkaException as error:
                self._take_in(0)  # calls note, which may know better
                if self._reach.doubt is not None or time.monotonic() > limit:
                    self._reach.failed(error.args[0])
                    break
        return None

    def _name_stream(self, metadata: Any) -> None:
        """The stream of positions carries the topic's id, so that a recreated topic is another stream.

        The embedded broker has no topic ids. It forgets all when it ends, so the next one is another stream, too.
        """
        if is_embedded(metadata):
            identity = f"{metadata.cluster_id}@{address(self._connection)}"
        else:
            admin = AdminClient(self._shared, logger=client_log())
            asked = admin.describe_topics(TopicCollection([self._topic]), request_timeout=ANSWER)
            identity = str(asked[self._topic].result(ANSWER).topic_id)
        self._reader.stream = f"kafka:{self._topic}:{identity}"

    # Consuming

    def _consume(self) -> None:
        if not self._begin():
            return
        consumer, orders = self._consumer, self._orders
        while not orders.ending:
            self._keep_house()
            if self._waits():
                continue
            # What is there already, at once: each call lets go of the interpreter's lock, and may wait for it.
            messages = consumer.consume(BATCH, 0)
            if not messages and (first := consumer.poll(TICK)) is not None:
                messages = [first]
            if messages:
                self._hand_over(messages)

    def _waits(self) -> bool:
        """Paused, or the room is full: poll without taking."""
        paused = self._orders.paused
        full = self._bounds.full(self._holdings.values())
        if not paused and not full:
            self._full_since = None
            if self._arrivals.stopped:
                self._arrivals.stopped = False
                self._consumer.resume([TopicPartition(self._topic, number) for number in self._holdings])
            return False
        if not paused and not self._arrivals.stopped:
            now = time.monotonic()
            self._full_since = self._full_since or now
            if now - self._full_since < PATIENCE:
                self._rest(0.005)
                return True
        if not self._arrivals.stopped:
            self._arrivals.stopped = True
            self._consumer.pause(self._consumer.assignment())
        self._take_in(TICK)
        return True

    def _take_in(self, timeout: float) -> None:
        """Let the client call us. A record that it gives meanwhile must not be dropped."""
        message = self._consumer.poll(timeout)
        if message is not None:
            self._hand_over([message])

    def _hand_over(self, messages: list[Any]) -> None:
        deliveries: list[Delivery] = []
        holdings, reader = self._holdings, self._reader
        for message in messages:
            error = message.error()
            if error is not None:
                self._failed(error)
                continue
            holding = holdings.get(message.partition())
            offset = message.offset()
            if holding is None:  # revoked while the batch was under way, or not yet ours
                self._arrivals.came_early(message.partition(), offset)
                continue
            if holding.came == 0 or offset < holding.high:
                self._check_place(holding, offset)
            delivery = reader(message, holding, holding.epoch)
            holding.hand_over(offset, delivery.size)
            deliveries.append(delivery)
        if deliveries:
            self._take(deliveries)

    def _check_place(self, holding: Holding, offset: int) -> None:
        """The first record of a partition, or one from before where we are: then the log was made anew."""
        if holding.came:
            raise Restart(f"partition {holding.number} begins anew at offset {offset} (was {holding.high})")
        place = TopicPartition(self._topic, holding.number)
        if holding.started and offset < holding.high:
            log.warning(
                "topic %s: partition %d ends before the committed offset %d; going on with its oldest record, %d",
                self._topic,
                holding.number,
                holding.high,
                offset,
            )
        elif holding.started and holding.high < self._consumer.get_watermark_offsets(place, cached=True)[0]:
            log.warning(
                "topic %s: records %d to %d of partition %d were deleted before they were handled",
                self._topic,
                holding.high,
                offset - 1,
                holding.number,
            )
        holding.begin(offset)

    def _failed(self, error: KafkaError) -> None:
        if error.code() in _GONE:
            raise Restart(f"it is gone ({explain(error)})")
        if isinstance(self._partitions, AsMember) and kafka_membership.is_unsupported(error):
            self._partitions = AsMember(CLASSIC, self._partitions.start)
            raise Restart("the brokers know no group protocol 'consumer' (KIP-848); joining by the classic one")
        log.warning("topic %s: %s", self._topic, explain(error))

    # Partitions come and go

    def _gained(self, starts: Starts) -> None:
        self._arrivals.add(self._consumer, self._reader.stream, starts)

    def _losing(self, numbers: list[int]) -> None:
        self._arrivals.drop(numbers)
        going = [self._holdings.pop(number) for number in numbers if number in self._holdings]
        limit = time.monotonic() + GRACE
        while any(len(holding.prefix) for holding in going if holding.refused is None) and time.monotonic() < limit:
            self._rest(0.005)
        for holding in going:
            holding.owned = False
        if not self._reach.problem:  # that would wait for as long as the brokers are away
            self._commits.commit(self._consumer, going, wait=True)
        self._lost()

    def _look_for_partitions(self) -> None:
        metadata = self._metadata()
        if metadata is None:
            return
        found = metadata.topics[self._topic]
        if found.error is not None:
            raise Restart(f"it is gone ({explain(found.error)})")
        new = sorted(set(found.partitions) - self._known)
        if new:
            self._known.update(new)
            self._partitions.grow(self._consumer, self._topic, new, self._gained)

    # Now and then

    def _keep_house(self) -> None:
        self._partitions.tend(self._consumer, self._topic, self._gained, self._losing)
        now = time.monotonic()
        due = self._due
        if self._reach.doubtful and now >= due["probe"]:
            due["probe"] = now + RETRY
            self._probe()
        if now >= due["commit"]:
            due["commit"] = now + COMMIT_EVERY
            self._commits.commit(self._consumer, self._holdings.values(), wait=False)
            self._measure()
        if self._arrivals:
            self._arrivals.grant(self._consumer, self._reader.stream)
        if now >= due["pass"]:
            due["pass"] = now + PASS_EVERY
            self._commits.pass_on(self._reader.stream)
            self._check_claims(now)
        if now >= due["look"]:
            due["look"] = now + LOOK_EVERY
            self._look_for_partitions()
        if now >= due["refresh"] and self._holdings and not self._arrivals:
            due["refresh"] = now + REFRESH_EVERY
            self._commits.renew()

    def _check_claims(self, now: float) -> None:
        """A claim of ours, or of a worker that is gone, may have come late. What was dropped since comes again."""
        for holding in self._holdings.values():
            if holding.refused is not None and now - holding.refused > STALE:
                raise Restart(
                    f"partition {holding.number} is ours, and the inbox knows of a later claim; claiming anew"
                )

    def _measure(self) -> None:
        total = lagging = 0
        if self._arrivals:
            self.lag = None
            return
        for holding in self._holdings.values():
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, holding.number), cached=True)
            if high < 0:
                self.lag = None
                return
            waits = max(0, high - max(low, holding.high)) + holding.came - holding.went
            total += waits
            lagging += waits > 0
        self.lag, self.lagging = total, lagging

    def _probe(self) -> None:
        try:
            self._consumer.list_topics(self._topic, timeout=SLICE)
        except KafkaException as error:
            self._reach.failed(error.args[0])
        else:
            self._reach.back()

    # Ends

    def _close(self) -> None:
        """Commit what is settled, leave. Whatever still runs of this consumer's partitions is no longer ours."""
        holdings = list(self._holdings.values())
        if not self._reach.problem:
            self._commits.commit_last(self._consumer, ANSWER)
        for holding in holdings:
            holding.owned = False
        self._holdings.clear()
        self._arrivals.clear()
        self._leave(self._consumer)
        del self._consumer  # frees its threads now, not when garbage is collected
        self._partitions.left()
        self.lag = None
        if holdings and not self._orders.ending:
            self._lost()

    def _leave(self, consumer: Consumer) -> None:
        """Closing waits for commits without an answer, 45 s where the brokers are away. Whoever ends does not."""
        if not self._orders.ending:
            consumer.close()
            return
        closing = threading.Thread(target=consumer.close, name="kafka-leaving", daemon=True)
        closing.start()
        closing.join(SLICE if self.problem else ANSWER)

    def _rest(self, seconds: float = RETRY) -> None:
        self._orders.changed.wait(seconds)
        self._orders.changed.clear()
