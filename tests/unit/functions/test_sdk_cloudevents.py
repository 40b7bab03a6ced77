"""The traps of CloudEvents 1.0, one by one."""

from __future__ import annotations

import json as stdlib_json
from datetime import UTC, datetime

import pytest
from fleetfn.cloudevents import attributes, http, json, kafka
from fleetfn.errors import EventError
from fleetfn.event import Event

BINARY = {
    "content-type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/vehicles/V1",
    "ce-type": "telemetry",
}
RECORD = [
    (name.replace("-", "_", 1) if name != "content-type" else name, value.encode()) for name, value in BINARY.items()
]
ENVELOPE = {"specversion": "1.0", "id": "1", "source": "/vehicles/V1", "type": "telemetry"}
STRUCTURED = "application/cloudevents+json"


def envelope(**members):
    return stdlib_json.dumps({**ENVELOPE, **members}).encode()


def read(**members):
    return http.decode({"content-type": STRUCTURED}, envelope(**members))


def event(**changes):
    return Event(**{"id": "1", "source": "/v", "type": "t", "data": b"{}", **changes})


class TestMode:
    def test_the_content_type_decides_though_ce_headers_are_there(self):
        found = http.decode({**BINARY, "ce-id": "copy", "content-type": STRUCTURED}, envelope(data={"a": 1}))
        assert (found.id, found.data) == ("1", b'{"a": 1}')

    def test_a_kafka_record_too(self):
        headers = [("ce_id", b"copy"), ("content-type", STRUCTURED.encode())]
        assert kafka.decode(headers, None, envelope()).id == "1"

    def test_batch_is_told_from_structured_though_it_shares_the_prefix(self):
        body = b"[" + envelope() + b"," + envelope(id="2") + b"]"
        found = http.decode({"Content-Type": "application/cloudevents-batch+json; charset=UTF-8"}, body)
        assert [one.id for one in found] == ["1", "2"]

    def test_content_types_are_read_in_any_case(self):
        assert http.decode({"CONTENT-TYPE": "Application/CloudEvents+JSON;Charset=utf-8"}, envelope()).id == "1"

    def test_without_ce_headers_it_is_no_cloudevent(self):
        assert http.decode({"content-type": "application/json", "ce-custom": "x"}, b"{}") is None
        assert kafka.decode([("content-type", b"application/json")], b"V1", b"{}") is None
        assert kafka.decode(None, b"V1", b"{}") is None

    def test_odd_headers_of_other_records_are_nobodys_business(self):
        odd = [("content-type", b"a"), ("content-type", b"\xff"), ("ce_x", b"\xff")]
        assert kafka.decode(odd, None, b"{}") is None

    def test_header_names_in_any_case(self):
        assert http.decode({name.upper(): value for name, value in BINARY.items()}, b"{}").id == "1"
        assert kafka.decode([(name.upper(), value) for name, value in RECORD], None, b"{}").id == "1"

    def test_other_formats_are_named(self):
        with pytest.raises(EventError, match=r"cloudevents\+avro.* is not read"):
            http.decode({"content-type": "application/cloudevents+avro"}, b"x")

    def test_structured_json_in_another_charset(self):
        with pytest.raises(EventError, match="charset 'latin-1'"):
            http.decode({"content-type": f"{STRUCTURED}; charset=latin-1"}, envelope())

    def test_a_batch_in_a_kafka_record(self):
        with pytest.raises(EventError, match="batch of CloudEvents in one Kafka record"):
            kafka.decode([("content-type", b"application/cloudevents-batch+json")], None, b"[]")


