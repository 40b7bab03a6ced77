# ruff: noqa: PLR2004 - the numbers are the protocol's own
"""MQTT 5 and 3.1.1 as bytes: packets to values and back, for clients and for a broker.

Our own, since a bridge that must not lose anything has to journal a message of QoS 2 before it says PUBREC, which no
Python client lets it do; and since reading one large buffer costs a fraction of reading a socket byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from fleetfn.errors import FleetError

Version = Literal[4, 5]
"""The protocol level: 4 is MQTT 3.1.1."""

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15

MESSAGE_EXPIRY = 0x02
CONTENT_TYPE = 0x03
RESPONSE_TOPIC = 0x08
CORRELATION_DATA = 0x09
SESSION_EXPIRY = 0x11
ASSIGNED_CLIENT_ID = 0x12
SERVER_KEEP_ALIVE = 0x13
REASON_STRING = 0x1F
RECEIVE_MAXIMUM = 0x21
TOPIC_ALIAS_MAXIMUM = 0x22
MAXIMUM_QOS = 0x24
RETAIN_AVAILABLE = 0x25
USER_PROPERTY = 0x26
MAXIMUM_PACKET_SIZE = 0x27

_BYTE, _U16, _U32, _VARINT, _TEXT, _BINARY, _PAIR = range(7)
_KINDS = {
    0x01: _BYTE,
    MESSAGE_EXPIRY: _U32,
    CONTENT_TYPE: _TEXT,
    RESPONSE_TOPIC: _TEXT,
    CORRELATION_DATA: _BINARY,
    0x0B: _VARINT,
    SESSION_EXPIRY: _U32,
    ASSIGNED_CLIENT_ID: _TEXT,
    SERVER_KEEP_ALIVE: _U16,
    0x15: _TEXT,
    0x16: _BINARY,
    0x17: _BYTE,
    0x18: _U32,
    0x19: _BYTE,
    0x1A: _TEXT,
    0x1C: _TEXT,
    REASON_STRING: _TEXT,
    RECEIVE_MAXIMUM: _U16,
    TOPIC_ALIAS_MAXIMUM: _U16,
    0x23: _U16,
    MAXIMUM_QOS: _BYTE,
    RETAIN_AVAILABLE: _BYTE,
    USER_PROPERTY: _PAIR,
    MAXIMUM_PACKET_SIZE: _U32,
    0x28: _BYTE,
    0x29: _BYTE,
    0x2A: _BYTE,
}
_REPEATED = frozenset({0x0B, USER_PROPERTY})

Properties = dict[int, Any]
"""Of MQTT 5, by identifier. User properties are a list of pairs; none at all with 3.1.1."""

NONE: Properties = {}


class MalformedError(FleetError):
    """Bytes that are no MQTT."""


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    version: Version
    client_id: str
    clean: bool
    keepalive: int
    username: str | None = None
    password: bytes | None = None
    properties: Properties = {}


class ConnAck(msgspec.Struct, frozen=True):
    session_present: bool
    reason: int
    properties: Properties = {}


class Publish(msgspec.Struct, frozen=True, gc=False):
    """Positional, since many are made."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    """0 with QoS 0."""
    properties: Properties = NONE
    oversize: int = 0
    """Bytes of a packet that is longer than the limit: its payload was not kept."""

    @property
    def content_type(self) -> str | None:
        return self.properties.get(CONTENT_TYPE)

    @property
    def user(self) -> Sequence[tuple[str, str]]:
        found: Sequence[tuple[str, str]] = self.properties.get(USER_PROPERTY, ())
        return found


class Ack(msgspec.Struct, frozen=True):
    """PUBACK, PUBREC, PUBREL or PUBCOMP, as `kind` says."""

    kind: int
    packet_id: int
    reason: int = 0
    properties: Properties = {}


class Wish(msgspec.Struct, frozen=True):
    """One topic filter of a SUBSCRIBE."""

    filter: str
    qos: int
    retain_handling: int = 0
    """0: retained messages at each subscribing, 1: if the subscription is new, 2: never (MQTT 5)."""
    no_local: bool = False
    retain_as_published: bool = False


class Subscribe(msgspec.Struct, frozen=True):
    packet_id: int
    wishes: tuple[Wish, ...]
    properties: Properties = {}


class Unsubscribe(msgspec.Struct, frozen=True):
    packet_id: int
    filters: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True):
    """SUBACK or UNSUBACK; a reason per filter (none for UNSUBACK of 3.1.1)."""

    kind: int
    packet_id: int
    reasons: tuple[int, ...]


class Ping(msgspec.Struct, frozen=True):
    """PINGREQ or PINGRESP."""

    kind: int


class Disconnect(msgspec.Struct, frozen=True):
    reason: int = 0
    properties: Properties = {}


Packet = Connect | ConnAck | Publish | Ack | Subscribe | Unsubscribe | Answer | Ping | Disconnect


class Decoder:
    """Bytes as they come -> packets. `version` must be set before the first packet after CONNECT (a broker) is read."""

    def __init__(self, version: Version = 5, limit: int = 256 * 1024 * 1024) -> None:
        self.version: Version = version
        self._limit = limit
        self._waiting = bytearray()
        self._need = 0
        self._skip = 0
        """Bytes of an oversized packet that are yet to be thrown away."""

    def feed(self, data: bytes) -> list[Packet]:
        """Raises MalformedError; nothing more may be fed then."""
        if self._waiting:
            self._waiting += data
            if len(self._waiting) < self._need:
                return []
            data = bytes(self._waiting)
            self._waiting.clear()
        found: list[Packet] = []
        try:
            position = self._read(data, found)
        except (IndexError, ValueError, KeyError) as error:
            raise MalformedError(f"not MQTT: {type(error).__name__} {error}") from error
        if position < len(data):
            self._waiting += data[position:]
        return found

    def _read(self, data: bytes, found: list[Packet]) -> int:
        """Where the first packet begins that is not whole."""
        position, size = 0, len(data)
        while True:
            if self._skip:
                taken = min(self._skip, size - position)
                self._skip -= taken
                position += taken
            head = _head(data, position)
            if head is None:
                self._need = size - position + 1
                return position
            length, body = head
            end = body + length
            first = data[position]
            if end - position > self._limit:
                if self._oversized(data, first, body, end - position, found) is None:
                    self._need = size - position + 1
                    return position
                self._skip = end - position
                continue
            if end > size:
                self._need = end - position
                return position
            found.append(self._packet(first, data, body, end))
            position = end

    def _oversized(self, data: bytes, first: int, body: int, size: int, found: list[Packet]) -> Publish | None:
        """The head of a PUBLISH that is not kept; None: more of it is needed."""
        if first >> 4 != PUBLISH:
            raise ValueError(f"a packet of {size} bytes")
        if len(data) < body + 2:
            return None
        at = body + 2 + (data[body] << 8 | data[body + 1])
        if len(data) < at + 2:
            return None
        topic = data[body + 2 : at].decode(errors="replace")
        qos = first >> 1 & 3
        packet_id = data[at] << 8 | data[at + 1] if qos else 0
        packet = Publish(topic, b"", qos, bool(first & 1), bool(first & 8), packet_id, NONE, size)
        found.append(packet)
        return packet

    def _packet(self, first: int, data: bytes, at: int, end: int) -> Packet:
        kind = first >> 4
        if kind == PUBLISH:
            return self._publish(first, data, at, end)
        if PUBACK <= kind <= PUBCOMP:
            return self._ack(kind, data, at, end)
        if kind in (PINGREQ, PINGRESP):
            return Ping(kind)
        return _READ[kind](self, data, at, end)

    def _publish(self, first: int, data: bytes, at: int, end: int) -> Publish:
        start = at + 2
        at = start + (data[at] << 8 | data[at + 1])
        topic = data[start:at].decode(errors="replace")
        qos = first >> 1 & 3
        packet_id = 0
        if qos:
            if qos == 3:
                raise ValueError("a QoS of 3")
            packet_id = data[at] << 8 | data[at + 1]
            at += 2
            if not packet_id:
                raise ValueError("a packet identifier of 0")
        properties = NONE
        if self.version == 5:
            if data[at]:
                properties, at = _properties(data, at)
            else:
                at += 1
        if at > end:
            raise ValueError("a PUBLISH that ends early")
        return Publish(topic, data[at:end], qos, bool(first & 1), bool(first & 8), packet_id, properties)

    def _ack(self, kind: int, data: bytes, at: int, end: int) -> Ack:
        packet_id = data[at] << 8 | data[at + 1]
        if end - at <= 2:
            return Ack(kind, packet_id)
        properties = _properties(data, at + 3)[0] if end - at > 3 else NONE
        return Ack(kind, packet_id, data[at + 2], properties)

    def _connect(self, data: bytes, at: int, end: int) -> Connect:
        name, at = _text(data, at)
        level, flags = data[at], data[at + 1]
        if name != "MQTT" or level not in (4, 5):
            raise ValueError(f"protocol {name!r} {level}")
        self.version = 4 if level == 4 else 5
        keepalive = data[at + 2] << 8 | data[at + 3]
        at += 4
        properties, at = self._more(data, at, end)
        client_id, at = _text(data, at)
        if flags & 0x04:  # a will, which nobody here keeps
            _, at = self._more(data, at, end)
            _, at = _binary(data, at)
            _, at = _binary(data, at)
        username = password = None
        if flags & 0x80:
            username, at = _text(data, at)
        if flags & 0x40:
            password, at = _binary(data, at)
        return Connect(
            version=self.version,
            client_id=client_id,
            clean=bool(flags & 0x02),
            keepalive=keepalive,
            username=username,
            password=password,
            properties=properties,
        )

    def _connack(self, data: bytes, at: int, end: int) -> ConnAck:
        return ConnAck(bool(data[at] & 1), data[at + 1], self._more(data, at + 2, end)[0])

    def _subscribe(self, data: bytes, at: int, end: int) -> Subscribe:
        packet_id = data[at] << 8 | data[at + 1]
        properties, at = self._more(data, at + 2, end)
        wishes = []
        while at < end:
            filter_, at = _text(data, at)
            options = data[at]
            at += 1
            wishes.append(Wish(filter_, options & 3, options >> 4 & 3, bool(options & 4), bool(options & 8)))
        return Subscribe(packet_id, tuple(wishes), properties)

    def _unsubscribe(self, data: bytes, at: int, end: int) -> Unsubscribe:
        packet_id = data[at] << 8 | data[at + 1]
        _, at = self._more(data, at + 2, end)
        filters = []
        while at < end:
            filter_, at = _text(data, at)
            filters.append(filter_)
        return Unsubscribe(packet_id, tuple(filters))

    def _suback(self, data: bytes, at: int, end: int) -> Answer:
        return self._answer(SUBACK, data, at, end)

    def _unsuback(self, data: bytes, at: int, end: int) -> Answer:
        return self._answer(UNSUBACK, data, at, end)

    def _answer(self, kind: int, data: bytes, at: int, end: int) -> Answer:
        packet_id = data[at] << 8 | data[at + 1]
        _, at = self._more(data, at + 2, end)
        return Answer(kind, packet_id, tuple(data[at:end]))

    def _disconnect(self, data: bytes, at: int, end: int) -> Disconnect:
        if at >= end:
            return Disconnect()
        return Disconnect(data[at], self._more(data, at + 1, end)[0])

    def _more(self, data: bytes, at: int, end: int) -> tuple[Properties, int]:
        """Properties, where the version has them and they are not left out."""
        return _properties(data, at) if self.version == 5 and at < end else (NONE, at)


_READ: dict[int, Callable[[Decoder, bytes, int, int], Packet]] = {
    CONNECT: Decoder._connect,  # noqa: SLF001 - the class' own
    CONNACK: Decoder._connack,  # noqa: SLF001
    SUBSCRIBE: Decoder._subscribe,  # noqa: SLF001
    SUBACK: Decoder._suback,  # noqa: SLF001
    UNSUBSCRIBE: Decoder._unsubscribe,  # noqa: SLF001
    UNSUBACK: Decoder._unsuback,  # noqa: SLF001
    DISCONNECT: Decoder._disconnect,  # noqa: SLF001
}


def _head(data: bytes, at: int) -> tuple[int, int] | None:
    """Length of a packet's body, and where it begins; None: more is needed."""
    if len(data) - at < 2:
        return None
    length, body = data[at + 1], at + 2
    if length & 0x80:
        length, shift = length & 0x7F, 7
        while True:
            if body >= len(data):
                return None
            byte = data[body]
            body += 1
            length |= (byte & 0x7F) << shift
            if not byte & 0x80:
                break
            shift += 7
            if shift > 21:
                raise ValueError("a length of more than four bytes")
    return length, body


