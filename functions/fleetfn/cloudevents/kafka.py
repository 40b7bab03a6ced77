"""CloudEvents in Kafka records: binary and structured content mode. There is no batch.

The record's key belongs to the record: it never becomes an attribute, and `partitionkey` stays in the event. A null
value is a tombstone: an event without data.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fleetfn.cloudevents import attributes, json
from fleetfn.cloudevents.http import check_media
from fleetfn.errors import EventError
from fleetfn.event import Event

Headers = Sequence[tuple[str, bytes | str | None]]
"""As Kafka clients give them: bytes, None for a null value."""

Message = tuple[list[tuple[str, bytes]], bytes | None]
"""Headers and value; the key is the output's to choose (`Emit.key`)."""

_STRUCTURED = b"application/cloudevents"
_PREFIX = "ce_"
_CLAIMS = frozenset({"specversion", "id", "source", "type"})
_MEDIA = "content-type"
_KNOWN = {
    _MEDIA: _MEDIA,
    **{_PREFIX + name: name for name in attributes.RESERVED},
    "ce_partitionkey": "partitionkey",
}
_SPECVERSION = ("ce_specversion", b"1.0")
_STRUCTURED_TYPE = ("content-type", json.MEDIA_TYPE.encode())


def decode(headers: Headers | None, key: bytes | None, value: bytes | None) -> Event[bytes | None] | None:  # noqa: ARG001 - see above
    """The event, or None for a record that does not claim to be one. Raises EventError."""
    if not headers:
        return None
    found: dict[str, bytes] = {}
    rest: list[tuple[str, bytes]] = []
    twice = ""
    for header, content in headers:
        name = _KNOWN.get(header) or _attribute(header)
        raw = content if type(content) is bytes else _bytes(content)
        if name is None:
            rest.append((header, raw))
        elif name in found:
            twice = header
        else:
            found[name] = raw
    structured = found.get(_MEDIA, b"")[: len(_STRUCTURED)].lower() == _STRUCTURED
    if not structured and _CLAIMS.isdisjoint(found):
        return None  # whatever is wrong with its headers, it is no CloudEvent's
    if twice:
        raise EventError(f"header {twice} is there twice", hint="send each attribute once")
    values = _texts(found)
    media = values.pop(_MEDIA, None) or None
    if structured and media is not None:
        return _structured(media, value, tuple(rest))
    if "datacontenttype" in values:
        raise attributes.not_a_header("ce_datacontenttype", "header content-type")
    return attributes.event(values, media, tuple(rest), value)


def encode_binary(event: Event[bytes | None]) -> Message:
    attributes.check(event)
    headers = [
        _SPECVERSION,
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
    ]
    if event.subject is not None:
        headers.append(("ce_subject", event.subject.encode()))
    if event.time is not None:
        headers.append(("ce_time", attributes.format_time(event.time).encode()))
    if event.dataschema is not None:
        headers.append(("ce_dataschema", event.dataschema.encode()))
    for name, value in event.extensions.items():
        headers.append((_PREFIX + name, attributes.canonical(value).encode()))
    if event.datacontenttype is not None:
        headers.append(("content-type", event.datacontenttype.encode()))
    if event.headers:
        headers += _own_headers(event)
    return headers, event.data


def encode_structured(event: Event[bytes | None]) -> Message:
    return [_STRUCTURED_TYPE, *_own_headers(event)], json.encode(event)


def _attribute(header: str) -> str | None:
    """The attribute that a header carries, or the content type; None for a header of the producer's own."""
    if header.startswith(_PREFIX):
        return header[3:]
    lower = header.lower()
    if lower == _MEDIA:
        return _MEDIA
    return lower[3:] if lower.startswith(_PREFIX) else None


def _structured(media: str, value: bytes | None, rest: tuple[tuple[str, bytes], ...]) -> Event[bytes | None]:
    lower = media.strip().lower()
    if lower.startswith("application/cloudevents-batch"):
        raise EventError("a batch of CloudEvents in one Kafka record", hint="send one event per record")
    check_media(lower, json.MEDIA_TYPE)
    if value is None:
        raise EventError("a structured CloudEvent without value", hint="send a tombstone in binary mode")
    return _with_headers(json.decode(value), rest)


def _with_headers(event: Event[bytes | None], headers: tuple[tuple[str, bytes], ...]) -> Event[bytes | None]:
    return msgspec.structs.replace(event, headers=headers) if headers else event


def _own_headers(event: Event[bytes | None]) -> list[tuple[str, bytes]]:
    """Transport headers that the event brings along; never over the attributes'."""
    return [(name, value) for name, value in event.headers if _attribute(name) is None]


def _bytes(content: bytes | str | None) -> bytes:
    if content is None:
        return b""
    return content.encode() if isinstance(content, str) else content


def _texts(found: dict[str, bytes]) -> dict[str, str]:
    try:
        return {name: raw.decode() for name, raw in found.items()}
    except UnicodeDecodeError as error:
        name = next(name for name, raw in found.items() if raw == error.object)
        header = name if name == _MEDIA else _PREFIX + name
        raise EventError(
            f"header {header} is not UTF-8: {error.object!r:.100}", hint="send attributes as UTF-8 text"
        ) from error
