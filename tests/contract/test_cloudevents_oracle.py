"""Our codec against the CloudEvents SDK 2.2.0, in both directions; where the SDK is wrong, the case says how."""

from __future__ import annotations

import json as stdlib_json
from datetime import datetime, timedelta, timezone

import msgspec
import pytest
from cloudevents.core.bindings import http as sdk_http
from cloudevents.core.bindings import kafka as sdk_kafka
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from fleetfn.cloudevents import attributes, http, json, kafka
from fleetfn.errors import EventError
from fleetfn.event import Event
from hypothesis import given
from hypothesis import strategies as st

FORMAT = JSONFormat()
STRUCTURED = "application/cloudevents+json"

text = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Cn"), blacklist_characters="\ufffe\uffff"), max_size=30)
words = text.filter(bool)
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in attributes.RESERVED and name not in {"partitionkey", "data_base64"}
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 - hypothesis adds the zone
objects = st.dictionaries(text, text | st.booleans() | st.integers(-(2**53), 2**53), max_size=3)


@st.composite
def drawn(draw):
    """Attributes that both sides know, time always there since the SDK would make one up, and JSON data."""
    given_ = {
        "specversion": "1.0",
        "id": draw(words),
        "source": draw(words),
        "type": draw(words),
        "time": draw(times),
        "datacontenttype": "application/json",
    }
    for name in ("subject", "dataschema"):
        if draw(st.booleans()):
            given_[name] = draw(words)
    return {**given_, **draw(st.dictionaries(names, text, max_size=3))}, draw(objects)


def ours(given_, data) -> Event[bytes | None]:
    known = {name: given_[name] for name in ("id", "source", "type", "time", "subject", "dataschema") if name in given_}
    extensions = {name: value for name, value in given_.items() if name not in attributes.RESERVED}
    return Event(
        **known,
        datacontenttype=given_["datacontenttype"],
        extensions=extensions,
        data=stdlib_json.dumps(data).encode(),
    )


def theirs(given_, data) -> CloudEvent:
    return CloudEvent(dict(given_), data)


def same(sdk: CloudEvent, event: Event[bytes | None]) -> None:
    found = dict(sdk.get_attributes())
    assert found.pop("specversion") == "1.0"
    assert found == {
        **{
            name: getattr(event, name)
            for name in ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
            if getattr(event, name) is not None
        },
        **event.extensions,
    }
    # An empty object is no data for nobody: the SDK reads `{}` as it is.
    assert sdk.get_data() == stdlib_json.loads(event.data or b"null")


def alike(one: Event[bytes | None], other: Event[bytes | None]) -> None:
    assert stdlib_json.loads(one.data or b"null") == stdlib_json.loads(other.data or b"null")
    for name in (*Event.__struct_fields__,):
        if name != "data":
            assert getattr(one, name) == getattr(other, name)


@given(drawn())
def test_http_binary_written_by_us_is_read_by_the_sdk(pair):
    headers, body = http.encode_binary(ours(*pair))
    same(sdk_http.from_http(sdk_http.HTTPMessage(headers, body), FORMAT, CloudEvent), ours(*pair))


@given(drawn())
def test_http_binary_written_by_the_sdk_is_read_by_us(pair):
    message = sdk_http.to_binary(theirs(*pair), FORMAT)
    alike(http.decode(message.headers, message.body), ours(*pair))


@given(drawn())
def test_http_structured_written_by_us_is_read_by_the_sdk(pair):
    headers, body = http.encode_structured(ours(*pair))
    same(sdk_http.from_http(sdk_http.HTTPMessage(headers, body), FORMAT, CloudEvent), ours(*pair))


@given(drawn())
def test_http_structured_written_by_the_sdk_is_read_by_us(pair):
    message = sdk_http.to_structured(theirs(*pair), FORMAT)
    alike(http.decode(message.headers, message.body), ours(*pair))


@given(drawn())
def test_kafka_binary_written_by_us_is_read_by_the_sdk(pair):
    headers, value = kafka.encode_binary(ours(*pair))
    message = sdk_kafka.KafkaMessage(headers=dict(headers), key=None, value=value)
    same(sdk_kafka.from_kafka(message, FORMAT, CloudEvent), ours(*pair))


