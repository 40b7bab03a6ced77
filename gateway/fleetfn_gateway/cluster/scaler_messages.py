"""The messages of KEDA's external scaler, in protobuf's wire format (externalscaler.proto of KEDA 2.12 and later).

Six messages of strings, numbers and one map: by hand they need neither generated code nor protobuf's runtime.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_VARINT, _DOUBLE, _BYTES, _SINGLE = 0, 1, 2, 5


class ScaledObject(NamedTuple):
    """ScaledObjectRef: who asks, with the metadata of its trigger."""

    name: str
    namespace: str
    metadata: dict[str, str]


class Asked(NamedTuple):
    """GetMetricsRequest."""

    who: ScaledObject
    metric: str


class Figure(NamedTuple):
    """MetricSpec (the value that one pod should have) or MetricValue (what there is)."""

    metric: str
    value: float


def scaled_object(data: bytes) -> ScaledObject:
    """Raises ValueError, as `asked` does."""
    texts = {1: "", 2: ""}
    metadata: dict[str, str] = {}
    for number, value in _fields(data):
        if number == 3:  # noqa: PLR2004 - scalerMetadata
            entry = {1: "", 2: ""} | {n: _text(each) for n, each in _fields(_bytes(value)) if n in (1, 2)}
            metadata[entry[1]] = entry[2]
        elif number in texts:
            texts[number] = _text(value)
    return ScaledObject(texts[1], texts[2], metadata)


def asked(data: bytes) -> Asked:
    who, metric = ScaledObject("", "", {}), ""
    for number, value in _fields(data):
        if number == 1:
            who = scaled_object(_bytes(value))
        elif number == 2:  # noqa: PLR2004 - metricName
            metric = _text(value)
    return Asked(who, metric)


def active(is_active: bool) -> bytes:  # noqa: FBT001 - the one field of IsActiveResponse
    return b"\x08\x01" if is_active else b""


def figures(each: Sequence[Figure]) -> bytes:
    """GetMetricSpecResponse or GetMetricsResponse: they have the same numbers. The whole number (2) is for KEDA before
    2.13, which reads no other.
    """
    return b"".join(_block(1, _figure(one)) for one in each)


def _figure(figure: Figure) -> bytes:
    whole = max(0, round(figure.value))
    number = b"\x10" + _varint(whole) if whole else b""
    exact = b"\x19" + struct.pack("<d", figure.value) if figure.value else b""
    return _block(1, figure.metric.encode()) + number + exact


def _block(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) in order; groups, which proto3 has none of, are refused."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind, size = key & 7, 0
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in (_DOUBLE, _SINGLE):
            size = 8 if kind == _DOUBLE else 4
        else:
            raise ValueError(f"wire type {kind} is not of proto3")
        if at + size > len(data):
            raise ValueError("a message ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a message ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value, at
    raise ValueError("a number is longer than ten bytes")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"{value} stands where text belongs")  # noqa: TRY004 - of the sender, as all here
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()