class TestHeaders:
    def test_percent_encoding_is_undone_once(self):
        found = http.decode({**BINARY, "ce-subject": "%E7%94%B5%E6%B1%A0%20%2541"}, b"{}")
        assert found.subject == "电池 %41"

    def test_double_quotes_are_unescaped_before_percent_decoding(self):
        assert http.decode({**BINARY, "ce-subject": r'"a \"b\" %41"'}, b"{}").subject == 'a "b" A'

    def test_a_percent_sign_that_encodes_nothing_stays(self):
        assert http.decode({**BINARY, "ce-subject": "100%"}, b"{}").subject == "100%"

    @pytest.mark.parametrize("value", ["%C0%A0", "%FF", "%ED%A0%80"], ids=["overlong", "no UTF-8", "surrogate"])
    def test_broken_utf8_in_a_header(self, value):
        with pytest.raises(EventError, match=f"'subject' is not UTF-8 after percent-decoding: '{value}'"):
            http.decode({**BINARY, "ce-subject": value}, b"{}")

    def test_broken_utf8_in_a_kafka_header(self):
        with pytest.raises(EventError, match="header ce_subject is not UTF-8"):
            kafka.decode([*RECORD, ("ce_subject", b"V\xff")], None, b"{}")

    def test_raw_utf8_as_servers_pass_it_on(self):
        assert http.decode({**BINARY, "ce-subject": "电池".encode().decode("latin-1")}, b"{}").subject == "电池"

    def test_ce_datacontenttype_must_not_be_there(self):
        with pytest.raises(EventError, match="ce-datacontenttype") as caught:
            http.decode({**BINARY, "ce-datacontenttype": "application/json"}, b"{}")
        assert "Content-Type" in caught.value.hint
        with pytest.raises(EventError, match="ce_datacontenttype"):
            kafka.decode([*RECORD, ("ce_datacontenttype", b"application/json")], None, b"{}")

    def test_an_attribute_twice_in_a_record(self):
        with pytest.raises(EventError, match="ce_id is there twice"):
            kafka.decode([*RECORD, ("ce_id", b"2")], None, b"{}")

    def test_transport_headers_come_along_without_secrets_and_framing(self):
        headers = {
            **BINARY,
            "X-Trace": "7",
            "Authorization": "Bearer s",
            "Cookie": "s",
            "Content-Length": "2",
            "host": "h",
        }
        assert http.decode(headers, b"{}").headers == (("x-trace", b"7"),)
        assert kafka.decode([*RECORD, ("trace", None)], None, b"{}").headers == (("trace", b""),)

    def test_transport_headers_never_replace_attributes(self):
        tricky = event(headers=(("ce-id", b"2"), ("CE_ID", b"2"), ("Content-Type", b"x"), ("x", b"7")))
        headers, _ = http.encode_binary(tricky)
        assert (headers["ce-id"], headers["x"], "content-type" in headers) == ("1", "7", False)
        assert [name for name, _ in kafka.encode_binary(tricky)[0]].count("ce_id") == 1
        assert ("CE_ID", b"2") not in kafka.encode_binary(tricky)[0]

    def test_the_record_key_never_becomes_an_attribute(self):
        headers, _ = kafka.encode_binary(event(extensions={"partitionkey": "V1"}))
        assert kafka.decode(headers, b"other", b"{}").extensions == {"partitionkey": "V1"}
        assert kafka.decode(RECORD, b"V1", b"{}").extensions == {}

    def test_extensions_of_other_types_travel_as_text(self):
        headers, _ = http.encode_binary(event(extensions={"late": True, "sequence": 7}))
        assert (headers["ce-late"], headers["ce-sequence"]) == ("true", "7")


