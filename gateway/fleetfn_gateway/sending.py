"""`fn send`: events go where the trigger's source is, and come to the function the way all events do."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import msgspec
from fleetfn.errors import FleetError
from fleetfn_spec.control import SendItem, SendLine
from fleetfn_spec.function import Trigger
from fleetfn_triggers import paths

Items = AsyncIterator[SendItem]

_TELL_EVERY = 1.0
"""Seconds between lines of progress."""


class Progress:
    def __init__(self, tell: Callable[[SendLine], None]) -> None:
        self._tell = tell
        self._told = time.monotonic()
        self.sent = 0
        self.lag: int | None = None

    def count(self, items: int = 1) -> None:
        self.sent += items
        self.tell_now_and_then()

    def tell_now_and_then(self) -> None:
        if time.monotonic() - self._told >= _TELL_EVERY:
            self._told = time.monotonic()
            self._tell(SendLine(sent=self.sent, lag=self.lag))


def keyed(trigger: Trigger, item: SendItem) -> SendItem:
    """With its key where the trigger looks for it: beside the event, or in a header.

    A CloudEvent may carry it as its `partitionkey`: so a dead letter's event has all that is needed to be sent again.
    """
    key = item.key if item.key is not None else partition_key(trigger, item.event)
    if key is None:
        return item
    root, _, name = (trigger.key_expression or "").partition(".")
    headers = {name: key, **item.headers} if root == "header" else item.headers
    return msgspec.structs.replace(item, key=key, headers=headers)


def partition_key(trigger: Trigger, event: dict[str, Any] | None) -> str | None:
    """The key that a CloudEvent carries for a trigger which has it beside the event, not in it."""
    expression, envelope = trigger.key_expression or "", trigger.kind.envelope
    beside = expression in envelope or expression.partition(".")[0] in envelope
    key = event.get("partitionkey") if event is not None and beside else None
    return key if isinstance(key, str) else None


def payload(item: SendItem) -> tuple[bytes | None, dict[str, str]]:
    """Body and headers; None: no body, a tombstone. Raises FleetError."""
    if item.event is not None:
        return msgspec.json.encode(_complete(item.event)), {
            "content-type": "application/cloudevents+json",
            **item.headers,
        }
    if item.base64 is not None:
        try:
            return base64.b64decode(item.base64, validate=True), item.headers
        except ValueError as error:
            raise FleetError(f"an item's base64 does not decode: {error}") from error
    if item.data is not None:
        return msgspec.json.encode(item.data), {"content-type": "application/json", **item.headers}
    return None, item.headers


def path_of(trigger: Trigger, template: str, item: SendItem) -> str:
    """The path for one event: its key is the only part that can be known. Raises FleetError for any other."""
    for name in paths.names(template):
        if trigger.key != f"path.{name}" or item.key is None:
            raise FleetError(
                f"the path {template} of trigger {trigger.name!r} has a part {{{name}}} that the event does not give",
                hint="give the event's key if that is the part, or send with an HTTP client of your own",
            )
        template = template.replace(f"{{{name}}}", quote(item.key, safe=""))
    return template


def _complete(event: dict[str, Any]) -> dict[str, Any]:
    """With the attributes that CloudEvents requires."""
    return {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "fn/send", "type": "fn.sent", **event}
