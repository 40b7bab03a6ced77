"""MQTT packets survive their bytes, however these are cut; and another library reads what we write."""

from __future__ import annotations

from typing import Any

import pytest
from fleetfn_plumbing import mqtt_packets
from fleetfn_plumbing.mqtt_packets import (
    Ack,
    Answer,
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    MalformedError,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Wish,
)
from hypothesis import given
from hypothesis import strategies as st

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ids = st.integers(1, 65_535)
properties = st.fixed_dictionaries(
    {},
    optional={
        mqtt_packets.MESSAGE_EXPIRY: st.integers(0, 2**32 - 1),
        mqtt_packets.CONTENT_TYPE: text,
        mqtt_packets.CORRELATION_DATA: st.binary(max_size=20),
        mqtt_packets.USER_PROPERTY: st.lists(st.tuples(text, text), min_size=1, max_size=4),
        mqtt_packets.RECEIVE_MAXIMUM: ids,
        0x01: st.integers(0, 1),
        0x0B: st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3),
    },
)


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    qos = draw(st.integers(0, 2))
    return Publish(
        draw(text),
        draw(st.binary(max_size=300)),
        qos,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(ids) if qos else 0,
        draw(properties),
    )


wishes = st.builds(Wish, text, st.integers(0, 2), st.integers(0, 2), st.booleans(), st.booleans())
packets = st.one_of(
    publishes(),
    st.builds(ConnAck, st.booleans(), st.integers(0, 255), properties),
    st.builds(Ack, st.sampled_from([4, 5, 6, 7]), ids, st.just(0x80), properties),
    st.builds(Ack, st.sampled_from([4, 5, 6, 7]), ids),
    st.builds(Subscribe, ids, st.lists(wishes, min_size=1, max_size=3).map(tuple), properties),
    st.builds(Unsubscribe, ids, st.lists(text, min_size=1, max_size=3).map(tuple)),
    st.builds(Answer, st.sampled_from([9, 11]), ids, st.lists(st.integers(0, 255), min_size=1).map(tuple)),
    st.builds(Ping, st.sampled_from([12, 13])),
    st.builds(Disconnect, st.integers(1, 255), properties),
)
connects = st.builds(
    Connect,
    version=st.sampled_from([4, 5]),
    client_id=text,
    clean=st.booleans(),
    keepalive=st.integers(0, 65_535),
    username=st.none() | text,
    password=st.none() | st.binary(min_size=1, max_size=9),
    properties=st.just({}),
)


@given(connects, st.lists(packets, max_size=6), st.lists(st.integers(1, 50)))
def test_packets_come_back_from_their_bytes_in_whatever_pieces(
    connect: Connect, rest: list[Packet], cuts: list[int]
) -> None:
    connect = Connect(**{name: getattr(connect, name) for name in connect.__struct_fields__} | {"version": 5})
    sent = [connect, *rest]
    data = b"".join(mqtt_packets.encode(each, 5) for each in sent)
    decoder = Decoder()
    found: list[Packet] = []
    for size in cuts:
        found += decoder.feed(data[:size])
        data = data[size:]
    found += decoder.feed(data)
    assert found == sent


@given(connects)
def test_a_connect_tells_the_version_of_what_follows(connect: Connect) -> None:
    decoder = Decoder()
    data = mqtt_packets.encode(connect, connect.version)
    message = Publish("a/b", b"x", 1, packet_id=7)
    assert decoder.feed(data + mqtt_packets.encode(message, connect.version)) == [connect, message]
    assert decoder.version == connect.version


@given(publishes())
def test_mqtt_3_has_no_properties(message: Publish) -> None:
    (found,) = Decoder(4).feed(mqtt_packets.encode(message, 4))
    assert isinstance(found, Publish)
    assert (found.topic, found.payload, found.qos, found.packet_id, found.properties) == (
        *(message.topic, message.payload, message.qos, message.packet_id),
        {},
    )


@given(st.binary(max_size=200), st.integers(1, 30))
def test_any_bytes_are_packets_or_malformed_and_nothing_else(data: bytes, size: int) -> None:
    decoder = Decoder(limit=100)
    try:
        for begin in range(0, len(data), size):
            decoder.feed(data[begin : begin + size])
    except MalformedError:
        pass


@given(st.integers(101, 5000), st.integers(0, 2), st.integers(1, 1500))
def test_of_a_message_beyond_the_limit_the_head_is_kept_and_the_next_one_is_whole(
    length: int, qos: int, size: int
) -> None:
    large = Publish("a/b", b"x" * length, qos, packet_id=7 if qos else 0)
    small = Publish("a/c", b"y")
    data = mqtt_packets.encode(large, 5) + mqtt_packets.encode(small, 5)
    decoder = Decoder(limit=100)
    found: list[Any] = []
    for begin in range(0, len(data), size):
        found += decoder.feed(data[begin : begin + size])
    head, whole = found
    assert (head.topic, head.payload, head.qos, head.packet_id) == ("a/b", b"", qos, large.packet_id)
    assert head.oversize == len(mqtt_packets.encode(large, 5))
    assert whole == small


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="a length of five bytes"),
        pytest.param(b"\x36\x05\x00\x01a\x00\x01", id="QoS 3"),
        pytest.param(b"\x32\x06\x00\x01a\x00\x00\x00", id="packet id 0"),
        pytest.param(b"\x30\x02\x00\x09", id="a topic longer than the packet"),
        pytest.param(b"\xf0\x00", id="AUTH, which nobody asked for"),
        pytest.param(b"\x00\x00", id="no kind"),
    ],
)
def test_what_is_no_mqtt_is_said_so(data: bytes) -> None:
    with pytest.raises(MalformedError, match="not MQTT"):
        Decoder().feed(data)
