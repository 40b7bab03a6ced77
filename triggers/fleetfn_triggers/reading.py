"""What the readers of all kinds share: a user's `decode`, times, and what makes a message unreadable."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from fleetfn.errors import EventError
from fleetfn.event import Event

OVERHEAD = 1024
"""Bytes that a delivery holds beside its payload, about: the event, its times and ids, its place in a lane."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_END = 1e11
_MILLISECONDS_END = 1e14


class Unreadable(Exception):  # noqa: N818 - a state of affairs, said as one
    """A message that can become no run of a handler: its text is `Delivery.problem`."""


def time_of(value: object, where: str) -> datetime:
    """RFC 3339 text, or a number since 1970: below 1e11 seconds (the year 5138), below 1e14 milliseconds."""
    if type(value) is str:
        try:
            time = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            raise Unreadable(f"no time: {where} is {shown(value)}, not RFC 3339 (2026-11-20T08:15:00Z)") from None
        if time.tzinfo is None:
            raise Unreadable(f"no time: {where} is {shown(value)}, without a time zone") from None
        try:
            return time.astimezone(UTC)
        except OverflowError:
            raise Unreadable(f"no time: {where} is {shown(value)}, which lies outside the years 1 to 9999") from None
    if type(value) in (int, float):
        number = float(value)  # type: ignore[arg-type]  # narrowed by the line above
        if 0 <= number < _SECONDS_END:
            return _EPOCH + timedelta(seconds=number)
        if _SECONDS_END <= number < _MILLISECONDS_END:
            return _EPOCH + timedelta(milliseconds=number)
    raise Unreadable(
        f"no time: {where} is {shown(value)}, neither RFC 3339 text nor seconds or milliseconds since 1970"
    )


def shown(value: object, limit: int = 60) -> str:
    """A value as a message quotes it: JSON, cut short."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "..."


def decoded(decode: Callable[[bytes], Any], data: bytes) -> tuple[bytes, bool]:
    """What the user's `decode` makes of foreign bytes, as JSON bytes. Bytes that it returns stay as they are: False."""
    try:
        value = decode(data)
    except Exception as exc:
        raise Unreadable(f"decode failed: {type(exc).__name__}: {exc}{_place(exc)}") from exc
    if isinstance(value, bytes):
        return value, False
    try:
        return msgspec.json.encode(value), True
    except Exception as exc:
        raise Unreadable(f"decode returned {type(value).__name__}, which is not JSON: {exc}") from exc


def _place(exc: Exception) -> str:
    """` at file:line`, the innermost line that is the user's own."""
    frames = traceback.extract_tb(exc.__traceback__)[1:]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def looks_like_json(data: bytes | None) -> str | None:
    """The content type of a payload that names none: JSON where it begins like an object or a list."""
    return "application/json" if data and data[0] in b"{[" else None


def not_a_cloudevent(exc: EventError) -> Unreadable:
    return Unreadable(f"not a CloudEvent: {exc.message}" + (f"; {exc.hint}" if exc.hint else ""))


def with_data(event: Event[bytes | None], decode: Callable[[bytes], Any]) -> Event[bytes | None]:
    """The event with its data decoded by the user's `decode`."""
    if event.data is None:
        return event
    data, is_json = decoded(decode, event.data)
    return msgspec.structs.replace(event, data=data, datacontenttype="application/json" if is_json else None)
