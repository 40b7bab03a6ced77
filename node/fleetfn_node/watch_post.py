"""A post of the watch: one consumer of one connection, on a thread of its own.

It reads the partitions of all who sleep from their committed offsets, and knows by the first record whom to wake.
Counting offsets instead would wake for transaction markers forever.

Where a group stands is asked by a consumer of that group, on a few threads beside. An admin client could ask for all,
but librdkafka (2.16) crashes where a broker answers it that the group's coordinator is elsewhere by now, and may wait
for ever for a coordinator that was restarted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from fleetfn.errors import FleetError
from fleetfn_triggers import kafka_client
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.kafka_reach import Reach
from fleetfn_triggers.secret import Resolve

from fleetfn_node.sleepers import Place, Sleeper, Sleepers

log = logging.getLogger("fleetfn.node.watch")

TICK = 0.25
"""Seconds until the thread notices that somebody fell asleep, at most. Records wake it at once."""

SLOW_TICK = 1.0
"""The same once nobody has woken or fallen asleep for `QUIET`: whoever falls asleep next was deployed just now, or has
had nothing to do for long. Looking up 4 times a second costs 50 ms of CPU a minute, in which nothing happens.
"""

QUIET = 30.0
"""Seconds: as long as functions usually stay awake without work, so that most find a thread that looks up often."""

REST = 120.0
"""Seconds without anybody who wakes or falls asleep, after which the thread rests: a consumer of its own then asks the
brokers less often. They answer with a record at once all the same. Not so the embedded one, where it never rests.
"""

REST_TICK = 2.0
"""Seconds until a thread that rests notices that somebody fell asleep, at most."""

_SOON = 0.005
"""Likewise, while answers are awaited."""

LOOK_EVERY = 30.0
"""Seconds between looks for new partitions."""

RETRY = 2.0
"""Seconds between tries while brokers are away or a topic is not there."""

ANSWER = 5.0
"""Seconds that brokers get to answer."""

_SLICE = 0.5
"""Seconds of waiting for an answer after which the thread looks up."""

REFRESH_EVERY = 12 * 3600.0
"""Seconds between commits of the offsets of those who sleep on: brokers forget an empty group's after 7 days."""

_AT_ONCE = 100
"""Records looked at before partitions that need no more looks are let go."""

ASKERS = 4
"""Groups asked for at once: each takes a client some 20 ms."""

SETTINGS = {
    "group.id": "fleetfn-watch",
    "enable.auto.commit": "false",
    "auto.offset.reset": "earliest",
    # one record says all
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 64,
    "fetch.message.max.bytes": 1024,
    # also how long one who just fell asleep may wait for the first look at its backlog; each wait that ends without a
    # record costs both sides a request over all partitions
    "fetch.wait.max.ms": 1000,
    "fetch.queue.backoff.ms": 50,
}

RESTING = {**SETTINGS, "fetch.wait.max.ms": 10_000}


