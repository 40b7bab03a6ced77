"""`InvokeRequest` -> the delivery that its trigger's source would have made, and the reply to it.

So an invocation by hand is read, keyed and bound as a real one: a Kafka trigger gets a record, an http one a request,
an mqtt one a message, and a clock fires.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from fleetfn import cloudevents
from fleetfn.errors import EventError, UsageError
from fleetfn.http import Request, Response
from fleetfn.invocation import Done, Emit, Rejected, Result
from fleetfn_spec.control import InvokeReply, InvokeRequest
from fleetfn_triggers import mqtt_topics, paths, reading
from fleetfn_triggers.cron import Fire
from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.reading import Unreadable

from fleetfn_runtime.load import LoadedTrigger

SOURCE = "fn/invoke"
TYPE = "fn.invoke"

_CLAIMS = frozenset({"specversion", "id", "source", "type"})
_STRUCTURED = "application/cloudevents+json"


def delivery_of(loaded: LoadedTrigger, request: InvokeRequest, source: Source) -> Delivery:
    """Raises UsageError for an event that cannot be given to this trigger."""
    delivery = loaded.reader(_MESSAGES[loaded.spec.kind.name](loaded, request), source)
    delivery.position = None  # not in any source: it takes nothing, and nothing takes it for a duplicate
    if request.key is not None and delivery.problem is None and delivery.key != request.key:
        raise UsageError(
            f'the key "{request.key}" is not the key of the event: trigger {loaded.spec.name} reads "{delivery.key}"',
            hint=f"its key is {loaded.spec.key_expression or 'none'}: put it there, or leave the key out",
        )
    return delivery


def reply_of(result: Result, invocation: str, duration: float) -> InvokeReply:
    outcome = result.outcome
    emits = [_emit(emit) for emit in result.emits]
    if isinstance(outcome, Done):
        reply = None if outcome.reply is None else _readable(outcome.reply)
        return InvokeReply(outcome="done", reply=reply, emits=emits, invocation=invocation, duration=duration)
    failure = outcome.failure
    reason = outcome.reason
    if failure is not None:
        reason = f"{failure.type}: {failure.message}" + (f" ({failure.place})" if failure.place else "")
    return InvokeReply(
        outcome="reject" if isinstance(outcome, Rejected) else "retry",
        emits=emits,
        reason=reason,
        traceback=failure.traceback if failure is not None else "",
        invocation=invocation,
        duration=duration,
    )


class _Record:
    """What a Kafka client would have read."""

    def __init__(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
        self._key, self._value, self._headers = key, value, headers
        self._now = time.time_ns()

    def partition(self) -> int | None:
        return 0

    def offset(self) -> int | None:
        return self._now  # ids derive from it: each invocation is an event of its own

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self._now // 1_000_000


def _record(loaded: LoadedTrigger, request: InvokeRequest) -> _Record:  # noqa: ARG001 - as for each kind
    key = None if request.key is None else request.key.encode()
    kind, value = _payload(request.event)
    return _Record(key, value, [] if kind is None else [("content-type", kind.encode())])


class _Message(NamedTuple):
    """What an MQTT client would have received."""

    topic: str
    payload: bytes
    content_type: str | None
    retain: bool = False
    user: Sequence[tuple[str, str]] = ()


def _message(loaded: LoadedTrigger, request: InvokeRequest) -> _Message:
    mqtt = loaded.spec.mqtt
    if mqtt is None:
        raise RuntimeError("an mqtt trigger has an mqtt block")
    subject = request.event.get("subject")
    topic = mqtt_topics.choose(
        mqtt.topic, loaded.spec.key_expression, topic=request.topic, key=request.key, subject=subject
    )
    kind, value = _payload(request.event)
    return _Message(topic, value or b"", kind)


def _fire(loaded: LoadedTrigger, request: InvokeRequest) -> Fire:  # noqa: ARG001 - as for each kind
    if request.event.get("data") is not None or "data_base64" in request.event:
        raise UsageError("a clock gives no data but its Tick", hint="leave the data out; the time may be given")
    given = request.event.get("time")
    try:
        at = time.time() if given is None else reading.time_of(given, "the event's time").timestamp()
    except Unreadable as error:
        raise UsageError(str(error)) from error
    return Fire(at=at, by_hand=f"invoke-{uuid.uuid4().hex[:12]}")


def _request(loaded: LoadedTrigger, request: InvokeRequest) -> Request:
    http = loaded.spec.http
    if http is None:
        raise RuntimeError("an http trigger has an http block")
    kind, body = _payload(request.event)
    headers = {} if kind is None else {"content-type": kind}
    if kind == _STRUCTURED and body is not None:
        headers, body = _binary(body)
    root, _, name = (loaded.spec.key_expression or "").partition(".")
    if root == "header" and request.key is not None:
        headers[name] = request.key
    given = request.event.get("data")
    known = dict(given) if isinstance(given, dict) else {}
    if root == "path" and request.key is not None:
        known[name] = request.key
    names = paths.names(http.path)
    missing = [each for each in names if each not in known]
    if missing:
        raise UsageError(
            f"the path {http.path} needs {', '.join(f'{{{each}}}' for each in missing)}",
            hint="give the key, or data with a field of that name",
        )
    params = {each: str(known[each]) for each in names}
    path = "/".join(params[part[1:-1]] if part.startswith("{") else part for part in http.path.split("/"))
    return Request(method=http.methods[0], path=path, path_params=params, headers=headers, body=body or b"")


_MESSAGES: Mapping[str, Callable[[LoadedTrigger, InvokeRequest], Any]] = {
    "http": _request,
    "kafka": _record,
    "mqtt": _message,
    "cron": _fire,
}


def _payload(event: dict[str, Any]) -> tuple[str | None, bytes | None]:
    """Content type and bytes: data alone as it is, an event with any attribute of CloudEvents as a structured one."""
    if event.keys() & _CLAIMS:
        now = datetime.now(UTC).isoformat()
        filled = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": SOURCE, "type": TYPE, "time": now, **event}
        return _STRUCTURED, msgspec.json.encode(filled)
    if "data_base64" in event:
        filled = {"specversion": "1.0", "id": "-", "source": SOURCE, "type": TYPE, **event}
        return event.get("datacontenttype"), _decoded(msgspec.json.encode(filled)).data
    if event.get("data") is None:
        return None, None
    return "application/json", msgspec.json.encode(event["data"])


def _binary(body: bytes) -> tuple[dict[str, str], bytes]:
    try:
        return cloudevents.http.encode_binary(_decoded(body))
    except EventError as error:
        raise UsageError(f"the event is no CloudEvent: {error.message}", hint=error.hint) from error


def _decoded(body: bytes) -> Any:
    try:
        return cloudevents.http.decode({"content-type": _STRUCTURED}, body)
    except EventError as error:
        raise UsageError(f"the event is no CloudEvent: {error.message}", hint=error.hint) from error


def _emit(emit: Emit) -> dict[str, Any]:
    _, body = cloudevents.http.encode_structured(emit.event)
    return {"output": emit.output, "key": emit.key, "event": msgspec.json.decode(body)}


def _readable(response: Response) -> Any:
    """`{"status": ..., "headers": ..., "body": ...}`: JSON as it is, other text as text."""
    body = response.body if isinstance(response.body, bytes) else b""
    shown: Any = None
    if body:
        try:
            shown = msgspec.json.decode(body)
        except msgspec.MsgspecError:
            shown = body.decode("utf-8", "replace")
    return {"status": response.status, "headers": dict(response.headers), "body": shown}
