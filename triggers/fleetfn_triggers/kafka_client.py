"""Talking to a Kafka cluster: librdkafka's settings of a connection, and what is asked of a cluster around consuming.

Clients block, so they are used on threads. confluent_kafka is imported where it is first needed: most processes that
know of Kafka triggers never connect.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fleetfn.errors import FleetError

from fleetfn_triggers import kafka_membership
from fleetfn_triggers.kafka_connection import KafkaConnection
from fleetfn_triggers.secret import Resolve

NONE = -1001
"""librdkafka's OFFSET_INVALID: no offset is committed."""

_ASK = 0.5
"""Seconds between looks for an error that ends the waiting (a wrong password) while a cluster does not answer."""

_PAUSE = 0.05
"""Seconds between asking again for what is being set up."""

_SETTLING = frozenset(
    {
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE",
        "LEADER_NOT_AVAILABLE",
        "NOT_COORDINATOR",
        "NOT_LEADER_FOR_PARTITION",
        "UNKNOWN_TOPIC_OR_PART",
    }
)
"""Errors of what was made a moment ago."""

_TOUCH = 5.0
"""Seconds that the embedded broker gets to make a topic."""

_VERIFY = {"hostname": "https", "certificate": "none", "none": "none"}


class BrokerError(FleetError):
    """A Kafka cluster cannot be reached, refuses us, or lacks a topic."""