class TestData:
    def test_a_null_value_is_a_tombstone(self):
        assert kafka.decode(RECORD, b"V1", None).data is None
        assert kafka.decode(RECORD, b"V1", b"").data == b""
        assert kafka.encode_binary(event(data=None))[1] is None

    def test_a_structured_record_has_a_value(self):
        with pytest.raises(EventError, match="without value"):
            kafka.decode([("content-type", STRUCTURED.encode())], None, None)

    def test_an_empty_body_is_no_data(self):
        assert http.decode(BINARY, b"").data is None

    def test_json_data_keeps_its_bytes(self):
        body = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data": {"x" : 1.10, "y":[ 1 ]} }'
        assert json.decode(body).data == b'{"x" : 1.10, "y":[ 1 ]}'

    def test_a_json_string_is_a_json_document(self):
        assert read(data="a").data == b'"a"'
        assert read(data="a", datacontenttype="application/vnd.x+json; v=1").data == b'"a"'

    def test_a_string_of_another_type_is_its_text(self):
        assert read(data="å", datacontenttype="text/plain").data == "å".encode()
        assert read(data="<a/>", datacontenttype="application/xml").data == b"<a/>"

    def test_base64(self):
        assert read(data_base64="AP8=", datacontenttype="application/x-can").data == b"\x00\xff"

    @pytest.mark.parametrize("value", ["!", "AP8", 7, {"a": 1}, "AP8=\n"])
    def test_data_that_is_no_base64(self, value):
        with pytest.raises(EventError, match="data_base64 is no base64"):
            read(data_base64=value)

    def test_data_twice(self):
        with pytest.raises(EventError, match="both data and data_base64"):
            read(data="a", data_base64="AP8=")

    def test_null_data_is_no_data_and_a_null_document_travels_apart(self):
        assert read(data=None).data is None
        assert json.decode(json.encode(event(data=b"null"))).data == b"null"

    def test_bytes_that_only_claim_to_be_json_travel_as_bytes(self):
        broken = event(data=b'{"a":', datacontenttype="application/json")
        assert "data_base64" in stdlib_json.loads(json.encode(broken))
        assert json.decode(json.encode(broken)) == broken


class TestAttributes:
    @pytest.mark.parametrize("name", ["id", "source", "type"])
    def test_required_ones_are_missed_and_must_not_be_empty(self, name):
        headers = {header: value for header, value in BINARY.items() if header != f"ce-{name}"}
        with pytest.raises(EventError, match=f"'{name}' is missing"):
            http.decode(headers, b"{}")
        with pytest.raises(EventError, match=f"'{name}' is empty"):
            http.decode({**BINARY, f"ce-{name}": ""}, b"{}")
        with pytest.raises(EventError, match=f"'{name}' is missing"):
            read(**{name: None})
        with pytest.raises(EventError, match=f"'{name}' is no string but int: 7"):
            read(**{name: 7})

    @pytest.mark.parametrize("version", ["0.3", "1.1", "1", ""])
    def test_other_versions(self, version):
        with pytest.raises(EventError, match=r"'specversion' is not 1\.0"):
            http.decode({**BINARY, "ce-specversion": version}, b"{}")
        with pytest.raises(EventError, match=r"'specversion' is not 1\.0"):
            read(specversion=version)

    def test_no_version(self):
        with pytest.raises(EventError, match="'specversion' is missing"):
            http.decode({"ce-id": "1"}, b"{}")

    @pytest.mark.parametrize("name", ["batteryTemp", "my_ext", "my-ext", "", "é", "٣"])
    def test_extension_names(self, name):
        with pytest.raises(EventError, match="other characters than a-z and 0-9"):
            read(**{name: "x"})
        with pytest.raises(EventError, match="other characters than a-z and 0-9"):
            json.encode(event(extensions={name: "x"}))

    def test_names_of_digits_alone_are_names(self):
        assert read(**{"123": "x"}).extensions == {"123": "x"}

    @pytest.mark.parametrize("value", [1.5, [], {}], ids=["float", "list", "object"])
    def test_extension_values(self, value):
        with pytest.raises(EventError, match="'level' is no string but"):
            read(level=value)

    @pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**70])
    def test_integers_have_32_bits(self, value):
        """A store could not even keep the longest of these."""
        with pytest.raises(EventError, match="'level' is no integer of 32 bits"):
            read(level=value)
        with pytest.raises(EventError, match="'level' is no integer of 32 bits"):
            kafka.encode_binary(event(extensions={"level": value}))

    def test_null_stands_for_absent(self):
        assert read(subject=None, level=None, time=None).extensions == {}

    def test_an_empty_partitionkey(self):
        with pytest.raises(EventError, match="'partitionkey' is empty"):
            read(partitionkey="")

    @pytest.mark.parametrize("value", ["a\nb", "a\x7fb", "a\x85b", "\ufffe", "\U0001ffff"])
    def test_control_characters(self, value):
        with pytest.raises(EventError, match="'subject' holds a control character"):
            read(subject=value)
        with pytest.raises(EventError, match="'subject' holds a control character"):
            http.encode_binary(event(subject=value))

    def test_unusual_text_is_no_control_character(self):
        assert read(subject="a\u00a0b\u2028\u200b").subject == "a\u00a0b\u2028\u200b"

    def test_a_reserved_name_is_no_extension(self):
        with pytest.raises(EventError, match="'subject' is no name for an extension"):
            json.encode(event(extensions={"subject": "x"}))


