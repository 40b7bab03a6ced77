"""CloudEvents in MQTT messages: binary (MQTT 5) and structured content mode. There is no batch.

Binary: attributes are user properties of the same name, without a prefix, and the content type is MQTT's own property.
So any message may seem to have an `id`; one is taken for a CloudEvent only if it has a `specversion`. MQTT 3.1.1 has
neither properties nor content types: there a structured event is known by its look.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fleetfn.cloudevents import attributes, json
from fleetfn.cloudevents.http import check_media
from fleetfn.errors import EventError
from fleetfn.event import Event

User = Sequence[tuple[str, str]]
"""User properties, in order."""

LIMIT = 65_535
"""Bytes of a user property's value, and of the content type."""


class Message(NamedTuple):
    """What an event is as a message; where it goes is the output's to choose."""

    content_type: str | None
    user: list[tuple[str, str]]
    payload: bytes


_STRUCTURED = "application/cloudevents"
_NAME = re.compile(r"[a-z0-9]+")
_SPECVERSION = ("specversion", attributes.SPECVERSION)


class _Look(msgspec.Struct):
    """The members that all structured events have."""

    specversion: str
    id: str
    source: str
    type: str


_look = msgspec.json.Decoder(_Look).decode


def decode(content_type: str | None, user: User, payload: bytes) -> Event[bytes | None] | None:
    """The event, or None for a message that does not claim to be one. Raises EventError."""
    if content_type is not None and content_type[: len(_STRUCTURED)].lower() == _STRUCTURED:
        return _structured(content_type, user, payload)
    for name, _ in user:
        if name == "specversion":
            return _binary(content_type, user, payload)
    if content_type is None and _looks_structured(payload):
        return _with_headers(json.decode(payload), user)
    return None


def encode_binary(event: Event[bytes | None]) -> Message:
    """Headers that could be taken for attributes, or that are no text, stay behind. Raises EventError."""
    attributes.check(event)
    user = [_SPECVERSION, ("id", event.id), ("source", event.source), ("type", event.type)]
    if event.subject is not None:
        user.append(("subject", event.subject))
    if event.time is not None:
        user.append(("time", attributes.format_time(event.time)))
    if event.dataschema is not None:
        user.append(("dataschema", event.dataschema))
    user += [(name, attributes.canonical(value)) for name, value in event.extensions.items()]
    for name, value in (*user, ("datacontenttype", event.datacontenttype or "")):
        if len(value) * 4 > LIMIT and len(value.encode()) > LIMIT:
            raise attributes.error(name, value, f"is longer than {LIMIT} bytes", "send less; MQTT allows no more")
    if event.headers:
        user += _own_headers(event)
    return Message(event.datacontenttype, user, event.data or b"")


def encode_structured(event: Event[bytes | None]) -> Message:
    return Message(json.MEDIA_TYPE, [], json.encode(event))


def _binary(media: str | None, user: User, payload: bytes) -> Event[bytes | None]:
    found: dict[str, str] = {}
    rest: list[tuple[str, bytes]] = []
    for name, value in user:
        if _NAME.fullmatch(name) is None:
            rest.append((name, value.encode()))
        elif name in found:
            raise EventError(f"user property {name} is there twice", hint="send each attribute once")
        else:
            found[name] = value
    if "datacontenttype" in found:
        raise EventError(
            "user property datacontenttype does not belong in a binary CloudEvent",
            hint="use MQTT's Content Type property for it",
        )
    values = dict[str, object](found)
    return attributes.event(values, media or None, tuple(rest), payload or None)


def _structured(media: str, user: User, payload: bytes) -> Event[bytes | None]:
    lower = media.strip().lower()
    if lower.startswith("application/cloudevents-batch"):
        raise EventError("a batch of CloudEvents in one MQTT message", hint="send one event per message")
    check_media(lower, json.MEDIA_TYPE)
    return _with_headers(json.decode(payload), user)


def _looks_structured(payload: bytes) -> bool:
    if b'"specversion"' not in payload or not payload.lstrip().startswith(b"{"):
        return False
    try:
        _look(payload)
    except (ValueError, RecursionError):
        return False
    return True


def _with_headers(event: Event[bytes | None], user: User) -> Event[bytes | None]:
    headers = tuple((name, value.encode()) for name, value in user)
    return msgspec.structs.replace(event, headers=headers) if headers else event


def _own_headers(event: Event[bytes | None]) -> list[tuple[str, str]]:
    found = []
    for name, value in event.headers:
        if _NAME.fullmatch(name) is not None or len(value) > LIMIT or "\0" in name:
            continue
        try:
            text = value.decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            found.append((name, text))
    return found
