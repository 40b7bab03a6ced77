"""The CloudEvents codec over all events that 1.0 allows: what is written is read back equal, in every mode."""

from __future__ import annotations

import contextlib
import json as stdlib_json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from fleetfn.cloudevents import attributes, http, json, kafka
from fleetfn.errors import EventError
from fleetfn.event import Event
from hypothesis import given
from hypothesis import strategies as st

FORBIDDEN = [chr(0xFFFE), chr(0xFFFF), *map(chr, range(0xFDD0, 0xFDF0))]
planes = [chr(plane << 16 | end) for plane in range(1, 17) for end in (0xFFFE, 0xFFFF)]

text = st.text(
    st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters=[*FORBIDDEN, *planes]), max_size=40
)
words = text.filter(bool)
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in attributes.RESERVED and name not in {"partitionkey", "data_base64"}
)
extensions = st.dictionaries(names, text, max_size=4)
scalars = st.one_of(text, st.booleans(), st.integers(-(2**31), 2**31 - 1))
times = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
media = st.sampled_from(
    ["application/json", "application/vnd.oem+json", "text/plain; charset=utf-8", "application/x-can"]
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
json_bytes = documents.map(lambda value: stdlib_json.dumps(value).encode())


@st.composite
def events(draw, data, kinds=extensions):
    return Event(
        id=draw(words),
        source=draw(words),
        type=draw(words),
        subject=draw(st.none() | words),
        time=draw(st.none() | times),
        datacontenttype=draw(st.none() | media),
        dataschema=draw(st.none() | words),
        extensions=draw(kinds),
        data=draw(data),
    )


# Space around a JSON text is no part of the value, so an envelope does not keep it.
any_data = st.none() | st.binary(max_size=50).map(bytes.strip) | json_bytes


@given(events(st.none() | st.binary(min_size=1, max_size=50)))
def test_http_binary_round_trip(event):
    headers, body = http.encode_binary(event)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert http.decode(headers, body) == event


@given(events(any_data, st.dictionaries(names, scalars, max_size=4)))
def test_http_structured_round_trip(event):
    assert http.decode(*http.encode_structured(event)) == event


@given(st.lists(events(any_data), max_size=4))
def test_http_batch_round_trip(batch):
    assert http.decode(*http.encode_batch(batch)) == batch


@given(events(any_data), st.none() | st.binary(max_size=5))
def test_kafka_binary_round_trip(event, key):
    headers, value = kafka.encode_binary(event)
    assert kafka.decode(headers, key, value) == event


@given(events(any_data, st.dictionaries(names, scalars, max_size=4)), st.none() | st.binary(max_size=5))
def test_kafka_structured_round_trip(event, key):
    headers, value = kafka.encode_structured(event)
    assert kafka.decode(headers, key, value) == event


@given(events(json_bytes.filter(lambda data: data.strip() != b"null")))
def test_json_data_stands_in_the_envelope_as_it_is(event):
    event = msgspec.structs.replace(event, datacontenttype="application/json")
    assert event.data in json.encode(event)


@given(events(any_data, st.dictionaries(names, scalars, max_size=4)))
def test_structured_events_are_plain_json(event):
    members = stdlib_json.loads(json.encode(event))
    assert members["specversion"] == "1.0"
    assert {name: members[name] for name in event.extensions} == event.extensions


@given(text)
def test_header_values_survive_one_round_of_percent_encoding(value):
    escaped = http.escape(value)
    assert escaped.isascii()
    assert " " not in escaped
    assert '"' not in escaped
    assert http.unescape("subject", escaped) == value


@given(st.text(st.sampled_from('aZ0-_.:/ \t"%\\2\xe4\u00b2'), max_size=12))
def test_values_that_count_as_plain_are_left_as_they_are_by_decoding(value):
    if http._is_plain(value):
        assert http.unescape("subject", value) == value


@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)), st.integers(-1439, 1439))  # noqa: DTZ001 - hypothesis adds the zone
def test_times_of_any_offset_are_read_as_utc(naive, minutes):
    time = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    read = attributes.parse_time(time.isoformat())
    assert read == time
    assert read.tzinfo is UTC
    assert attributes.parse_time(attributes.format_time(time)) == time


@given(st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", fullmatch=True))
def test_the_quick_way_to_read_a_time_agrees_with_the_long_one(value):
    def outcome(read):
        try:
            return read(value)
        except EventError as error:
            return error.message

    assert outcome(attributes.parse_time) == outcome(attributes._parse_any_time)


@given(st.text(max_size=30))
def test_no_text_is_a_time_that_the_grammar_does_not_know(value):
    with pytest.raises(EventError, match="RFC 3339"):
        attributes.parse_time(value)


@given(st.dictionaries(st.text(max_size=15), st.text(max_size=15), max_size=4), st.binary(max_size=60))
def test_http_never_raises_anything_but_event_errors(headers, body):
    for claim in ({"content-type": "application/cloudevents+json"}, {"ce-id": "1"}):
        with contextlib.suppress(EventError):
            http.decode({**claim, **headers}, body)


@given(
    st.lists(st.tuples(st.text(max_size=15), st.none() | st.binary(max_size=15)), max_size=4), st.binary(max_size=60)
)
def test_kafka_never_raises_anything_but_event_errors(headers, value):
    with contextlib.suppress(EventError):
        kafka.decode([("ce_id", b"1"), *headers], None, value)