class ClientLog(logging.LoggerAdapter[logging.Logger]):
    """librdkafka's own log: for those who debug. What matters of it is told by whoever uses the client, once."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ARG002 - librdkafka's level
        self.logger.debug(msg, *args, **kwargs)


def client_log() -> ClientLog:
    return ClientLog(logging.getLogger("fleetfn.kafka.client"))


def address(connection: KafkaConnection) -> str:
    return ",".join(connection.brokers)


def client_settings(connection: KafkaConnection, resolve: Resolve, client_id: str) -> dict[str, Any]:
    """Of consumers and producers of a connection alike, in librdkafka's words. Raises FleetError: a secret's."""
    if not connection.brokers:
        raise BrokerError("the Kafka connection has no brokers", hint="name them in environments.yaml")
    tls, sasl = connection.tls, connection.sasl
    found: dict[str, Any] = {
        "bootstrap.servers": address(connection),
        "client.id": client_id,
        "security.protocol": f"{'SASL_' if sasl else ''}{'SSL' if tls else 'PLAINTEXT'}",
        # a broker that comes back is found within 2 s, not librdkafka's 10
        "reconnect.backoff.max.ms": 2000,
        "topic.metadata.refresh.interval.ms": 30_000,
    }
    if tls is not None:
        found["ssl.endpoint.identification.algorithm"] = _VERIFY[tls.verify]
        found["enable.ssl.certificate.verification"] = tls.verify != "none"
        found["ssl.ca.location"] = _readable("ca", tls.path("ca"))
        found["ssl.certificate.location"] = _readable("certificate", tls.path("certificate"))
        found["ssl.key.location"] = _readable("key", tls.path("key"))
        found["ssl.key.password"] = tls.key_password and resolve(tls.key_password)
    if sasl is not None:
        found["sasl.mechanism"] = sasl.mechanism
        found["sasl.username"] = sasl.username if isinstance(sasl.username, str) else resolve(sasl.username)
        found["sasl.password"] = resolve(sasl.password)
    found |= connection.properties
    return {name: _plain(value) for name, value in found.items() if value is not None}


def _readable(field: str, path: str | None) -> str | None:
    """Checked here, since librdkafka names neither the file nor the reason."""
    if path is not None:
        try:
            with Path(path).open("rb"):
                pass
        except OSError as exc:
            raise BrokerError(
                f"tls.{field} of the Kafka connection: '{path}' cannot be read: {exc.strerror}",
                hint="check the path, and that this process's user may read it",
            ) from exc
    return path


def _plain(value: object) -> object:
    """As librdkafka spells booleans; a secret as plain text."""
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, str) else value


def explain(error: Any) -> str:
    """A KafkaError for people, without the client's id and librdkafka's internals in front."""
    text = str(error.str())
    return text.partition("]: ")[2] or text


def is_refusal(error: Any) -> bool:
    """It does not go away by waiting: wrong password, unknown certificate."""
    return error.name() in ("_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM")


def is_embedded(metadata: Any) -> bool:
    """The embedded broker is librdkafka's mock cluster: it knows no topic ids, and a producer's touch makes topics."""
    return str(metadata.cluster_id or "").startswith("mockCluster")


def make_embedded(metadata: Any, topic: str, settings: dict[str, Any]) -> bool:
    """On the embedded broker make the topic; False: this is a real one, where topics are for people to make."""
    if not is_embedded(metadata):
        return False
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415 - see the module's docstring

    AdminClient(settings, logger=client_log()).list_topics(topic, timeout=_TOUCH)
    return True


class Cluster:
    """One client of a cluster, to ask it things. It blocks: use it on a thread, and close it by `opened`."""

    def __init__(self, connection: KafkaConnection, resolve: Resolve, group: str, limit: float) -> None:
        import confluent_kafka as ck  # noqa: PLC0415 - see the module's docstring

        self._ck = ck
        self._connection = connection
        self._address = address(connection)
        self._deadline = time.monotonic() + limit
        self._limit = limit
        self._last: Any = None
        self._shared = client_settings(connection, resolve, group)
        self._settings = {
            **self._shared,
            "group.id": group,
            "enable.auto.commit": "false",
            "auto.offset.reset": "error",
        }
        try:
            self._consumer = ck.Consumer({**self._settings, "error_cb": self._note}, logger=client_log())
        except ck.KafkaException as exc:
            raise BrokerError(f"Kafka client settings for {self._address}: {explain(exc.args[0])}") from exc

    def close(self) -> None:
        self._consumer.close()
        del self._consumer  # it holds _note, and so us: without this both would wait for the garbage collector

    def partitions(self, topic: str) -> list[int]:
        """Numbers of the topic's partitions; a topic that the embedded broker lacks comes to be. Raises BrokerError."""
        while True:
            metadata = self._metadata(topic)
            found = metadata.topics[topic]
            if found.error is None and found.partitions:
                return sorted(found.partitions)
            if self._left() > 0 and make_embedded(metadata, topic, self._shared):
                continue
            electing = found.error is None or found.error.name() == "LEADER_NOT_AVAILABLE"
            if not electing or self._left() <= 0:
                raise self._no_topic(topic, found.error)
            time.sleep(_PAUSE)

    def embedded(self) -> bool:
        """It is the embedded broker, which forgets all when it ends. Raises BrokerError."""
        return is_embedded(self._metadata(None))

    def check(self) -> None:
        """It answers, and lets us in. Raises BrokerError."""
        self._metadata(None)

    def committed(self, topic: str, numbers: Sequence[int]) -> dict[int, int]:
        """The group's offset per partition, NONE where it has none. Raises BrokerError."""
        asked = [self._ck.TopicPartition(topic, number) for number in numbers]
        what = f"the committed offsets of topic '{topic}'"
        found = self._patiently(what, lambda: _checked(self._consumer.committed(asked, timeout=self._left()), self._ck))
        return {each.partition: each.offset if each.offset >= 0 else NONE for each in found}

    def bounds(self, topic: str, number: int) -> tuple[int, int]:
        """Oldest offset, and the one that the next record gets. Raises BrokerError."""
        place = self._ck.TopicPartition(topic, number)
        low, high = self._patiently(
            f"the offsets of topic '{topic}'", lambda: self._consumer.get_watermark_offsets(place, timeout=self._left())
        )
        return low, high

    def commit(self, topic: str, offsets: dict[int, int]) -> None:
        """Commit for the group. Members of it must not consume this topic. Raises BrokerError."""
        asked = [self._ck.TopicPartition(topic, number, offset) for number, offset in offsets.items()]
        what = f"committing offsets of topic '{topic}'"
        try:
            self._patiently(what, lambda: _checked(self._consumer.commit(offsets=asked, asynchronous=False), self._ck))
        except BrokerError as error:
            if not self._has_members(error.__cause__):
                raise
            self._patiently(what, lambda: kafka_membership.commit(self._settings, topic, offsets))

    def _has_members(self, error: BaseException | None) -> bool:
        return isinstance(error, self._ck.KafkaException) and error.args[0].name() == "UNKNOWN_MEMBER_ID"

    def _metadata(self, topic: str | None) -> Any:
        ask = {} if topic is None else {"topic": topic}
        while True:
            try:
                return self._consumer.list_topics(**ask, timeout=max(0.05, min(_ASK, self._left())))
            except self._ck.KafkaException as exc:
                self._last = self._last or exc.args[0]
                self._consumer.poll(0)  # calls _note, which knows more
                if is_refusal(self._last) or self._left() <= 0:
                    raise self._unreachable() from exc

    def _unreachable(self) -> BrokerError:
        if is_refusal(self._last):
            return BrokerError(
                f"brokers {self._address} refuse us: {explain(self._last)}",
                hint="check tls and sasl of the connection in environments.yaml",
            )
        return BrokerError(
            f"brokers {self._address} do not answer within {self._limit:g} s: {explain(self._last)}",
            hint="check the address in environments.yaml, and that the brokers run",
        )

    def _no_topic(self, topic: str, error: Any) -> BrokerError:
        if error is None or error.name() in ("UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE"):
            return BrokerError(f"topic '{topic}' does not exist on {self._address}", hint="create it, then try again")
        return BrokerError(f"topic '{topic}' on {self._address}: {explain(error)}")

    def _patiently(self, what: str, ask: Callable[[], Any]) -> Any:
        """What `ask` returns; asked again while a topic, group or leader is being set up. Raises BrokerError."""
        while True:
            try:
                return ask()
            except self._ck.KafkaException as exc:
                error = exc.args[0]
                if error.name() not in _SETTLING or self._left() <= 0:
                    raise BrokerError(f"{what} on {self._address}: {explain(error)}") from exc
            time.sleep(_PAUSE)

    def _note(self, error: Any) -> None:
        if self._last is None or is_refusal(error) or not is_refusal(self._last):
            self._last = error

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def _checked(found: Any, ck: Any) -> Any:
    """Partitions bring their own errors."""
    for each in found:
        if each.error is not None:
            raise ck.KafkaException(each.error)
    return found