@given(drawn())
def test_kafka_binary_written_by_the_sdk_is_read_by_us(pair):
    message = sdk_kafka.to_binary(theirs(*pair), FORMAT)
    alike(kafka.decode(list(message.headers.items()), None, message.value), ours(*pair))


@given(drawn())
def test_kafka_structured_written_by_us_is_read_by_the_sdk(pair):
    headers, value = kafka.encode_structured(ours(*pair))
    message = sdk_kafka.KafkaMessage(headers=dict(headers), key=None, value=value)
    same(sdk_kafka.from_kafka(message, FORMAT, CloudEvent), ours(*pair))


@given(drawn())
def test_kafka_structured_written_by_the_sdk_is_read_by_us(pair):
    message = sdk_kafka.to_structured(theirs(*pair), FORMAT)
    alike(kafka.decode(list(message.headers.items()), None, message.value), ours(*pair))


@given(drawn(), st.binary(min_size=1, max_size=30))
def test_bytes_travel_as_base64_both_ways(pair, data):
    given_ = {**pair[0], "datacontenttype": "application/octet-stream"}
    event = msgspec.structs.replace(ours(given_, {}), data=data)
    body = json.encode(event)
    assert FORMAT.read(CloudEvent, body).get_data() == data
    assert json.decode(FORMAT.write(CloudEvent(dict(given_), data))) == event


@given(drawn(), words)
def test_text_travels_as_a_string_both_ways(pair, data):
    given_ = {**pair[0], "datacontenttype": "text/plain"}
    event = Event(
        **{**{name: getattr(ours(given_, {}), name) for name in Event.__struct_fields__}, "data": data.encode()}
    )
    assert FORMAT.read(CloudEvent, json.encode(event)).get_data() == data
    assert json.decode(FORMAT.write(CloudEvent(dict(given_), data))) == event


BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/v",
    "ce-type": "t",
    "ce-time": "2026-03-01T12:00:00Z",
    "content-type": "application/json",
}

RECORD = [(name.replace("ce-", "ce_"), value.encode()) for name, value in BINARY.items()]


@pytest.mark.parametrize(
    "changes",
    [
        {"ce-id": ""},
        {"ce-source": ""},
        {"ce-type": ""},
        {"ce-subject": ""},
        {"ce-dataschema": ""},
        {"ce-my_ext": "x"},
        {"ce-data": "x"},
    ],
    ids=str,
)
def test_both_refuse(changes):
    headers = {**BINARY, **changes}
    with pytest.raises(EventError):
        http.decode(headers, b"{}")
    with pytest.raises(CloudEventValidationError):
        sdk_http.from_http(sdk_http.HTTPMessage(headers, b"{}"), FORMAT, CloudEvent)


