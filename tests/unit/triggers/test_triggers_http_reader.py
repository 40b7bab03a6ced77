"""HTTP requests to deliveries."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from fleetfn.http import Request
from fleetfn.position import Named
from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.http import Http
from fleetfn_triggers.kinds import KINDS
from fleetfn_triggers.trigger import EventFields, Reading

SOURCE = cast("Source", object())
NOW = datetime(2026, 11, 20, 8, 15, tzinfo=UTC)
CE = {"ce-specversion": "1.0", "ce-id": "e1", "ce-source": "/car", "ce-type": "t", "content-type": "application/json"}


def read(request: Request, key: str | None = None, **fields: Any) -> Delivery:
    event = EventFields(**{name: fields.pop(name) for name in ("id", "time") if name in fields})
    reading = Reading("show", "battery", key, event, clock=NOW.timestamp, **fields)
    return KINDS["http"].reader(Http(path="/battery/{vehicle}"), reading)(request, SOURCE)


def request(body: bytes = b'{"vehicle":"v1"}', **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method="POST", path="/battery/v1", path_params={"vehicle": "v1"}, headers=named, body=body)


def test_a_bare_request_becomes_an_event() -> None:
    given = request(content_type="application/json", authorization="Bearer x", trace="1")
    delivery = read(given)
    event = delivery.event
    assert (delivery.problem, delivery.key, delivery.position) == (None, None, None)
    assert delivery.request is given
    assert (event.source, event.type, event.subject) == ("http:/battery/{vehicle}", "http.request", "/battery/v1")
    assert (event.time, event.datacontenttype, event.data) == (NOW, "application/json", given.body)
    assert event.headers == (("trace", b"1"),)


def test_bare_requests_have_ids_of_their_own() -> None:
    assert read(request()).event.id != read(request()).event.id


def test_an_empty_body_is_no_data() -> None:
    assert read(request(b"")).event.data is None


def test_an_idempotency_key_names_the_request() -> None:
    first, second = read(request(idempotency_key="k1")), read(request(b"{}", idempotency_key="k1"))
    assert isinstance(first.position, Named)
    assert first.position == second.position
    assert first.position != read(request(idempotency_key="k2")).position
    assert first.event.id == "k1"
    assert "k1" not in first.position.id


def test_a_cloudevent_is_named_by_source_and_id_together() -> None:
    def position(**changes: str) -> object:
        return read(request(**{**CE, **changes})).position

    assert position() == position(**{"ce-type": "other"})
    assert len({position(), position(**{"ce-id": "e2"}), position(**{"ce-source": "/van"})}) == 3
    assert position() != read(request(idempotency_key="e1")).position


def test_a_cloudevent_is_read() -> None:
    delivery = read(request(**CE), "data.vehicle")
    assert (delivery.problem, delivery.key, delivery.event.id, delivery.event.source) == (None, "v1", "e1", "/car")


def test_a_structured_cloudevent_is_read() -> None:
    body = b'{"specversion":"1.0","id":"e1","source":"/car","type":"t","subject":"s","data":{"vehicle":"v9"}}'
    delivery = read(request(body, content_type="application/cloudevents+json"), "data.vehicle")
    assert (delivery.problem, delivery.key, delivery.event.subject) == (None, "v9", "s")


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        pytest.param("path.vehicle", request(), "v1", id="path"),
        pytest.param("header.X-Vehicle", request(x_vehicle="w"), "w", id="header"),
        pytest.param("data.vehicle", request(b'{"vehicle":7}'), "7", id="data"),
        pytest.param("subject", request(), "/battery/v1", id="subject"),
        pytest.param("source", request(**CE), "/car", id="source"),
        pytest.param("partitionkey", request(**CE, ce_partitionkey="p"), "p", id="partitionkey"),
    ],
)
def test_keys(key: str, given: Request, expected: str) -> None:
    delivery = read(given, key)
    assert (delivery.problem, delivery.key) == (None, expected)


@pytest.mark.parametrize(
    ("key", "given", "problem"),
    [
        pytest.param("data.vehicle", request(b"{}"), "no key: data.vehicle is missing", id="no key"),
        pytest.param("data.vehicle", request(b""), "no key: there is no data that data.vehicle could", id="no body"),
        pytest.param(
            "data.vehicle", request(b"{"), "the data is not JSON: it ends too early, after byte 1; ", id="no JSON"
        ),
        pytest.param("header.vin", request(), "no key: header.vin is missing", id="no header"),
        pytest.param(None, request(idempotency_key=" "), "Idempotency-Key is empty", id="empty Idempotency-Key"),
        pytest.param(None, request(ce_id="e1"), "not a CloudEvent: ", id="half a CloudEvent"),
        pytest.param(
            None, request(b"{}", content_type="application/cloudevents+json"), "not a CloudEvent: ", id="structured"
        ),
        pytest.param(
            None, request(b"{}", content_type="application/cloudevents+avro"), "not a CloudEvent: ", id="avro"
        ),
        pytest.param(
            None,
            request(b"[]", content_type="application/cloudevents-batch+json"),
            "a batch (application/cloudevents-batch+json) is not taken here: send its events one by one",
            id="batch",
        ),
    ],
)
def test_what_cannot_be_read_is_a_delivery_with_its_problem(key: str | None, given: Request, problem: str) -> None:
    delivery = read(given, key)
    assert delivery.problem is not None
    assert delivery.problem.startswith(problem)
    assert delivery.key is None
    assert delivery.request is given
    assert delivery.event.data == (given.body or None)


def test_id_and_time_come_from_the_data() -> None:
    delivery = read(request(b'{"id":"e9","ts":0}'), id="data.id", time="data.ts")
    assert (delivery.event.id, delivery.event.time) == ("e9", datetime(1970, 1, 1, tzinfo=UTC))


def test_foreign_bytes_are_decoded() -> None:
    delivery = read(request(b"\x01", content_type="application/octet-stream"), decode=lambda data: {"n": data[0]})
    assert (delivery.event.data, delivery.event.datacontenttype) == (b'{"n":1}', "application/json")