@contextmanager
def opened(connection: KafkaConnection, resolve: Resolve, group: str, limit: float) -> Iterator[Cluster]:
    cluster = Cluster(connection, resolve, group, limit)
    try:
        yield cluster
    finally:
        cluster.close()


async def check_connection(
    connection: KafkaConnection, *, resolve: Resolve, client_id: str = "fleetfn", limit: float = 10.0
) -> None:
    """The cluster answers within `limit` seconds and lets us in. Raises BrokerError, or FleetError of a secret."""

    def check() -> None:
        with opened(connection, resolve, client_id, limit) as cluster:
            cluster.check()

    await asyncio.to_thread(check)


async def commit_start_offsets(
    connection: KafkaConnection,
    topic: str,
    group: str,
    start: Literal["latest", "earliest"],
    *,
    resolve: Resolve,
    began: bool = False,
    limit: float = 10.0,
) -> dict[int, int]:
    """Commit where the group begins, so that no record written after this is missed; what it began, by partition.

    A group that stands in this topic already is left alone: partitions without an offset begin with their oldest
    record, whoever consumes. `began`: it has begun in this topic before. Where the embedded broker knows nothing of
    that, it was started again, empty: what it has came since, so the group begins with the oldest. Raises BrokerError,
    or FleetError of a secret.
    """

    def commit() -> dict[int, int]:
        with opened(connection, resolve, group, limit) as cluster:
            known = cluster.committed(topic, cluster.partitions(topic))
            if set(known.values()) != {NONE}:
                return {}
            return begin(cluster, topic, known, "earliest" if began and cluster.embedded() else start)

    return await asyncio.to_thread(commit)


def begin(cluster: Cluster, topic: str, known: dict[int, int], start: Literal["latest", "earliest"]) -> dict[int, int]:
    """Commit the start for partitions of `known` without an offset; what was committed. Raises BrokerError."""
    missing = [number for number, offset in known.items() if offset == NONE]
    fresh = {number: cluster.bounds(topic, number)[start == "latest"] for number in missing}
    if fresh:
        cluster.commit(topic, fresh)
    return fresh


async def backlog(
    connection: KafkaConnection, topic: str, group: str, *, resolve: Resolve, limit: float = 3.0
) -> int | None:
    """Offsets between what the group has committed and the end; None: nobody can tell now. Transaction markers count
    as offsets, so it may stay above 0 where a producer uses transactions.
    """

    def count() -> int:
        with opened(connection, resolve, group, limit) as cluster:
            total = 0
            for number, offset in cluster.committed(topic, cluster.partitions(topic)).items():
                low, high = cluster.bounds(topic, number)
                total += high - max(low, offset)
            return total

    try:
        return await asyncio.to_thread(count)
    except FleetError:
        return None