class Post(threading.Thread):
    """The consumer of one connection."""

    def __init__(
        self, key: bytes, connection: KafkaConnection, resolve: Resolve, woken: Callable[[list[Sleeper]], object]
    ) -> None:
        super().__init__(name="kafka-watch", daemon=True)
        self.key = key
        self._reach = Reach(connection, log, "sleeping functions that Kafka wakes")
        self._connection = connection
        self._resolve = resolve
        self._woken = woken
        self._told: deque[tuple[str, Sleeper | None]] = deque()
        self._ending = False
        self._sleepers = Sleepers()
        self._new: deque[Sleeper] = deque()
        """Whose committed offsets are to be asked for."""
        self._later: list[tuple[float, Sleeper]] = []
        """Whose topic is not there, and when to look again."""
        self._asked: dict[Sleeper, Future[dict[int, int]]] = {}
        self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="kafka-asks")
        self._all: set[Sleeper] = set()
        self._changed_at = time.monotonic()
        """When somebody last fell asleep, or was woken."""
        self._resting = False
        self._embedded = True
        """Its broker is the embedded one, as far as is known."""
        self._topics: dict[str, list[int]] = {}
        self._probe_at = 0.0

    @property
    def problem(self) -> str:
        return self._reach.problem

    def tell(self, what: str, sleeper: Sleeper | None) -> None:
        self._told.append((what, sleeper))

    # On the thread

    def run(self) -> None:
        import confluent_kafka as ck  # noqa: PLC0415 - a node without Kafka triggers never needs it

        self._ck = ck
        while not self._ending:
            try:
                self._shared = kafka_client.client_settings(self._connection, self._resolve, "fleetfn-watch")
                usual = RESTING if self._resting else SETTINGS
                settings = {**usual, **self._shared, "error_cb": self._reach.note}
                self._consumer = ck.Consumer(settings, logger=kafka_client.client_log())
                self._sleepers.reread()
                try:
                    self._watch()
                finally:
                    self._consumer.close()
                    del self._consumer  # frees its threads now, not when garbage is collected
            except ck.KafkaException as error:
                self._begin_anew(kafka_client.explain(error.args[0]))
            except FleetError as error:
                self._begin_anew(error.message)
            except Exception:  # nobody else would wake those who sleep
                log.exception("the watch broke; this is a defect")
                self._begin_anew("the watch broke by a defect; see the log")
        self._askers.shutdown(wait=False, cancel_futures=True)

    def _begin_anew(self, problem: str) -> None:
        self._reach.away(problem)
        self._changed_at = time.monotonic()
        self._resting = False
        self._asked.clear()
        self._later.clear()
        self._topics.clear()
        self._sleepers = Sleepers()
        self._new.clear()
        self._new.extend(self._all)
        limit = time.monotonic() + RETRY
        while not self._ending and time.monotonic() < limit:
            time.sleep(TICK)
            self._obey()

    def _watch(self) -> None:
        """Until it ends, or another consumer is to go on: it begins to rest, or has rested."""
        look_at = time.monotonic() + LOOK_EVERY
        while not self._ending:
            now = time.monotonic()
            self._obey()
            if self._resting != self._may_rest(now):
                self._resting = not self._resting
                return
            if self._reach.doubtful and now >= self._probe_at:
                self._probe_at = now + RETRY
                self._probe()
            if not self._reach.problem:
                self._ask(now)
                self._hear(now)
                if now >= look_at:
                    look_at = now + LOOK_EVERY
                    self._look(now)
            self._read()
            # Not by poll, which looks up five times a second for signals: 35 ms of CPU a minute.
            found = self._consumer.consume(1, self._tick(now))
            self._take(found[0] if found else None)

    def _may_rest(self, now: float) -> bool:
        return not self._embedded and not self._asked and not self._later and now - self._changed_at >= REST

    def _tick(self, now: float) -> float:
        if self._asked:
            return _SOON
        if self._resting:
            return REST_TICK
        return TICK if now - self._changed_at < QUIET or self._later else SLOW_TICK

    def _obey(self) -> None:
        while self._told:
            what, sleeper = self._told.popleft()
            self._changed_at = time.monotonic()
            if sleeper is None:
                self._ending = True
            elif what == "sleep":
                self._all.add(sleeper)
                self._new.append(sleeper)
            else:
                self._all.discard(sleeper)
                self._sleepers.drop(sleeper)

    # Where they stand

    def _ask(self, now: float) -> None:
        due = [sleeper for at, sleeper in self._later if at <= now]
        self._later = [(at, sleeper) for at, sleeper in self._later if at > now]
        self._new.extend(due)
        while self._new:
            sleeper = self._new.popleft()
            if sleeper not in self._all:
                continue
            numbers = self._partitions(sleeper)
            if numbers:
                self._asked[sleeper] = self._askers.submit(self._where, sleeper, numbers)
            else:
                self._later.append((now + RETRY, sleeper))

    def _partitions(self, sleeper: Sleeper) -> list[int]:
        topic = sleeper.topic
        if topic not in self._topics:
            try:
                metadata = self._topics_now(topic=topic)
                found = metadata.topics[topic]
                if found.error is not None and kafka_client.make_embedded(metadata, topic, self._shared):
                    found = self._topics_now(topic=topic).topics[topic]
            except self._ck.KafkaException as error:
                self._reach.failed(error.args[0])
                return []
            if found.error is not None or not found.partitions:
                sleeper.problem = f"topic '{topic}' does not exist on {kafka_client.address(self._connection)}"
                return []
            self._topics[topic] = sorted(found.partitions)
        sleeper.problem = ""
        return self._topics[topic]

    def _hear(self, now: float) -> None:
        for sleeper in [sleeper for sleeper, answer in self._asked.items() if answer.done()]:
            answer = self._asked.pop(sleeper)
            if sleeper not in self._all:
                continue
            try:
                found = answer.result()
            except (self._ck.KafkaException, FleetError) as error:
                sleeper.problem = (
                    error.message if isinstance(error, FleetError) else kafka_client.explain(error.args[0])
                )
                log.warning("%s/%s is not watched: %s", sleeper.function, sleeper.trigger, sleeper.problem)
                self._later.append((now + RETRY, sleeper))
                continue
            sleeper.problem = ""
            sleeper.since = now
            self._sleepers.add(sleeper, found)

    def _where(self, sleeper: Sleeper, numbers: list[int]) -> dict[int, int]:
        """Its group's offsets. Partitions without one came after the deploy: they begin with their oldest record."""
        with kafka_client.opened(self._connection, self._resolve, sleeper.group, ANSWER) as cluster:
            known = cluster.committed(sleeper.topic, numbers)
            return known | kafka_client.begin(cluster, sleeper.topic, known, "earliest")

    def _look(self, now: float) -> None:
        """For new partitions, topics that are gone, and offsets that are to be committed again."""
        try:
            metadata = self._topics_now()
        except self._ck.KafkaException as error:
            self._reach.failed(error.args[0])
            return
        self._embedded = kafka_client.is_embedded(metadata)
        for topic, known in list(self._topics.items()):
            found = sorted(metadata.topics[topic].partitions) if topic in metadata.topics else []
            if found != known:
                del self._topics[topic]
                self._anew(topic)
        for sleeper in self._all:
            if sleeper.since and now - sleeper.since > REFRESH_EVERY:
                sleeper.since = now
                self._askers.submit(self._refresh, sleeper, dict(self._sleepers.offsets(sleeper)))

    def _topics_now(self, **which: str) -> Any:
        """Raises KafkaException: soon where the client knows already that nobody is there."""
        limit = time.monotonic() + ANSWER
        while True:
            try:
                return self._consumer.list_topics(**which, timeout=_SLICE)
            except self._ck.KafkaException:
                self._take(self._consumer.poll(0))  # calls note
                if self._reach.doubt is not None or self._told or time.monotonic() > limit:
                    raise

    def _anew(self, topic: str) -> None:
        for sleeper in self._all:
            if sleeper.topic == topic and sleeper not in self._new:
                self._asked.pop(sleeper, None)  # it was asked about other partitions than there are now
                self._sleepers.drop(sleeper)
                self._new.append(sleeper)

    def _refresh(self, sleeper: Sleeper, offsets: dict[int, int]) -> None:
        with (
            contextlib.suppress(FleetError),
            kafka_client.opened(self._connection, self._resolve, sleeper.group, ANSWER) as cluster,
        ):
            if sleeper in self._all:
                cluster.commit(sleeper.topic, offsets)

    # Reading

    def _read(self) -> None:
        changes = self._sleepers.changes()
        if not changes:
            return
        consumer, place = self._consumer, self._ck.TopicPartition
        assigned = {(each.topic, each.partition) for each in consumer.assignment()} & changes.keys()
        if assigned:
            consumer.incremental_unassign([place(*each) for each in assigned])
        wanted = [place(*each, begin) for each, begin in changes.items() if begin is not None]
        if wanted:
            consumer.incremental_assign(wanted)

    def _take(self, message: Any) -> None:
        woken: list[Sleeper] = []
        for _ in range(_AT_ONCE):
            if message is None:
                break
            error = message.error()
            if error is None:
                woken += self._record((message.topic(), message.partition()), message.offset())
            elif error.code() != self._ck.KafkaError._PARTITION_EOF:  # noqa: SLF001 - so librdkafka names its own errors
                log.warning("topic %s: %s", message.topic(), kafka_client.explain(error))
                if self._topics.pop(message.topic(), None):
                    self._anew(message.topic())
            message = self._consumer.poll(0)
        if woken:
            self._changed_at = time.monotonic()
            self._woken(woken)

    def _record(self, place: Place, offset: int) -> list[Sleeper]:
        woken = self._sleepers.record(place, offset)
        self._all.difference_update(woken)
        return woken

    def _probe(self) -> None:
        try:
            self._consumer.list_topics(timeout=_SLICE)
        except self._ck.KafkaException as error:
            self._reach.failed(error.args[0])
        else:
            self._reach.back()
