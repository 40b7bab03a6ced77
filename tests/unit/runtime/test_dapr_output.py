"""Outputs of kind dapr: what the sidecar is asked, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import fake_daprd
import pytest
from fleetfn.cloudevents import json as codec
from fleetfn.errors import FleetError, OutputDown, OutputRefused
from fleetfn.event import Event
from fleetfn.invocation import Emit
from fleetfn_runtime import dapr_output
from fleetfn_runtime.dapr_output import DaprPublisher
from fleetfn_runtime.dapr_sidecar import Sidecar
from fleetfn_triggers.dapr_output import DaprOutput
from http_receiver import Receiver, receiving

OUTPUTS = {
    "alerts": DaprOutput(pubsub="bus", topic="fleet/{key}", metadata={"partitionKey": "{key}", "ttlInSeconds": "60"}),
    "files": DaprOutput(binding="files", metadata={"fileName": "{key}-{id}.json"}),
    "rows": DaprOutput(binding="rows", operation="exec"),
}


def emit(output: str, data: bytes | None = b'{"n":9007199254740993}', kind: str | None = "application/json") -> Emit:
    event = Event(id="e/1", source="/functions/f", type="f.alerts", subject="京A1", datacontenttype=kind, data=data)
    return Emit(output, "京A1", event)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.usual = (204, {}, b"")
        yield receiver


@pytest.fixture
async def publisher(receiver: Receiver) -> AsyncIterator[DaprPublisher]:
    publisher = DaprPublisher(Sidecar(f"http://127.0.0.1:{receiver.port}"), OUTPUTS)
    yield publisher
    await publisher.close()


async def test_a_pubsub_gets_the_cloudevent_as_it_is(publisher: DaprPublisher, receiver: Receiver) -> None:
    sent = emit("alerts")
    assert await publisher.publish([sent]) == [None]
    (request,) = receiver.received
    assert request.path == (
        "/v1.0/publish/bus/fleet/%E4%BA%ACA1?metadata.rawPayload=true&metadata.partitionKey=%E4%BA%ACA1"
        "&metadata.ttlInSeconds=60"
    )
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert codec.decode(request.body) == sent.event


@pytest.mark.parametrize(
    ("data", "kind", "seen"),
    [
        (b'{"n": 1}', "application/json", {"n": 1}),
        (b"[1]", None, [1]),
        ("über".encode(), "text/plain", "über"),
        (b"\xff\x00", "application/octet-stream", "/wA="),
        (None, None, None),
    ],
    ids=["JSON", "JSON by default", "text", "bytes", "nothing"],
)
async def test_a_binding_gets_the_data(
    publisher: DaprPublisher, receiver: Receiver, data: bytes | None, kind: str | None, seen: object
) -> None:
    assert await publisher.publish([emit("files", data, kind), emit("rows", data, kind)]) == [None, None]
    by_path = {each.path: json.loads(each.body) for each in receiver.received}
    named = {"fileName": "京A1-e/1.json"}
    assert by_path["/v1.0/bindings/files"] == {"operation": "create", "data": seen, "metadata": named}
    assert by_path["/v1.0/bindings/rows"] == {"operation": "exec", "data": seen, "metadata": {}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, fake_daprd.said("ERR_PUBSUB_PUBLISH_MESSAGE", "broker is away"), OutputDown),
        (404, fake_daprd.said("ERR_PUBSUB_NOT_FOUND", "pubsub bus is not found"), OutputDown),
        (400, fake_daprd.said("ERR_PUBSUB_NOT_FOUND", "pubsub bus is not found"), OutputDown),
        (403, fake_daprd.said("ERR_PUBSUB_FORBIDDEN", "topic is not allowed"), OutputDown),
        (400, fake_daprd.said("ERR_PUBSUB_EVENTS_SER", "no event"), OutputRefused),
        (500, fake_daprd.said("ERR_INVOKE_OUTPUT_BINDING", "x does not support operation y"), OutputRefused),
        (400, "error reading request body: stream too large", OutputRefused),
        (413, "", OutputRefused),
    ],
    ids=["broker", "missing", "missing, in 1.14", "forbidden", "event", "operation", "too large, in 1.14", "too large"],
)
async def test_what_is_about_the_event_refuses_it_and_all_else_is_an_outage(
    publisher: DaprPublisher, receiver: Receiver, status: int, body: object, kind: type
) -> None:
    receiver.usual = (status, {}, (body if isinstance(body, str) else json.dumps(body)).encode())
    (error,) = await publisher.publish([emit("alerts")])
    assert type(error) is kind
    assert 'output "alerts": the Dapr component "bus" says' in str(error)


async def test_what_is_too_large_is_found_before_the_save(publisher: DaprPublisher) -> None:
    large = emit("files", b'"%s"' % (b"x" * dapr_output.LARGEST))
    with pytest.raises(OutputRefused, match=r'output "files": the event takes \d+ bytes, a Dapr sidecar takes 4194304'):
        publisher.check(large)


async def test_data_that_claims_to_be_json_is_looked_at_before_the_save(publisher: DaprPublisher) -> None:
    with pytest.raises(OutputRefused, match="cannot be written as JSON"):
        publisher.check(emit("files", b"{"))


async def test_components_are_looked_for_by_name(receiver: Receiver, publisher: DaprPublisher) -> None:
    known = {"components": [{"name": "bus", "type": "pubsub.redis"}, {"name": "files"}]}
    receiver.usual = (200, {}, json.dumps(known).encode())
    with pytest.raises(FleetError, match=r'output "rows": .* has no component "rows" \(it has bus, files\)'):
        await publisher.look()
    known["components"].append({"name": "rows"})
    receiver.usual = (200, {}, json.dumps(known).encode())
    await publisher.look()
