"""The rules of CloudEvents 1.0 for attributes: names, values, time. Raises EventError."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from fleetfn.errors import EventError
from fleetfn.event import Event, Scalar

SPECVERSION = "1.0"
REQUIRED = ("id", "source", "type")
RESERVED = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"}
)

_NAME = re.compile(r"[a-z0-9]+")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:)([0-9]{2})((?:\.[0-9]+)?)([Zz]|[+-][0-9]{2}:[0-5][0-9])"
)
_INTEGERS = 1 << 31
"""The type system's Integer is one of 32 bits, with sign."""

_REMEMBERED = 256
_good_names: set[str] = set()
"""Extension names found to be right; a fleet uses the same few over and over."""

_TIME_HINT = "send e.g. 2026-03-01T12:00:00.250Z"
_PLAIN_TIME = len("2026-03-01T12:00:00.123456Z")
_plain_time = msgspec.json.Decoder(datetime).decode
# Control characters, lone surrogates and noncharacters: what the type system's String leaves out.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)


def is_unicode(text: str) -> bool:
    """No lone surrogates: UTF-8 has no bytes for them."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def error(name: str, value: object, what: str, hint: str) -> EventError:
    return EventError(f"CloudEvents attribute {name!r} {what}: {value!r:.100}", hint=hint)


def missing(name: str) -> EventError:
    return EventError(f"CloudEvents attribute {name!r} is missing", hint=f"send {name}; 1.0 requires it")


def check_specversion(value: object) -> None:
    if value is None:
        raise missing("specversion")
    if value != SPECVERSION:
        raise error("specversion", value, "is not 1.0", "send CloudEvents 1.0; other versions are not read")


def check_name(name: str) -> None:
    # isascii + isalnum + islower is quick and right for most names; a name of digits alone takes the pattern.
    if not (name.isascii() and name.isalnum() and name.islower()) and _NAME.fullmatch(name) is None:
        raise EventError(
            f"CloudEvents attribute name {name!r:.100} has other characters than a-z and 0-9",
            hint="rename the extension",
        )
    if name in RESERVED:
        raise EventError(f"{name!r} is no name for an extension", hint=f"{name} has a meaning of its own; rename it")


def check_string(name: str, value: object, *, empty: bool = False) -> None:
    if isinstance(value, str) and value and value.isprintable():
        return  # nearly all
    if value is None:
        raise missing(name)
    if not isinstance(value, str):
        raise error(name, value, f"is no string but {type(value).__name__}", "send a string")
    if _FORBIDDEN.search(value):
        raise error(name, value, "holds a control character", "send printable text")
    if not value and not empty:
        raise error(name, value, "is empty", "send a value" if name in REQUIRED else "send a value, or leave it out")


def check_extension(name: str, value: object) -> None:
    """Names as check_name; strings, integers and booleans; a partitionkey is never empty."""
    if name not in _good_names:
        check_name(name)
        if len(_good_names) < _REMEMBERED:
            _good_names.add(name)
    if isinstance(value, int):
        if not -_INTEGERS <= value < _INTEGERS:
            raise error(name, value, "is no integer of 32 bits", "send a larger one as a string")
    else:
        check_string(name, value, empty=name != "partitionkey")


def check(event: Event[Any]) -> None:
    """Everything that a receiver of an event may rely on."""
    id_, source, kind = event.id, event.source, event.type
    quick = type(id_) is type(source) is type(kind) is str and id_ and source and kind
    if not (quick and (id_ + source + kind).isprintable()):  # nearly all are
        check_string("id", id_)
        check_string("source", source)
        check_string("type", kind)
    if event.subject is not None:
        check_string("subject", event.subject)
    if event.datacontenttype is not None:
        check_string("datacontenttype", event.datacontenttype)
    if event.dataschema is not None:
        check_string("dataschema", event.dataschema)
    if event.time is not None and event.time.tzinfo is None:
        raise error("time", event.time.isoformat(), "has no time zone", "give the datetime a tzinfo, e.g. datetime.UTC")
    for name, value in event.extensions.items():
        check_extension(name, value)


def parse_time(text: object) -> datetime:
    """RFC 3339 to UTC. A leap second is the second after it, as POSIX has it; digits beyond microseconds are cut."""
    if not isinstance(text, str):
        raise error("time", text, "is not RFC 3339", _TIME_HINT)
    if len(text) <= _PLAIN_TIME and text[-1:] == "Z" and text[10:11] == "T" and "\\" not in text:
        try:
            return _plain_time(f'"{text}"')
        except ValueError:
            pass  # a leap second, or wrong: the long way tells
    return _parse_any_time(text)


def _parse_any_time(text: str) -> datetime:
    match = _TIME.fullmatch(text)
    if match is None:
        raise error("time", text, "is not RFC 3339", _TIME_HINT)
    minute, second, fraction, offset = match.groups()
    leap = second == "60"
    try:
        time = datetime.fromisoformat(f"{minute}{'59' if leap else second}{fraction[:7]}{offset.upper()}")
        time = time.astimezone(UTC)
        if not leap:
            return time
        if (time.hour, time.minute) != (23, 59):
            raise error("time", text, "has a leap second within the day", "leap seconds are at 23:59:60 UTC only")
        return time + timedelta(seconds=1)
    except (ValueError, OverflowError) as problem:
        raise error("time", text, "is no moment between the years 1 and 9999", "check the sender's clock") from problem


def format_time(time: datetime) -> str:
    if time.tzinfo is None:
        raise error("time", time.isoformat(), "has no time zone", "give the datetime a tzinfo, e.g. datetime.UTC")
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def canonical(value: Scalar) -> str:
    """An extension's value as text, as headers carry it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def not_a_header(header: str, instead: str) -> EventError:
    return EventError(f"header {header} does not belong in a binary CloudEvent", hint=f"use {instead} for it")


def event(
    values: dict[str, Any],
    datacontenttype: str | None,
    headers: tuple[tuple[str, bytes], ...],
    data: bytes | None,
) -> Event[bytes | None]:
    """An event from its attributes as they arrived; `values` is used up. Raises EventError."""
    take = values.pop
    specversion = take("specversion", None)
    if specversion != SPECVERSION:
        check_specversion(specversion)
    made: Event[bytes | None] = Event(
        id=take("id", None),
        source=take("source", None),
        type=take("type", None),
        subject=take("subject", None),
        time=None if (time := take("time", None)) is None else parse_time(time),
        datacontenttype=datacontenttype,
        dataschema=take("dataschema", None),
        extensions=values,
        headers=headers,
        data=data,
    )
    check(made)
    return made
