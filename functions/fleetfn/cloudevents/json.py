"""The JSON event format: one event or a batch as `application/cloudevents+json`, data kept as the bytes it was.

JSON data stands in the envelope as it is, never decoded and encoded again. What is no JSON becomes a string (text) or
`data_base64`.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from fleetfn.cloudevents import attributes
from fleetfn.errors import EventError
from fleetfn.event import Event
from fleetfn.values import explain

MEDIA_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"

_JSON = re.compile(r"[^/;\s]+/(?:[^;\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_TEXT = re.compile(r"(?:text/|application/(?:[^;\s]+\+)?xml).*", re.IGNORECASE)

_DATA = frozenset({"data", "data_base64"})

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_value = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def is_json(datacontenttype: str | None) -> bool:
    """Absent means JSON in this format."""
    return datacontenttype is None or _JSON.fullmatch(datacontenttype) is not None


def decode(body: bytes) -> Event[bytes | None]:
    """One event. Raises EventError."""
    try:
        members = _members.decode(body)
        values = {
            name: value
            for name, raw in members.items()
            if name not in _DATA and (value := _value(raw)) is not None  # null: as if it were not there
        }
    except (ValueError, RecursionError) as error:
        raise EventError(
            f"structured CloudEvent is unreadable: {explain(error, body)}", hint="send one JSON object"
        ) from error
    return _event(values, members)


def decode_batch(body: bytes) -> list[Event[bytes | None]]:
    """All events of a batch, or EventError that names the first bad one by its index."""
    try:
        items = _items.decode(body)
    except (ValueError, RecursionError) as error:
        raise EventError(f"batch is unreadable: {explain(error, body)}", hint="send a JSON array of events") from error
    events = []
    for index, item in enumerate(items):
        try:
            events.append(decode(bytes(item)))
        except EventError as error:
            raise EventError(f"event {index} of the batch: {error.message}", hint=error.hint) from error
    return events


def encode(event: Event[bytes | None]) -> bytes:
    """Raises EventError for attributes that 1.0 does not allow."""
    attributes.check(event)
    members: dict[str, Any] = {
        "specversion": attributes.SPECVERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
    }
    if event.subject is not None:
        members["subject"] = event.subject
    if event.time is not None:
        members["time"] = attributes.format_time(event.time)
    if event.datacontenttype is not None:
        members["datacontenttype"] = event.datacontenttype
    if event.dataschema is not None:
        members["dataschema"] = event.dataschema
    members.update(event.extensions)
    if event.data is not None:
        name, value = _data_member(event.data, event.datacontenttype)
        members[name] = value
    return _encode(members)


def encode_batch(events: Sequence[Event[bytes | None]]) -> bytes:
    return _encode([msgspec.Raw(encode(event)) for event in events])


def _event(values: dict[str, Any], members: dict[str, msgspec.Raw]) -> Event[bytes | None]:
    datacontenttype = values.pop("datacontenttype", None)
    data = _data(members, datacontenttype if isinstance(datacontenttype, str) else None)
    return attributes.event(values, datacontenttype, (), data)


def _data(members: dict[str, msgspec.Raw], datacontenttype: str | None) -> bytes | None:
    data = _present(members.get("data"))
    encoded = _present(members.get("data_base64"))
    if encoded is not None:
        if data is not None:
            raise EventError("structured CloudEvent has both data and data_base64", hint="send one of them")
        return _from_base64(encoded)
    if data is None or is_json(datacontenttype):
        return data
    # Not JSON: a string stands for its text. Anything else is kept as written.
    return _text(data) if data.startswith(b'"') else data


def _present(raw: msgspec.Raw | None) -> bytes | None:
    data = None if raw is None else bytes(raw)
    return None if data == b"null" else data


def _text(raw: bytes) -> bytes:
    try:
        return str(_value(raw)).encode()
    except ValueError as error:
        raise EventError(f"data is unreadable: {explain(error, raw)}", hint="send UTF-8") from error


def _from_base64(raw: bytes) -> bytes:
    try:
        return b64decode(_value(raw), validate=True)
    except (ValueError, TypeError, binascii.Error) as error:
        raise EventError(
            f"data_base64 is no base64 text: {raw[:100].decode(errors='replace')}", hint="send RFC 4648 base64"
        ) from error


def _data_member(data: bytes, datacontenttype: str | None) -> tuple[str, Any]:
    if is_json(datacontenttype):
        # null inside the envelope would mean "no data".
        if data.strip() != b"null" and _is_json_text(data):
            return "data", msgspec.Raw(data)
    elif _TEXT.fullmatch(datacontenttype or ""):
        try:
            return "data", data.decode()
        except UnicodeDecodeError:
            pass  # text in another charset travels as bytes
    return "data_base64", b64encode(data).decode()


def _is_json_text(data: bytes) -> bool:
    try:
        data.decode()
        _value(data)
    except (ValueError, RecursionError):
        return False
    return True
