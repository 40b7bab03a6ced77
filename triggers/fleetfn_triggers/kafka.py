"""The kafka trigger and output: fields, checks and reading a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol

import msgspec
from fleetfn.cloudevents import kafka as codec
from fleetfn.errors import EventError
from fleetfn.event import Event
from fleetfn.position import At
from msgspec import Meta

from fleetfn_triggers import kafka_scaler, keys
from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.extract import Extract
from fleetfn_triggers.fields import KafkaTopic, Strict
from fleetfn_triggers.kafka_connection import KafkaConnection, KafkaSasl
from fleetfn_triggers.reading import OVERHEAD, Unreadable, decoded, looks_like_json, not_a_cloudevent, with_data
from fleetfn_triggers.secret import Resolve
from fleetfn_triggers.trigger import Complaint, Reading, Scaler

_NO_HEADERS: tuple[tuple[str, bytes], ...] = ()

TYPE = "kafka.record"
"""Type of the event that a record becomes which is no CloudEvent."""

RAW_KEY = "kafka-key"
"""Header that keeps a record's key where it is not UTF-8, so that a dead letter holds the whole."""


class Kafka(Strict, frozen=True):
    """A function reads a topic; its offsets are committed as records are handled."""

    topic: Annotated[KafkaTopic, Meta(description="Name of the topic.", examples=["vehicle.telemetry"])]
    start: Annotated[
        Literal["latest", "earliest"],
        Meta(
            description="Where the first deploy begins: after what the topic holds then, or with its oldest record. "
            "Later deploys go on where the function stands.",
            examples=["earliest"],
        ),
    ] = "latest"


class KafkaOutput(Strict, frozen=True):
    """Events are written as binary CloudEvents, with the event's key as the record's key."""

    topic: Annotated[KafkaTopic, Meta(description="Name of the topic.", examples=["alerts"])]


Headers = Sequence[tuple[str, bytes | None]]


class Message(Protocol):
    """What is asked of a `confluent_kafka.Message`."""

    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def timestamp(self) -> tuple[int, int]: ...


def _key(message: Message) -> object:
    key = message.key()
    return keys.MISSING if key is None else key


def _header(name: str) -> Any:
    def get(message: Message) -> object:
        for key, value in message.headers() or ():
            if key.lower() == name and value is not None:
                return value
        return keys.MISSING

    return get


_ENVELOPE: keys.Envelope = {
    "kafka.key": lambda _name: _key,
    "header": _header,
}


class KafkaKind:
    name = "kafka"
    spec: type[msgspec.Struct] = Kafka
    connection: type[msgspec.Struct] | None = KafkaConnection
    envelope = frozenset(_ENVELOPE)
    natural_key: str | None = "kafka.key"
    unbatched = ""

    def check(self, spec: Kafka, key: str | None) -> Iterator[Complaint]:  # noqa: ARG002 - the types say it all
        yield from ()

    def reader(self, spec: Kafka, reading: Reading) -> KafkaReader:
        return KafkaReader(spec, reading)

    async def backlog(self, spec: Kafka, *, connection: KafkaConnection, group: str, resolve: Resolve) -> int | None:
        """Records of the topic that the group has not committed."""
        from fleetfn_triggers import kafka_client  # noqa: PLC0415 - only a node asks

        return await kafka_client.backlog(connection, spec.topic, group, resolve=resolve)

    def scaler(self, spec: Kafka, *, connection: KafkaConnection, group: str, concurrency: int) -> Scaler:
        return kafka_scaler.scaler(connection, spec.topic, group, concurrency)


