"""Key expressions: where in a message its key (or id, or time) is.

    data.<path>      in the JSON payload: `data.vehicle`, `data.frames.0.vin` (a number is an index of a list)
    subject, source, partitionkey    attributes of the CloudEvent
    kafka.key        the record's key
    path.<name>      a `{name}` part of an HTTP path
    topic.<name>     a `{name}` level of an MQTT topic
    header.<name>    a header of the request or the record, a user property of an MQTT message

Keys are text of 1 to 1024 bytes (UTF-8); whole numbers count as their digits; anything else is no key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleetfn.errors import FleetError
from fleetfn.event import Event

from fleetfn_triggers import data_paths
from fleetfn_triggers.reading import Unreadable, shown

LIMIT = 1024
"""Bytes of a key: it is a primary key of stores and part of log lines, metrics never."""

ATTRIBUTES = frozenset({"subject", "source", "partitionkey"})
DATA = frozenset({"data"})

_NAMED = {"path": "path.<name>", "topic": "topic.<name>", "header": "header.<name>", "data": "data.<path>"}


class ExpressionError(FleetError):
    """A key expression that cannot be meant for this kind of trigger."""


@dataclass(frozen=True, slots=True)
class Expression:
    """`root` is data, path, topic, header, kafka.key or an attribute; `rest` what follows its dot."""

    text: str
    root: str
    rest: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.rest.split("."))


def parse(text: str, roots: frozenset[str]) -> Expression:
    """`roots`: what the kind gives (`data`, `subject`, `kafka.key`, `header` ...). Raises ExpressionError."""
    if text in roots and text not in _NAMED:
        return Expression(text, text)
    root, _, rest = text.partition(".")
    if root not in roots or root not in _NAMED:
        raise ExpressionError(f'"{text}" is no key expression here', hint=f"use {_list(roots)}")
    if not rest or (root == "data" and not all(rest.split("."))):
        raise ExpressionError(f'"{text}" lacks a name', hint=f"write {_NAMED[root]}")
    return Expression(text, root, rest.lower() if root == "header" else rest)


def _list(roots: frozenset[str]) -> str:
    return ", ".join(sorted(_NAMED.get(root, root) for root in roots))


Picker = Callable[[Any, "Event[bytes | None] | None", tuple[object, ...]], object]
"""(message, event (None: not made yet), values of the data paths) -> what is there, or MISSING."""

MISSING = data_paths.MISSING

Envelope = Mapping[str, Callable[[str], Callable[[Any], object]]]
"""Root -> (name after the dot -> how to get it from the kind's own message)."""


def picker(expression: Expression, paths: list[tuple[str, ...]], envelope: Envelope) -> Picker:
    """Compile an expression. Its data path, if any, is added to `paths`."""
    if expression.root == "data":
        slot = len(paths)
        paths.append(expression.path)
        return lambda _message, _event, values: values[slot]
    if expression.root in envelope:
        get = envelope[expression.root](expression.rest)
        return lambda message, _event, _values: get(message)
    if expression.root == "partitionkey":
        return lambda _message, event, _values: event.extensions.get("partitionkey", MISSING) if event else MISSING
    name = expression.root
    return lambda _message, event, _values: getattr(event, name)


def key_text(value: object, where: str) -> str:
    """A key from what was found; raises Unreadable, saying what was found instead."""
    if type(value) is bytes:
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise Unreadable(f"no key: {where} is not UTF-8: {value[:60]!a}") from None
    if type(value) is str and value.isascii() and 0 < len(value) <= LIMIT:
        return value
    if type(value) is int:
        value = str(value)
    if value is MISSING or value is None:
        raise Unreadable(f"no key: {where} is {'missing' if value is MISSING else 'null'}")
    if type(value) is not str:
        raise Unreadable(f"no key: {where} is {shown(value)}, neither text nor a whole number")
    if not value:
        raise Unreadable(f"no key: {where} is empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Unreadable(f"no key: {where} is not UTF-8: {value[:60]!a}") from None
    if size > LIMIT:
        raise Unreadable(f"no key: {where} is longer than {LIMIT} bytes: {shown(value)}")
    return value
