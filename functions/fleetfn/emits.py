"""What a handler sends, as complete CloudEvents.

An emit's id is `<seed>-<n>`: the seed stands for the trigger and the input event, n counts what the run emits, from 0.
A handler that decides by its input and state alone sends equal ids when it runs again.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from fleetfn.cloudevents import attributes
from fleetfn.errors import EventError, FleetError
from fleetfn.event import Event
from fleetfn.invocation import Call, Emit
from fleetfn.values import encode

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
OCTETS = "application/octet-stream"


def encode_data(data: Any) -> tuple[bytes | None, str | None]:
    """A handler's data as bytes and their media type. Raises TypeError for what is neither text, bytes nor JSON."""
    if data is None:
        return None, None
    if isinstance(data, str):
        return data.encode(), TEXT
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), OCTETS
    return encode(data), JSON


def _check_headers(event: Event[Any]) -> None:
    """What is no pair of text and bytes could be saved as unsent, but never read again."""
    for name, value in event.headers:
        if not (isinstance(name, str) and attributes.is_unicode(name) and isinstance(value, bytes)):
            raise EventError(
                f"the event's header {name!a:.100} is no pair of text and bytes: {value!a:.100}",
                hint='headers are pairs like ("trace", b"4711")',
            )


def _seed(call: Call) -> str:
    """Made when something is sent: most events send nothing."""
    event = call.event
    return f"{call.seed}{event.source}/{event.id}" if call.seed else event.id


class Emitter:
    """Makes the emits of one function. `outputs` None: any name will do (tests that name none)."""

    def __init__(self, function: str, outputs: Collection[str] | None) -> None:
        self._source = f"/functions/{function}"
        self._outputs = outputs
        self._prefix = f"{function}."

    def make(
        self,
        call: Call,
        number: int,
        output: str,
        data: Any,
        *,
        key: str | None = None,
        type_: str | None = None,
        subject: str | None = None,
        id_: str | None = None,
    ) -> Emit:
        if self._outputs is not None and output not in self._outputs:
            raise self._unknown(output)
        if isinstance(data, Event):
            return self._forward(call, output, data, key=key, type_=type_, subject=subject, id_=id_)
        key = call.key if key is None else key
        body, media = encode_data(data)
        event: Event[bytes | None] = Event(
            id=id_ or f"{_seed(call)}-{number}",
            source=self._source,
            type=type_ or self._prefix + output,
            subject=(subject or key) or None,
            time=datetime.fromtimestamp(call.now, UTC),
            datacontenttype=media,
            extensions={"partitionkey": key} if key else {},
            data=body,
        )
        if id_ or type_ or subject or key != call.key:
            attributes.check(event)
        return Emit(output, key, event)

    def _forward(
        self,
        call: Call,
        output: str,
        event: Event[Any],
        *,
        key: str | None,
        type_: str | None,
        subject: str | None,
        id_: str | None,
    ) -> Emit:
        """An Event keeps its attributes; what the call names explicitly comes before them, what it lacks is filled."""
        own = event.extensions.get("partitionkey")
        key = key or (own if isinstance(own, str) and own else call.key)
        body, media = encode_data(event.data)
        made: Event[bytes | None] = Event(
            id=id_ or event.id,
            source=event.source,
            type=type_ or event.type,
            subject=subject or event.subject or key or None,
            time=event.time or datetime.fromtimestamp(call.now, UTC),
            datacontenttype=event.datacontenttype or media,
            dataschema=event.dataschema,
            extensions={**event.extensions, "partitionkey": key} if key else event.extensions,
            headers=event.headers,
            data=body,
        )
        attributes.check(made)
        if key is not None:
            attributes.check_string("partitionkey", key)
        _check_headers(made)
        return Emit(output, key, made)

    def _unknown(self, output: str) -> FleetError:
        known = sorted(self._outputs or ())
        near = difflib.get_close_matches(output, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"outputs of this function: {', '.join(known) or 'none'}"
        return FleetError(f"there is no output {output!r}", hint=hint)