def _text(data: bytes, at: int) -> tuple[str, int]:
    raw, at = _binary(data, at)
    return raw.decode(errors="replace"), at


def _binary(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + (data[at] << 8 | data[at + 1])
    if end > len(data):
        raise ValueError("text that ends early")
    return data[at + 2 : end], end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _properties(data: bytes, at: int) -> tuple[Properties, int]:
    size, at = _varint(data, at)
    end = at + size
    found: Properties = {}
    while at < end:
        name, at = _varint(data, at)
        value, at = _value(_KINDS[name], data, at)
        if name in _REPEATED:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found, end


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind == _PAIR:
        name, at = _text(data, at)
        value, at = _text(data, at)
        return (name, value), at
    if kind == _TEXT:
        return _text(data, at)
    if kind == _BINARY:
        return _binary(data, at)
    if kind == _VARINT:
        return _varint(data, at)
    size = {_BYTE: 1, _U16: 2, _U32: 4}[kind]
    return int.from_bytes(data[at : at + size]), at + size


# to bytes


def encode(packet: Packet, version: Version) -> bytes:
    """Raises ValueError for text that is longer than MQTT allows."""
    return _WRITE[type(packet)](packet, version)


def ack(kind: int, packet_id: int) -> bytes:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP of success: the same in both versions."""
    return bytes((kind << 4 | (2 if kind == PUBREL else 0), 2, packet_id >> 8, packet_id & 0xFF))


PINGREQ_BYTES = bytes((PINGREQ << 4, 0))


def _packed(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((first,)) + _length(len(body)) + body


def _length(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value >= 1 << 28:
        raise ValueError(f"{value} bytes, more than a packet can have")
    found = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        found.append(low | 0x80 if value else low)
        if not value:
            return bytes(found)


def _of_text(text: str) -> bytes:
    return _of_binary(text.encode())


def _of_binary(raw: bytes) -> bytes:
    if len(raw) > 0xFFFF:
        raise ValueError(f"text of {len(raw)} bytes, more than 65535")
    return len(raw).to_bytes(2) + raw


def _of_properties(properties: Properties, version: Version) -> bytes:
    if version == 4:
        return b""
    if not properties:
        return b"\0"
    found = bytearray()
    for name, value in properties.items():
        for one in value if name in _REPEATED else (value,):
            found.append(name)
            found += _of_value(_KINDS[name], one)
    return _length(len(found)) + found


def _of_value(kind: int, value: Any) -> bytes:
    if kind == _PAIR:
        return _of_text(value[0]) + _of_text(value[1])
    if kind == _TEXT:
        return _of_text(value)
    if kind == _BINARY:
        return _of_binary(value)
    if kind == _VARINT:
        return _length(value)
    return int(value).to_bytes({_BYTE: 1, _U16: 2, _U32: 4}[kind])


def _of_connect(packet: Connect, version: Version) -> bytes:
    flags = 2 * packet.clean | (0x80 if packet.username is not None else 0) | (0x40 if packet.password else 0)
    return _packed(
        CONNECT << 4,
        _of_text("MQTT"),
        bytes((packet.version, flags)),
        packet.keepalive.to_bytes(2),
        _of_properties(packet.properties, version),
        _of_text(packet.client_id),
        b"" if packet.username is None else _of_text(packet.username),
        _of_binary(packet.password) if packet.password else b"",
    )


def _of_connack(packet: ConnAck, version: Version) -> bytes:
    head = bytes((packet.session_present, packet.reason))
    return _packed(CONNACK << 4, head, _of_properties(packet.properties, version))


def _of_publish(packet: Publish, version: Version) -> bytes:
    return _packed(
        PUBLISH << 4 | packet.dup << 3 | packet.qos << 1 | packet.retain,
        _of_text(packet.topic),
        packet.packet_id.to_bytes(2) if packet.qos else b"",
        _of_properties(packet.properties, version),
        packet.payload,
    )


def _of_ack(packet: Ack, version: Version) -> bytes:
    if version == 4 or not packet.reason:
        return ack(packet.kind, packet.packet_id)
    first = packet.kind << 4 | (2 if packet.kind == PUBREL else 0)
    properties = _of_properties(packet.properties, version) if packet.properties else b""
    return _packed(first, packet.packet_id.to_bytes(2), bytes((packet.reason,)), properties)


def _of_subscribe(packet: Subscribe, version: Version) -> bytes:
    wishes = [_of_text(wish.filter) + bytes((_options(wish, version),)) for wish in packet.wishes]
    properties = _of_properties(packet.properties, version)
    return _packed(SUBSCRIBE << 4 | 2, packet.packet_id.to_bytes(2), properties, *wishes)


def _options(wish: Wish, version: Version) -> int:
    if version == 4:
        return wish.qos
    return wish.qos | wish.no_local << 2 | wish.retain_as_published << 3 | wish.retain_handling << 4


def _of_unsubscribe(packet: Unsubscribe, version: Version) -> bytes:
    filters = [_of_text(each) for each in packet.filters]
    return _packed(UNSUBSCRIBE << 4 | 2, packet.packet_id.to_bytes(2), _of_properties({}, version), *filters)


def _of_answer(packet: Answer, version: Version) -> bytes:
    reasons = b"" if packet.kind == UNSUBACK and version == 4 else bytes(packet.reasons)
    return _packed(packet.kind << 4, packet.packet_id.to_bytes(2), _of_properties({}, version), reasons)


def _of_ping(packet: Ping, _: Version) -> bytes:
    return bytes((packet.kind << 4, 0))


def _of_disconnect(packet: Disconnect, version: Version) -> bytes:
    if version == 4 or (not packet.reason and not packet.properties):
        return bytes((DISCONNECT << 4, 0))
    return _packed(DISCONNECT << 4, bytes((packet.reason,)), _of_properties(packet.properties, version))


_WRITE: dict[type, Callable[[Any, Version], bytes]] = {
    Connect: _of_connect,
    ConnAck: _of_connack,
    Publish: _of_publish,
    Ack: _of_ack,
    Subscribe: _of_subscribe,
    Unsubscribe: _of_unsubscribe,
    Answer: _of_answer,
    Ping: _of_ping,
    Disconnect: _of_disconnect,
}
