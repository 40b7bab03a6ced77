"""The Publisher of dapr outputs: each event goes to a component of the sidecar in a request of its own.

A pub/sub component gets the event as CloudEvents JSON, byte for byte: Dapr would otherwise decode and encode it again,
which spoils large numbers. A binding gets its data. What the sidecar says of the event itself (too large, not known to
the binding) refuses it for good; everything else is an outage, a component that is missing included.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from fleetfn.cloudevents import json as codec
from fleetfn.errors import EventError, FleetError, OutputDown, OutputError, OutputRefused
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn_triggers.dapr_output import DaprOutput

from fleetfn_runtime.dapr_sidecar import Reply, Sidecar, SidecarError
from fleetfn_runtime.emit_lanes import EmitLanes

LARGEST = 4 * 1024 * 1024
"""Bytes of a request: what the sidecar takes unless --max-body-size says otherwise."""

CREATE = "create"

_MALFORMED = 400
_UNKNOWN_OPERATION = "does not support operation"


class DaprPublisher:
    """Used on one loop. `outputs`: by name."""

    def __init__(self, sidecar: Sidecar, outputs: Mapping[str, DaprOutput]) -> None:
        self._sidecar = sidecar
        self._outputs = dict(outputs)
        self._lanes = EmitLanes()

    async def look(self) -> None:
        """Whether the sidecar has the components. Raises FleetError."""
        await self._sidecar.ready()
        reply = await self._sidecar.ask("GET", "/v1.0/metadata")
        try:
            known = {each.name for each in msgspec.json.decode(reply.body, type=_Metadata).components}
        except msgspec.MsgspecError as error:
            raise FleetError(f"what answers at {self._sidecar.address} is no Dapr sidecar: {error}") from error
        for name, output in self._outputs.items():
            if _component(output) not in known:
                raise FleetError(
                    f'output "{name}": the Dapr sidecar at {self._sidecar.address} has no component '
                    f'"{_component(output)}" (it has {", ".join(sorted(known)) or "none"})',
                    hint="its component must be loaded there, and its scopes must name the function's app-id",
                )

    def check(self, emit: Emit) -> None:
        self._request(emit)

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        return await self._lanes.publish(emits, self._send)

    async def close(self) -> None:
        await self._sidecar.close()

    async def _send(self, emit: Emit) -> OutputError | None:
        try:
            output, path, body = self._request(emit)
            reply = await self._sidecar.ask(
                "POST",
                path,
                body,
                content_type=codec.MEDIA_TYPE if output.pubsub is not None else "application/json",
                limit=output.timeout,
            )
        except OutputRefused as error:
            return error
        except SidecarError as error:
            return OutputDown(error.message, hint=error.hint)
        return None if reply.ok else _judged(emit, output, reply)

    def _request(self, emit: Emit) -> tuple[DaprOutput, str, bytes]:
        """Raises OutputRefused."""
        output = self._outputs.get(emit.output)
        if output is None:
            raise OutputRefused(f'there is no output "{emit.output}"', hint="name it under spec.outputs")
        try:
            path, body = _published(emit, output) if output.pubsub is not None else _bound(emit, output)
        except (EventError, UnicodeEncodeError, msgspec.MsgspecError) as error:
            raise OutputRefused(f'output "{emit.output}": the event cannot be written as JSON: {error}') from error
        if len(body) > LARGEST:
            raise OutputRefused(
                f'output "{emit.output}": the event takes {len(body)} bytes, a Dapr sidecar takes {LARGEST}',
                hint="send less, or store it elsewhere and send where it is",
            )
        return output, path, body


class _Component(msgspec.Struct):
    name: str


class _Metadata(msgspec.Struct):
    components: list[_Component] = []


def _component(output: DaprOutput) -> str:
    return output.pubsub or output.binding or ""


def _published(emit: Emit, output: DaprOutput) -> tuple[str, bytes]:
    topic = _filled(output.topic or "", emit)
    metadata = {"rawPayload": "true", **{name: _filled(value, emit) for name, value in output.metadata.items()}}
    query = urlencode({f"metadata.{name}": value for name, value in metadata.items()}, quote_via=quote)
    return f"/v1.0/publish/{output.pubsub}/{quote(topic)}?{query}", codec.encode(emit.event)


def _bound(emit: Emit, output: DaprOutput) -> tuple[str, bytes]:
    asked: dict[str, Any] = {
        "operation": output.operation or CREATE,
        "data": _data(emit.event),
        "metadata": {name: _filled(value, emit) for name, value in output.metadata.items()},
    }
    return f"/v1.0/bindings/{output.binding}", msgspec.json.encode(asked)


def _data(event: Event[bytes | None]) -> object:
    """JSON as it is, text as a string, other bytes as base64."""
    data = event.data
    if data is None:
        return None
    if codec.is_json(event.datacontenttype):
        msgspec.json.decode(data, type=msgspec.Raw)  # raises for what claims to be JSON and is none
        return msgspec.Raw(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def _filled(text: str, emit: Emit) -> str:
    return text.replace("{key}", emit.key or "").replace("{id}", emit.event.id) if "{" in text else text


def _judged(emit: Emit, output: DaprOutput, reply: Reply) -> OutputError:
    said = f'output "{emit.output}": the Dapr component "{_component(output)}" says {reply.complaint.text:.300}'
    if reply.too_large:
        return OutputRefused(said, hint="send less, or raise the sidecar's --max-body-size")
    if _UNKNOWN_OPERATION in reply.complaint.text:
        return OutputRefused(said, hint="name another operation")
    if reply.status == _MALFORMED and "NOT_FOUND" not in reply.complaint.code:
        return OutputRefused(said)
    return OutputDown(said)