class KafkaReader:
    """Message -> Delivery, in two microseconds or three: the hot path of every Kafka function."""

    def __init__(self, spec: Kafka, reading: Reading) -> None:
        self.stream = f"kafka:{spec.topic}:"
        """The stream of positions; the source sets `kafka:<topic>:<topic id>` once it knows the id."""
        self._trigger = reading.trigger
        self._topic = spec.topic
        self._source = f"kafka:{spec.topic}"
        self._decode = reading.decode
        self._extract = Extract(reading, _ENVELOPE)
        self._plain = reading.decode is None and self._extract.of_envelope
        """Records' data need not be looked at."""
        self._time = _Times().of

    def __call__(self, message: Message, source: Source, epoch: int = 0) -> Delivery:
        """`source`, `epoch`: the delivery's."""
        event: Event[bytes | None] | None = None
        values: tuple[object, ...] | None = None
        key: str | None = None
        problem: str | None = None
        headers = message.headers() or ()
        raw_key, data = message.key(), message.value()
        partition, offset = message.partition() or 0, message.offset() or 0
        try:
            if headers and (event := _cloudevent(headers, raw_key, data)) is not None:
                if self._decode is not None:
                    event = with_data(event, self._decode)
            elif self._plain:
                event, values = self._event(message, headers, raw_key, data, f"{self._topic}/{partition}/{offset}"), ()
            else:
                event, values = self._bare(message, headers, raw_key, data, f"{self._topic}/{partition}/{offset}")
            key = self._extract.key(message, event, values)
        except Unreadable as exc:
            problem = str(exc)
            key = self._extract.key_of_unreadable(message)  # so that its dead letter is the vehicle's, in its order
            event = event or self._event(message, headers, raw_key, data, f"{self._topic}/{partition}/{offset}")
        size = OVERHEAD + (len(data) if data else 0) + (len(raw_key) if raw_key else 0)
        if headers:
            size += sum(len(name) + len(value or b"") for name, value in headers)
        # Positional, since keywords cost more and this runs for each record.
        position = At(self.stream, partition, offset)
        raw = problem is not None and self._decode is not None
        return Delivery(self._trigger, key, event, position, source, 0, size, None, problem, raw, False, epoch)

    def _bare(
        self, message: Message, headers: Headers, raw_key: bytes | None, data: bytes | None, position: str
    ) -> tuple[Event[bytes | None], tuple[object, ...]]:
        kind = None
        if self._decode is not None and data is not None:
            data, is_json = decoded(self._decode, data)
            kind = "application/json" if is_json else None
        given, time, values = self._extract.bare(message, data)
        return self._event(message, headers, raw_key, data, given or position, time, kind), values

    def _event(
        self,
        message: Message,
        headers: Headers,
        raw_key: bytes | None,
        data: bytes | None,
        id_: str,
        time: datetime | None = None,
        kind: str | None = None,
    ) -> Event[bytes | None]:
        subject: str | None = None
        kept = _NO_HEADERS
        if raw_key is not None:
            try:
                subject = raw_key.decode()
            except UnicodeDecodeError:
                kept = ((RAW_KEY, raw_key),)
        if headers:
            kept = (*((name, value or b"") for name, value in headers), *kept)
            kind = kind or _content_type(headers)
        return Event(
            id=id_,
            source=self._source,
            type=TYPE,
            subject=subject,
            time=time or self._time(message),
            datacontenttype=kind or looks_like_json(data),
            headers=kept,
            data=data,
        )


def _cloudevent(headers: Headers, key: bytes | None, data: bytes | None) -> Event[bytes | None] | None:
    try:
        return codec.decode(headers, key, data)
    except EventError as exc:
        raise not_a_cloudevent(exc) from exc


def _content_type(headers: Headers) -> str | None:
    for name, value in headers:
        if name.lower() == "content-type" and value:
            return bytes(value).decode("latin-1")
    return None


class _Times:
    """Records' own times, set by their producer or broker. Those that come in a rush share their milliseconds."""

    def __init__(self) -> None:
        self._last = -1
        self._read: datetime | None = None

    def of(self, message: Message) -> datetime | None:
        kind, milliseconds = message.timestamp()
        if not kind:
            return None
        if milliseconds != self._last:
            self._last, self._read = milliseconds, _utc(milliseconds)
        return self._read


def _utc(milliseconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


KIND = KafkaKind()

__all__ = [
    "KIND",
    "TYPE",
    "Kafka",
    "KafkaConnection",
    "KafkaKind",
    "KafkaOutput",
    "KafkaReader",
    "KafkaSasl",
    "Message",
]
