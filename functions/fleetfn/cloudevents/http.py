"""CloudEvents over HTTP: binary, structured and batched content mode.

The content type decides the mode, since a structured message may repeat its attributes as `ce-` headers. Values of
`ce-` headers are percent-encoded, one round.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from fleetfn.cloudevents import attributes, json
from fleetfn.errors import EventError
from fleetfn.event import Event

Message = tuple[dict[str, str], bytes]
"""Headers (lower-case names) and body."""

_STRUCTURED = "application/cloudevents"
_BATCH = "application/cloudevents-batch"
_PREFIX = "ce-"
_MEDIA = "content-type"
_CLAIMS = frozenset({"specversion", "id", "source", "type"})

SECRET = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})
_FRAMING = frozenset({"content-type", "content-length", "transfer-encoding", "connection", "keep-alive", "host", "te"})
_KNOWN = {
    **dict.fromkeys(SECRET | _FRAMING, ""),
    _MEDIA: _MEDIA,
    **{_PREFIX + name: name for name in attributes.RESERVED},
    "ce-partitionkey": "partitionkey",
}
"""Header -> attribute, or '' for what no event carries."""

_ESCAPE = re.compile(r"[^!#$&-~]")  # outside of U+0021-7E, and `"`, `%`
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_BACKSLASH = re.compile(r"\\(.)")


def decode(headers: Mapping[str, str], body: bytes) -> Event[bytes | None] | list[Event[bytes | None]] | None:
    """An event, the events of a batch, or None for a request that does not claim to be one. Raises EventError.

    Header names in any case. An empty body is no data.
    """
    values: dict[str, str] = {}
    rest: list[tuple[str, bytes]] = []
    for header, value in headers.items():
        name = _KNOWN.get(header)
        if name is None:
            lower = header.lower()
            name = _KNOWN.get(lower, lower[3:] if lower.startswith(_PREFIX) else None)
            if name is None:
                rest.append((lower, value.encode("latin-1", "replace")))
                continue
        if name:
            values[name] = value
    media = values.pop(_MEDIA, None) or None
    if media is not None and media.lstrip()[: len(_STRUCTURED)].lower() == _STRUCTURED:
        return _structured(media.strip().lower(), body, tuple(rest))
    if _CLAIMS.isdisjoint(values):
        return None
    if "datacontenttype" in values:
        raise attributes.not_a_header("ce-datacontenttype", "Content-Type")
    if not _is_plain("".join(values.values())):
        values = {name: unescape(name, value) for name, value in values.items()}
    return attributes.event(values, media, tuple(rest), body or None)


def encode_binary(event: Event[bytes | None]) -> Message:
    attributes.check(event)
    headers = _own_headers(event)
    headers["ce-specversion"] = attributes.SPECVERSION
    headers["ce-id"] = escape(event.id)
    headers["ce-source"] = escape(event.source)
    headers["ce-type"] = escape(event.type)
    if event.subject is not None:
        headers["ce-subject"] = escape(event.subject)
    if event.time is not None:
        headers["ce-time"] = attributes.format_time(event.time)
    if event.dataschema is not None:
        headers["ce-dataschema"] = escape(event.dataschema)
    for name, value in event.extensions.items():
        headers[_PREFIX + name] = escape(attributes.canonical(value))
    if event.datacontenttype is not None:
        headers["content-type"] = event.datacontenttype
    return headers, event.data or b""


def encode_structured(event: Event[bytes | None]) -> Message:
    return {**_own_headers(event), "content-type": json.MEDIA_TYPE}, json.encode(event)


def encode_batch(events: Sequence[Event[bytes | None]]) -> Message:
    """Send batches only to who asked for them."""
    return {"content-type": json.BATCH_TYPE}, json.encode_batch(events)


def carried(headers: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    """Headers (lower-case names) for Event.headers: no attributes, no framing, no secrets."""
    return tuple(
        (name, value.encode("latin-1", "replace"))
        for name, value in headers.items()
        if not name.startswith(_PREFIX) and name not in SECRET and name not in _FRAMING
    )


def check_media(media: str, expected: str) -> None:
    """A structured or batched message (lower-case content type) must be in the JSON format, in UTF-8."""
    kind, *parameters = (part.strip() for part in media.split(";"))
    if kind != expected:
        raise EventError(f"CloudEvents format {kind!r} is not read", hint=f"send {expected}, or binary mode")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            raise EventError(f"charset {value!r} of a structured CloudEvent is not UTF-8", hint="send JSON as UTF-8")


def escape(value: str) -> str:
    """An attribute's value as a header value."""
    if value.isascii() and _ESCAPE.search(value) is None:
        return value
    return _ESCAPE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), value)


def unescape(name: str, value: str) -> str:
    """A header value as an attribute's value. Raises EventError for what is no UTF-8 once decoded."""
    value = value.strip(" \t")
    if '"' in value and len(value) > 1 and value[0] == value[-1] == '"':  # senders before CloudEvents 1.0.1 quoted
        value = _BACKSLASH.sub(r"\1", value[1:-1])
    if "%" not in value and value.isascii():
        return value
    try:
        raw = value.encode("latin-1")  # how servers read header bytes
    except UnicodeEncodeError:
        raw = value.encode(errors="surrogateescape")
    try:
        return _ESCAPED.sub(lambda match: bytes((int(match[1], 16),)), raw).decode()
    except UnicodeDecodeError as error:
        raise attributes.error(
            name, value, "is not UTF-8 after percent-decoding", "percent-encode the UTF-8 bytes"
        ) from error


def _is_plain(values: str) -> bool:
    """Nothing in these values has to be decoded: true of nearly all, and soon said."""
    return values.isascii() and not ("%" in values or '"' in values or " " in values or "\t" in values)


def _structured(
    media: str, body: bytes, headers: tuple[tuple[str, bytes], ...]
) -> Event[bytes | None] | list[Event[bytes | None]]:
    if media.startswith(_BATCH):
        check_media(media, json.BATCH_TYPE)
        return [msgspec.structs.replace(event, headers=headers) for event in json.decode_batch(body)]
    check_media(media, json.MEDIA_TYPE)
    return msgspec.structs.replace(json.decode(body), headers=headers)


def _own_headers(event: Event[bytes | None]) -> dict[str, str]:
    """Transport headers that the event brings along; never over the attributes'."""
    return {
        name.lower(): value.decode("latin-1")
        for name, value in event.headers
        if not name.lower().startswith(_PREFIX) and name.lower() not in SECRET | _FRAMING
    }