class TestTime:
    @pytest.mark.parametrize(
        ("text", "time"),
        [
            ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
            ("2026-03-01t12:00:00z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
            ("2026-03-01T20:00:00.5+08:00", datetime(2026, 3, 1, 12, 0, 0, 500000, tzinfo=UTC)),
            ("2026-03-01T12:00:00-00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
            ("2026-03-01T12:00:00.123456789Z", datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)),
            ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
            ("2017-01-01T07:59:60.25+08:00", datetime(2017, 1, 1, 0, 0, 0, 250000, tzinfo=UTC)),
            ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ],
    )
    def test_is_read_as_utc(self, text, time):
        assert attributes.parse_time(text) == time

    @pytest.mark.parametrize(
        "text",
        [
            "2026-03-01",
            "2026-03-01 12:00:00Z",
            "2026-03-01T12:00:00",
            "2026-03-01T12:00Z",
            "2026-03-01T12:00:00,5Z",
            "2026-03-01T12:00:00+0800",
            "2026-03-01T12:00:00+08:60",
            "20260301T120000Z",
            "2026-W09-7T12:00:00Z",
            "٢٠٢٦-03-01T12:00:00Z",
            "2026-03-01T12:00:0\\u0030Z",
            "",
        ],
    )
    def test_that_rfc3339_does_not_know(self, text):
        with pytest.raises(EventError, match="is not RFC 3339"):
            attributes.parse_time(text)

    @pytest.mark.parametrize(
        "text",
        ["2026-02-30T12:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:60Z"],
    )
    def test_that_no_calendar_has(self, text):
        with pytest.raises(EventError, match="no moment between the years 1 and 9999"):
            attributes.parse_time(text)

    def test_a_leap_second_at_noon(self):
        with pytest.raises(EventError, match="leap second within the day"):
            attributes.parse_time("2016-12-31T12:00:60Z")

    def test_a_number_is_no_time(self):
        with pytest.raises(EventError, match="'time' is not RFC 3339: 7"):
            read(time=7)

    def test_a_naive_time_is_not_sent(self):
        with pytest.raises(EventError, match="has no time zone"):
            json.encode(event(time=datetime(2026, 3, 1)))  # noqa: DTZ001 - the point


class TestUnreadable:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "not JSON: it ends too early"),
            (b"{", "not JSON: it ends too early, after byte 1"),
            (b"[]", r"\$: Expected object, got array"),
            (b'{"id":\xff}', "not JSON: invalid character at byte 6"),
            (b'{"id":"\xff"}', "not UTF-8"),
            (b"[" * 5000, "Expected object, got array"),
            (b'{"id":' + b"[" * 5000, "nested too deeply|unreadable"),
        ],
    )
    def test_structured(self, body, said):
        with pytest.raises(EventError, match=said):
            http.decode({"content-type": STRUCTURED}, body)

    def test_a_batch_names_the_event(self):
        body = b"[" + envelope() + b"," + envelope(id="") + b"]"
        with pytest.raises(EventError, match=r"event 1 of the batch: .*'id' is empty"):
            json.decode_batch(body)

    def test_a_batch_that_is_no_list(self):
        with pytest.raises(EventError, match="batch is unreadable"):
            json.decode_batch(envelope())