class TestWhereTheSdkIsWrong:
    """Each shows what the SDK does and what we do instead. When one fails, a new SDK may have mended it."""

    ENVELOPE = b'{"specversion":"1.0","id":"1","source":"/v","type":"t","time":"2026-03-01T12:00:00Z","data":{"a":1}}'

    def test_it_misreads_structured_http_messages_that_repeat_attributes_as_headers(self):
        headers = {**BINARY, "content-type": STRUCTURED}
        wrong = sdk_http.from_http(sdk_http.HTTPMessage(headers, self.ENVELOPE), FORMAT, CloudEvent)
        assert "specversion" in str(wrong.get_data())  # the whole envelope taken for the data
        assert http.decode(headers, self.ENVELOPE).data == b'{"a":1}'

    def test_it_misreads_structured_kafka_records_that_repeat_attributes_as_headers(self):
        headers = {
            **{name.replace("-", "_"): value.encode() for name, value in BINARY.items() if name.startswith("ce-")},
            "content-type": STRUCTURED.encode(),
        }
        wrong = sdk_kafka.from_kafka(sdk_kafka.KafkaMessage(headers, None, self.ENVELOPE), FORMAT, CloudEvent)
        assert "specversion" in str(wrong.get_data())
        assert kafka.decode(list(headers.items()), None, self.ENVELOPE).data == b'{"a":1}'

    def test_it_fails_on_batches(self):
        headers, body = {"content-type": "application/cloudevents-batch+json"}, b"[" + self.ENVELOPE + b"]"
        with pytest.raises(AttributeError):
            sdk_http.from_http(sdk_http.HTTPMessage(headers, body), FORMAT)
        assert [event.id for event in http.decode(headers, body)] == ["1"]

    def test_it_makes_the_record_key_a_partitionkey(self):
        headers = {
            name.replace("-", "_", 1) if name != "content-type" else name: v.encode() for name, v in BINARY.items()
        }
        wrong = sdk_kafka.from_kafka(sdk_kafka.KafkaMessage(headers, b"V1", b"{}"), FORMAT, CloudEvent)
        assert wrong.get_extension("partitionkey") == "V1"
        assert kafka.decode(RECORD, b"V1", b"{}").extensions == {}

    def test_it_makes_up_a_time_and_an_id(self):
        wrong = CloudEvent({"source": "/v", "type": "t"})
        assert wrong.get_id()
        assert wrong.get_time()
        with pytest.raises(EventError, match="'id' is missing"):
            json.decode(b'{"specversion":"1.0","source":"/v","type":"t"}')
        assert json.decode(b'{"specversion":"1.0","id":"1","source":"/v","type":"t"}').time is None

    def test_it_replaces_broken_utf8_in_headers(self):
        headers = {**BINARY, "ce-subject": "%C0%A0"}
        wrong = sdk_http.from_http(sdk_http.HTTPMessage(headers, b"{}"), FORMAT, CloudEvent)
        assert "\ufffd" in wrong.get_subject()
        with pytest.raises(EventError, match="not UTF-8"):
            http.decode(headers, b"{}")

    def test_it_keeps_the_double_quotes_of_old_senders(self):
        headers = {**BINARY, "ce-subject": '"a b"'}
        wrong = sdk_http.from_http(sdk_http.HTTPMessage(headers, b"{}"), FORMAT, CloudEvent)
        assert wrong.get_subject() == '"a b"'
        assert http.decode(headers, b"{}").subject == "a b"

    def test_it_takes_ce_datacontenttype(self):
        headers = {**BINARY, "ce-datacontenttype": "text/plain"}
        assert sdk_http.from_http(sdk_http.HTTPMessage(headers, b"{}"), FORMAT, CloudEvent).get_id() == "1"
        with pytest.raises(EventError, match="ce-datacontenttype"):
            http.decode(headers, b"{}")

    def test_it_takes_control_characters(self):
        headers = {**BINARY, "ce-subject": "a%0Ab"}
        assert sdk_http.from_http(sdk_http.HTTPMessage(headers, b"{}"), FORMAT, CloudEvent).get_subject() == "a\nb"
        with pytest.raises(EventError, match="control character"):
            http.decode(headers, b"{}")

    def test_it_takes_times_that_rfc3339_does_not_know(self):
        headers = {**BINARY, "ce-time": "2026-W09-7T12:00Z"}
        assert sdk_http.from_http(sdk_http.HTTPMessage(headers, b"{}"), FORMAT, CloudEvent).get_time()
        with pytest.raises(EventError, match="RFC 3339"):
            http.decode(headers, b"{}")

    def test_it_refuses_leap_seconds(self):
        headers = {**BINARY, "ce-time": "2016-12-31T23:59:60Z"}
        with pytest.raises(ValueError, match="second must be in"):
            sdk_http.from_http(sdk_http.HTTPMessage(headers, b"{}"), FORMAT, CloudEvent)
        assert http.decode(headers, b"{}").time.year == 2017

    def test_it_reads_an_empty_kafka_value_as_a_tombstone(self):
        headers = {
            name.replace("-", "_", 1) if name != "content-type" else name: v.encode() for name, v in BINARY.items()
        }
        wrong = sdk_kafka.from_kafka(sdk_kafka.KafkaMessage(headers, None, b""), FORMAT, CloudEvent)
        assert wrong.get_data() is None
        assert kafka.decode(list(headers.items()), None, b"").data == b""

    def test_it_has_no_tombstone_to_write(self):
        event = CloudEvent({"id": "1", "source": "/v", "type": "t"}, None)
        assert sdk_kafka.to_binary(event, FORMAT).value == b""
        assert kafka.encode_binary(Event(id="1", source="/v", type="t", data=None))[1] is None
