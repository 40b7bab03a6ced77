"""Readers never raise, whatever a source holds; fast reading of data paths equals walking."""

from typing import Any, cast

import hypothesis.strategies as st
import msgspec
from fleetfn.http import Request
from fleetfn_triggers import data_paths
from fleetfn_triggers.delivery import Source
from fleetfn_triggers.http import Http
from fleetfn_triggers.kafka import Kafka
from fleetfn_triggers.kinds import KINDS
from fleetfn_triggers.trigger import EventFields, Reading
from hypothesis import given, settings

SOURCE = cast("Source", object())
NAMES = st.sampled_from(["a", "b", "0", "1", "id", "ts"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4)


@given(JSON, PATHS)
@settings(max_examples=200)
def test_data_paths_find_what_walking_finds(value: Any, paths: list[tuple[str, ...]]) -> None:
    data = msgspec.json.encode(value)
    found = data_paths.compile_paths(paths)(data)
    walked = data_paths._walked(data, paths)
    assert found == walked
    assert [type(each) for each in found] == [type(each) for each in walked]


@given(st.binary(max_size=30) | st.text('{}[]":,a01.eE-tfn ', max_size=20).map(str.encode))
def test_any_bytes_have_values_or_are_no_json(data: bytes) -> None:
    try:
        data_paths.compile_paths([("a",), ("b", "c")])(data)
    except data_paths.NotJsonError:
        return


class Record:
    def __init__(self, value: Any, key: Any, headers: Any, stamp: Any) -> None:
        self.value, self.key, self.headers, self.timestamp = (
            lambda each=each: each for each in (value, key, headers, stamp)
        )

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0


PAYLOADS = st.none() | st.binary(max_size=20) | JSON.map(msgspec.json.encode)
HEADER_NAMES = st.sampled_from(
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_x", "content-type", "Content-Type", "vin", ""]
)
HEADER_VALUES = (
    st.none()
    | st.binary(max_size=8)
    | st.sampled_from(
        [
            b"1.0",
            b"a",
            b"application/json",
            b"application/cloudevents+json",
            b"application/cloudevents-batch+json",
            b"2026-11-20T08:15:00Z",
        ]
    )
)
EXPRESSIONS = st.sampled_from([None, "data.a", "data.a.0", "subject", "source", "partitionkey", "header.vin"])
FIELDS = st.builds(
    EventFields,
    id=st.sampled_from([None, "data.id", "header.vin"]),
    time=st.sampled_from([None, "data.ts", "header.vin"]),
)
DECODES = st.sampled_from([None, msgspec.json.decode, lambda data: data[::-1], lambda _data: object()])


@given(
    PAYLOADS,
    st.none() | st.binary(max_size=8),
    st.none() | st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=6),
    st.tuples(st.integers(0, 2), st.integers(-(2**63), 2**63 - 1)),
    EXPRESSIONS | st.just("kafka.key"),
    FIELDS,
    DECODES,
)
@settings(max_examples=300, deadline=None)
def test_any_record_becomes_a_delivery(
    value: Any, key: Any, headers: Any, stamp: Any, expression: str | None, fields: EventFields, decode: Any
) -> None:
    reader = KINDS["kafka"].reader(Kafka(topic="t"), Reading("tr", "f", expression, fields, decode))
    delivery = reader(Record(value, key, headers, stamp), SOURCE)
    if delivery.problem is not None:
        assert delivery.key is None or expression in {"kafka.key", "header.vin"}
        assert delivery.event.data == value or decode is not None
    else:
        assert (delivery.key is None) == (expression is None)
        assert delivery.key is None or 0 < len(delivery.key.encode()) <= 1024
    msgspec.json.encode(delivery.event)


TEXT_HEADERS = st.dictionaries(
    st.sampled_from(
        ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-x", "content-type", "vin", "idempotency-key"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=6)
    | st.sampled_from(["1.0", "a", "%ff", "application/cloudevents+json", "application/cloudevents-batch+json"]),
)


@given(PAYLOADS, TEXT_HEADERS, st.text(max_size=5), EXPRESSIONS | st.just("path.v"), FIELDS, DECODES)
@settings(max_examples=300, deadline=None)
def test_any_request_becomes_a_delivery(
    body: Any, headers: Any, part: str, expression: str | None, fields: EventFields, decode: Any
) -> None:
    reader = KINDS["http"].reader(Http(path="/b/{v}"), Reading("tr", "f", expression, fields, decode))
    request = Request(method="POST", path="/b/x", path_params={"v": part}, headers=headers, body=body or b"")
    delivery = reader(request, SOURCE)
    if delivery.problem is not None:
        assert delivery.key is None
    else:
        assert (delivery.key is None) == (expression is None)
        assert delivery.key is None or 0 < len(delivery.key.encode()) <= 1024
