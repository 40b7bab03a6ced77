"""Kafka records to deliveries."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from fleetfn.position import At
from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.kafka import Kafka
from fleetfn_triggers.kinds import KINDS
from fleetfn_triggers.trigger import EventFields, Reading

SOURCE = cast("Source", object())
NOW = 1_763_700_000_123


@dataclass
class Record:
    """What the reader asks of a confluent_kafka.Message."""

    data: bytes | None = b'{"vehicle":"v1"}'
    record_key: bytes | None = b"v1"
    record_headers: list[tuple[str, bytes | None]] | None = None
    stamp: tuple[int, int] = (1, NOW)
    place: tuple[int, int] = field(default=(3, 17))

    def partition(self) -> int:
        return self.place[0]

    def offset(self) -> int:
        return self.place[1]

    def key(self) -> bytes | None:
        return self.record_key

    def value(self) -> bytes | None:
        return self.data

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.record_headers

    def timestamp(self) -> tuple[int, int]:
        return self.stamp


def read(record: Record, key: str | None = "kafka.key", **fields: Any) -> Delivery:
    event = EventFields(**{name: fields.pop(name) for name in ("id", "time") if name in fields})
    reader = KINDS["kafka"].reader(Kafka(topic="telemetry"), Reading("tele", "battery", key, event, **fields))
    return reader(record, SOURCE)


CE = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"e1"),
    ("ce_source", b"/car"),
    ("ce_type", b"t"),
    ("content-type", b"application/json"),
]


def test_a_bare_record_becomes_an_event() -> None:
    delivery = read(Record())
    event = delivery.event
    assert delivery.problem is None
    assert (delivery.trigger, delivery.key, delivery.source, delivery.attempts) == ("tele", "v1", SOURCE, 0)
    assert delivery.position == At("kafka:telemetry:", 3, 17)
    assert (event.id, event.source, event.type) == ("telemetry/3/17", "kafka:telemetry", "kafka.record")
    assert event.subject == "v1"
    assert event.time == datetime(2025, 11, 21, 4, 40, 0, 123000, UTC)
    assert event.datacontenttype == "application/json"
    assert event.data == b'{"vehicle":"v1"}'
    assert delivery.size > len(event.data)


def test_the_stream_is_set_once_the_topic_s_id_is_known() -> None:
    reader = KINDS["kafka"].reader(Kafka(topic="telemetry"), Reading("tele", "battery", None))
    reader.stream = "kafka:telemetry:abc"  # type: ignore[attr-defined]  # the Kafka reader's own
    assert reader(Record(), SOURCE).position == At("kafka:telemetry:abc", 3, 17)


def test_headers_stay_with_the_event() -> None:
    event = read(Record(record_headers=[("trace", b"1"), ("empty", None), ("content-type", b"text/plain")])).event
    assert event.headers == (("trace", b"1"), ("empty", b""), ("content-type", b"text/plain"))
    assert event.datacontenttype == "text/plain"


@pytest.mark.parametrize(
    ("key", "record", "expected"),
    [
        pytest.param(None, Record(record_key=None), None, id="no key"),
        pytest.param("kafka.key", Record(record_key="粤B1".encode()), "粤B1", id="record key"),
        pytest.param("subject", Record(), "v1", id="subject"),
        pytest.param("source", Record(), "kafka:telemetry", id="source"),
        pytest.param("data.vehicle", Record(data=b'{"vehicle":7}'), "7", id="data"),
        pytest.param("header.VIN", Record(record_headers=[("vin", b"w")]), "w", id="header"),
        pytest.param("data.vehicle", Record(record_headers=CE), "v1", id="data of a CloudEvent"),
        pytest.param("partitionkey", Record(record_headers=[*CE, ("ce_partitionkey", b"p")]), "p", id="partitionkey"),
        pytest.param("subject", Record(record_headers=[*CE, ("ce_subject", b"s")]), "s", id="subject of a CloudEvent"),
        pytest.param("kafka.key", Record(record_headers=CE), "v1", id="record key of a CloudEvent"),
    ],
)
def test_keys(key: str | None, record: Record, expected: str | None) -> None:
    delivery = read(record, key)
    assert delivery.problem is None
    assert delivery.key == expected


@pytest.mark.parametrize(
    ("key", "record", "problem"),
    [
        pytest.param("kafka.key", Record(record_key=None), "no key: kafka.key is missing", id="no record key"),
        pytest.param("kafka.key", Record(record_key=b""), "no key: kafka.key is empty", id="empty record key"),
        pytest.param(
            "kafka.key", Record(record_key=b"\xff\x00"), "no key: kafka.key is not UTF-8: b'\\xff\\x00'", id="binary"
        ),
        pytest.param("data.vehicle", Record(data=b"{}"), "no key: data.vehicle is missing", id="data"),
        pytest.param(
            "data.vehicle",
            Record(data=None),
            "no key: there is no data that data.vehicle could be read from",
            id="tombstone",
        ),
        pytest.param(
            "data.vehicle",
            Record(data=b"\x00\x01"),
            "the data is not JSON: invalid character at byte 0; data.vehicle is read from JSON",
            id="binary data",
        ),
        pytest.param(
            "data.vehicle",
            Record(data=b'{"vehicle":"\xff"}'),
            "the data is not UTF-8: invalid start byte at byte 12; data.vehicle is read from JSON",
            id="UTF-8",
        ),
        pytest.param(
            "header.vin", Record(record_headers=[("vin", None)]), "no key: header.vin is missing", id="header"
        ),
        pytest.param("partitionkey", Record(), "no key: partitionkey is missing", id="partitionkey"),
        pytest.param(
            "partitionkey",
            Record(record_headers=CE),
            "no key: partitionkey is missing",
            id="partitionkey of a CloudEvent",
        ),
        pytest.param("subject", Record(record_headers=CE), "no key: subject is null", id="subject of a CloudEvent"),
        pytest.param(None, Record(record_headers=CE[:1] + CE[2:]), "not a CloudEvent: ", id="CloudEvent without id"),
        pytest.param(
            None,
            Record(record_headers=[("content-type", b"application/cloudevents+json")]),
            "not a CloudEvent: ",
            id="structured",
        ),
        pytest.param(
            None, Record(record_headers=[*CE, ("ce_time", b"\xff")]), "not a CloudEvent: ", id="CloudEvent not UTF-8"
        ),
    ],
)
def test_what_cannot_be_read_is_a_delivery_with_the_whole_record(key: str | None, record: Record, problem: str) -> None:
    delivery = read(record, key)
    assert delivery.problem is not None
    assert delivery.problem.startswith(problem)
    assert delivery.key is None
    assert delivery.event.data == record.data
    assert delivery.position == At("kafka:telemetry:", 3, 17)


@pytest.mark.parametrize(("key", "found"), [("kafka.key", "V1"), ("header.vin", "V2"), ("subject", None)])
def test_what_is_unreadable_for_another_reason_keeps_the_key_of_its_envelope(key: str, found: str | None) -> None:
    record = Record(record_key=b"V1", record_headers=[*CE[:1], *CE[2:], ("vin", b"V2")])
    delivery = read(record, key)
    assert delivery.problem is not None
    assert delivery.problem.startswith("not a CloudEvent: ")
    assert delivery.key == found


def test_the_headers_of_a_broken_cloudevent_are_kept_whole() -> None:
    record = Record(record_headers=CE[:1] + CE[2:])
    assert read(record, None).event.headers == tuple(CE[:1] + CE[2:])


def test_a_key_that_is_not_utf_8_is_kept_as_a_header() -> None:
    event = read(Record(record_key=b"\xff"), None).event
    assert event.subject is None
    assert event.headers == (("kafka-key", b"\xff"),)


def test_a_tombstone_is_an_event_without_data() -> None:
    delivery = read(Record(data=None), time="data.ts")
    assert (delivery.problem, delivery.event.data, delivery.event.datacontenttype) == (None, None, None)
    assert delivery.event.time is not None


def test_a_cloudevent_keeps_its_own_id_and_time() -> None:
    data = b'{"id":"other","ts":1}'
    delivery = read(Record(data, record_headers=CE), id="data.id", time="data.ts")
    assert (delivery.event.id, delivery.event.source, delivery.event.time) == ("e1", "/car", None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b'{"id":"e1","vehicle":"v"}', "e1", id="text"),
        pytest.param(b'{"id":7,"vehicle":"v"}', "7", id="whole number"),
        pytest.param(b'{"vehicle":"v"}', "telemetry/3/17", id="missing"),
        pytest.param(b'{"id":null,"vehicle":"v"}', "telemetry/3/17", id="null"),
        pytest.param(b'{"id":"","vehicle":"v"}', "telemetry/3/17", id="empty"),
    ],
)
def test_the_id_comes_from_the_data_or_is_the_position(data: bytes, expected: str) -> None:
    delivery = read(Record(data), "data.vehicle", id="data.id")
    assert (delivery.problem, delivery.key, delivery.event.id) == (None, "v", expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b'"2026-11-20T08:15:00Z"', datetime(2026, 11, 20, 8, 15, tzinfo=UTC), id="UTC"),
        pytest.param(b'"2026-11-20T16:15:00.25+08:00"', datetime(2026, 11, 20, 8, 15, 0, 250000, UTC), id="offset"),
        pytest.param(b"1763700000", datetime(2025, 11, 21, 4, 40, tzinfo=UTC), id="seconds"),
        pytest.param(b"1763700000.5", datetime(2025, 11, 21, 4, 40, 0, 500000, UTC), id="fraction"),
        pytest.param(b"1763700000500", datetime(2025, 11, 21, 4, 40, 0, 500000, UTC), id="milliseconds"),
        pytest.param(b"0", datetime(1970, 1, 1, tzinfo=UTC), id="zero"),
        pytest.param(b"null", datetime(2025, 11, 21, 4, 40, 0, 123000, UTC), id="null: the record's"),
    ],
)
def test_the_time_comes_from_the_data(value: bytes, expected: datetime) -> None:
    delivery = read(Record(b'{"ts":' + value + b"}"), time="data.ts")
    assert (delivery.problem, delivery.event.time) == (None, expected)


@pytest.mark.parametrize(
    "value",
    [
        *(b'"yesterday"', b'"2026-11-20T08:15:00"', b'""', b"-1", b"1e15", b"true", b"[]", b'"2026-13-01T00:00:00Z"'),
        *(b'"0001-01-01T00:00:00+10:00"', b'"9999-12-31T23:59:59-10:00"'),
    ],
)
def test_a_time_that_is_none_makes_the_event_unreadable(value: bytes) -> None:
    delivery = read(Record(b'{"ts":' + value + b"}"), time="data.ts")
    assert delivery.problem is not None
    assert delivery.problem.startswith("no time: data.ts is ")
    assert delivery.event.data == b'{"ts":' + value + b"}"


@pytest.mark.parametrize("stamp", [(0, -1), (1, -(10**18)), (1, 10**18)])
def test_a_record_may_have_no_time(stamp: tuple[int, int]) -> None:
    delivery = read(Record(stamp=stamp))
    assert (delivery.problem, delivery.event.time) == (None, None)


def decode_frame(data: bytes) -> Any:
    if data == b"bad":
        raise ValueError("checksum")
    return {b"ts": {"ts": 5}, b"raw": b'{"a":1}', b"odd": object()}.get(data, {"frame": data.hex()})


def test_foreign_bytes_are_decoded_into_json() -> None:
    delivery = read(Record(b"\x01\x02"), decode=decode_frame)
    assert (delivery.event.data, delivery.raw) == (b'{"frame":"0102"}', False)
    assert delivery.event.datacontenttype == "application/json"


def test_decoded_data_may_hold_the_time() -> None:
    assert read(Record(b"ts"), decode=decode_frame, time="data.ts").event.time == datetime(
        1970, 1, 1, 0, 0, 5, tzinfo=UTC
    )


def test_bytes_that_decode_returns_stay_as_they_are() -> None:
    assert read(Record(b"raw"), decode=decode_frame).event.data == b'{"a":1}'


def test_the_data_of_a_cloudevent_is_decoded_too() -> None:
    delivery = read(Record(b"\x01", record_headers=CE), decode=decode_frame)
    assert (delivery.event.id, delivery.event.data) == ("e1", b'{"frame":"01"}')


def test_a_tombstone_is_not_decoded() -> None:
    assert read(Record(None), decode=decode_frame).event.data is None


def test_a_failing_decode_is_told_with_the_user_s_own_line() -> None:
    line = decode_frame.__code__.co_firstlineno + 2
    delivery = read(Record(b"bad"), decode=decode_frame)
    assert delivery.problem == f"decode failed: ValueError: checksum at {__file__}:{line}"
    assert (delivery.event.data, delivery.raw) == (b"bad", True)


def test_a_decode_that_returns_no_json_is_told() -> None:
    delivery = read(Record(b"odd"), decode=decode_frame)
    assert delivery.problem is not None
    assert delivery.problem.startswith("decode returned object, which is not JSON")
    assert delivery.event.data == b"odd"
